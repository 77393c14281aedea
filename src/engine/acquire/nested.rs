//! Acquisitions that acquire functions make: who waits for whom, so that no two wait for each other.

use parking_lot::Mutex;

use crate::key::{PartitionKey, TokenKey};

/// A partition, and an entry of it: a token that is acquired, or a refresh token that is redeemed.
pub(crate) type Place = (PartitionKey, TokenKey);

/// The acquisitions whose acquire functions wait for others.
#[derive(Default)]
pub(crate) struct Waits(Mutex<Vec<Edge>>);

/// Who holds `from` waits for who holds `to`.
#[derive(Clone, PartialEq)]
struct Edge {
    from: Vec<Place>,
    to: Vec<Place>,
}

/// One waits for another until this is dropped.
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    edge: Edge,
}

impl Waits {
    /// Notes that who holds `from` waits for who holds `to`. `None` if that one waits for the first already,
    /// perhaps by way of others.
    pub(crate) fn enter(&self, from: Vec<Place>, to: Vec<Place>) -> Option<Waiting<'_>> {
        let mut edges = self.0.lock();
        let mut reached = Vec::from_iter(&to);
        let mut next = 0;
        while let Some(at) = reached.get(next).copied() {
            if from.contains(at) {
                return None;
            }
            next += 1;
            for edge in edges.iter().filter(|edge| edge.from.contains(at)) {
                let new = edge.to.iter().filter(|place| !reached.contains(place));
                let new = Vec::from_iter(new);
                reached.extend(new);
            }
        }
        let edge = Edge { from, to };
        edges.push(edge.clone());
        drop(edges);
        Some(Waiting { waits: self, edge })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut edges = self.waits.0.lock();
        if let Some(at) = edges.iter().position(|edge| *edge == self.edge) {
            edges.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_of_any_length_is_refused_and_ends_with_one_that_waits() {
        let waits = Waits::default();
        let place = |name: &str| {
            let key = TokenKey::new(name).expect("a key");
            vec![(PartitionKey::user("u").expect("a key"), key)]
        };
        let [a, b, c] = ["a", "b", "c"].map(place);
        let first = waits.enter(a.clone(), b.clone()).expect("no circle");
        let second = waits.enter(b.clone(), c.clone()).expect("no circle");
        let again = waits.enter(a.clone(), b.clone()).expect("twice at a time");
        assert!(waits.enter(b.clone(), a.clone()).is_none());
        assert!(waits.enter(c.clone(), a.clone()).is_none());
        drop(first);
        assert!(waits.enter(c.clone(), a.clone()).is_none());
        drop(again);
        assert!(waits.enter(c, a).is_some());
        drop(second);
        assert!(waits.0.lock().is_empty());
    }
}
