//! Who waits for whom, so that none waits for itself, not even by way of others.

use parking_lot::Mutex;

/// The waits in progress. `P` is a place that one holds and another waits for.
pub(crate) struct Waits<P>(Mutex<Vec<Edge<P>>>);

/// Who holds `from` waits for who holds `to`.
#[derive(Clone, PartialEq)]
struct Edge<P> {
    from: Vec<P>,
    to: Vec<P>,
}

/// One waits for another until this is dropped.
pub(crate) struct Waiting<'a, P: PartialEq> {
    waits: &'a Waits<P>,
    edge: Edge<P>,
}

impl<P: Clone + PartialEq> Waits<P> {
    /// Notes that who holds `from` waits for who holds `to`. `None` if that one waits for the first already,
    /// perhaps by way of others.
    pub(crate) fn enter(&self, from: Vec<P>, to: Vec<P>) -> Option<Waiting<'_, P>> {
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

impl<P> Default for Waits<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: PartialEq> Drop for Waiting<'_, P> {
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
        let [a, b, c] = ["a", "b", "c"].map(|place| vec![place]);
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
