//! The entries of one partition in memory.
//!
//! Most partitions have an access, a refresh and an id token: they stand in place, next to what a
//! read looks at first. One with many entries (an application's tokens for a thousand tenants) has
//! a tree.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::ALLOCATION;
use crate::codec::Value;
use crate::key::TokenKey;
use crate::time::Timestamp;

/// Entries that are looked through one by one.
const FEW: usize = 16;

pub(super) enum Entries {
    Few(SmallVec<[(TokenKey, Entry); 3]>),
    Many(BTreeMap<TokenKey, Entry>),
}

pub(super) struct Entry {
    pub(super) value: Value,
    /// [`Timestamp::MAX`] when it has no expiry of its own.
    expires_at: Timestamp,
    /// Lives in memory only; L2 has not heard of it.
    pub(super) local: bool,
}

impl Entry {
    pub(super) fn new(value: Value, local: bool) -> Self {
        Self {
            expires_at: value.expires_at().unwrap_or(Timestamp::MAX),
            value,
            local,
        }
    }

    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

impl Entries {
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
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

    /// Puts an entry in the place of what had its name.
    pub(super) fn insert(&mut self, name: TokenKey, entry: Entry) -> Option<Entry> {
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

    pub(super) fn remove(&mut self, name: &str) -> Option<Entry> {
        match self {
            Self::Few(entries) => {
                let at = entries.iter().position(|(key, _)| key.as_ref() == name)?;
                Some(entries.swap_remove(at).1)
            }
            Self::Many(entries) => entries.remove(name),
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        match self {
            Self::Few(entries) => entries.retain(|(_, entry)| keep(entry)),
            Self::Many(entries) => entries.retain(|_, entry| keep(entry)),
        }
    }

    /// Memory of the list or tree, without what the entries own, in bytes.
    pub(super) fn footprint(&self) -> usize {
        let entry = std::mem::size_of::<(TokenKey, Entry)>();
        match self {
            Self::Few(entries) if !entries.spilled() => 0,
            Self::Few(entries) => entries.capacity() * entry + ALLOCATION,
            // Nodes are two thirds full on average, and have links.
            Self::Many(entries) => entries.len() * (entry * 3 / 2 + ALLOCATION),
        }
    }

    /// In no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TokenKey, &Entry)> {
        let (few, many) = match self {
            Self::Few(entries) => (Some(entries), None),
            Self::Many(entries) => (None, Some(entries)),
        };
        let few = few.into_iter().flatten().map(|(name, entry)| (name, entry));
        few.chain(many.into_iter().flatten())
    }
}

impl Default for Entries {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    #[test]
    fn few_and_many_behave_alike() {
        let name = |number: usize| TokenKey::from_canonical(&format!("name-{number}"));
        let entry = |text: &str| Entry::new(Value::Token(Token::new(text)), false);
        let mut entries = Entries::default();
        for number in 0..3 * FEW {
            assert!(entries.insert(name(number), entry("old")).is_none());
            assert!(entries.insert(name(number), entry("new")).is_some());
            assert_eq!(entries.iter().count(), number + 1);
        }
        for number in 0..3 * FEW {
            let found = entries.get(name(number).as_ref()).expect("inserted");
            assert_eq!(found.value, Value::Token(Token::new("new")));
        }
        assert!(entries.remove("name-0").is_some());
        assert!(entries.remove("name-0").is_none());
        entries.retain(|_| false);
        assert_eq!(entries.iter().count(), 0);
    }
}
