//! `ByName`: a map by token key, for the entries of a partition and for its changes.
//!
//! Most partitions have an access, a refresh and an id token: up to three entries are stored inline, next to
//! the fields that a read checks first. A partition with many entries (an application's tokens for a thousand
//! tenants) uses a tree.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::key::TokenKey;
use crate::memory::ALLOCATION;

/// The most entries that are searched one by one.
const FEW: usize = 16;

pub(crate) enum ByName<V> {
    Few(SmallVec<[(TokenKey, V); 3]>),
    Many(BTreeMap<TokenKey, V>),
}

impl<V> ByName<V> {
    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        match self {
            Self::Few(entries) => {
                let found = entries
                    .iter()
                    .find(|(key, _)| key.as_bytes() == name.as_bytes())?;
                Some(&found.1)
            }
            Self::Many(entries) => entries.get(name),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(entries) => entries.len(),
            Self::Many(entries) => entries.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inserts an entry, and returns the one that had its name.
    pub(crate) fn insert(&mut self, name: TokenKey, entry: V) -> Option<V> {
        if let Self::Few(entries) = self {
            if let Some((_, old)) = entries.iter_mut().find(|(key, _)| *key == name) {
                return Some(std::mem::replace(old, entry));
            }
            if entries.len() < FEW {
                entries.push((name, entry));
                return None;
            }
            *self = Self::Many(std::mem::take(entries).into_iter().collect());
        }
        match self {
            Self::Many(entries) => entries.insert(name, entry),
            Self::Few(_) => None,
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<V> {
        match self {
            Self::Few(entries) => {
                let at = entries.iter().position(|(key, _)| key.as_ref() == name)?;
                Some(entries.swap_remove(at).1)
            }
            Self::Many(entries) => entries.remove(name),
        }
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        match self {
            Self::Few(entries) => entries.retain(|(_, entry)| keep(entry)),
            Self::Many(entries) => entries.retain(|_, entry| keep(entry)),
        }
    }

    /// Keeps `at` of the entries, and returns the others.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Few(entries) => Self::Few(entries.drain(at.min(entries.len())..).collect()),
            Self::Many(entries) => match entries.keys().nth(at).cloned() {
                Some(first) => Self::Many(entries.split_off(&first)),
                None => Self::default(),
            },
        }
    }

    /// Bytes of the list or tree, without what the entries own.
    pub(crate) fn footprint(&self) -> usize {
        let entry = std::mem::size_of::<(TokenKey, V)>();
        match self {
            Self::Few(entries) if !entries.spilled() => 0,
            Self::Few(entries) => entries.capacity() * entry + ALLOCATION,
            // Nodes are two thirds full on average, and contain links.
            Self::Many(entries) => entries.len() * (entry * 3 / 2 + ALLOCATION),
        }
    }

    /// The entries, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TokenKey, &V)> {
        let (few, many) = match self {
            Self::Few(entries) => (Some(entries), None),
            Self::Many(entries) => (None, Some(entries)),
        };
        let few = few.into_iter().flatten().map(|(name, entry)| (name, entry));
        few.chain(many.into_iter().flatten())
    }
}

impl<V> ByName<V> {
    /// The entries, in no particular order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (TokenKey, V)> {
        let (few, many) = match self {
            Self::Few(entries) => (Some(entries), None),
            Self::Many(entries) => (None, Some(entries)),
        };
        let few = few.into_iter().flatten();
        few.chain(many.into_iter().flatten())
    }
}

impl<V> Default for ByName<V> {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl<V> FromIterator<(TokenKey, V)> for ByName<V> {
    fn from_iter<I: IntoIterator<Item = (TokenKey, V)>>(entries: I) -> Self {
        let mut all = Self::default();
        for (name, entry) in entries {
            all.insert(name, entry);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> TokenKey {
        TokenKey::from_canonical(&format!("name-{number}"))
    }

    #[test]
    fn few_and_many_behave_alike() {
        let mut entries = ByName::default();
        for number in 0..3 * FEW {
            assert!(entries.insert(name(number), "old").is_none());
            assert_eq!(entries.insert(name(number), "new"), Some("old"));
            assert_eq!(entries.iter().count(), number + 1);
            assert_eq!(entries.len(), number + 1);
        }
        for number in 0..3 * FEW {
            assert_eq!(entries.get(name(number).as_ref()), Some(&"new"));
        }
        assert!(entries.remove("name-0").is_some());
        assert!(entries.remove("name-0").is_none());
        entries.retain(|_| false);
        assert!(entries.is_empty());
    }

    #[test]
    fn few_and_many_split_alike() {
        for count in [1, 3, FEW, 3 * FEW] {
            for at in [0, 1, count - 1, count, count + 1] {
                let mut entries: ByName<_> = (0..count).map(|it| (name(it), it)).collect();
                let rest = entries.split_off(at);
                assert_eq!(entries.len(), at.min(count), "{count} at {at}");
                let both = entries.iter().chain(rest.iter());
                let mut all: Vec<_> = both.map(|(_, number)| *number).collect();
                all.sort_unstable();
                assert_eq!(all, Vec::from_iter(0..count), "{count} at {at}");
            }
        }
    }
}
