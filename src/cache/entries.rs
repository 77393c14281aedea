//! The entries of one partition, in one block of memory.

use crate::codec::Value;
use crate::key::TokenKey;

/// Entries, sorted by name: few, read often, and changed seldom.
#[derive(Default)]
pub(super) struct Entries(Vec<Entry>);

pub(super) struct Entry {
    pub(super) name: TokenKey,
    pub(super) value: Value,
    /// Lives in memory only; L2 has not heard of it.
    pub(super) local: bool,
}

impl Entries {
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.find(name).ok().map(|at| &self.0[at])
    }

    /// Returns the entry that was replaced.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        match self.find(entry.name.as_ref()) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at], entry)),
            Err(at) => {
                if self.0.is_empty() {
                    // An access, a refresh and an id token.
                    self.0.reserve_exact(3);
                }
                self.0.insert(at, entry);
                None
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Entry> {
        self.find(name).ok().map(|at| self.0.remove(at))
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.0.retain(keep);
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        let name = name.as_bytes();
        self.0.binary_search_by(|entry| entry.name.as_bytes().cmp(name))
    }
}
