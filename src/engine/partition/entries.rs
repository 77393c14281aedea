//! The entries of a partition: changing, listing and pruning them, and their size.

use std::time::Duration;

use crate::codec::Value;
use crate::engine::budget::Permit;
use crate::engine::l1::digests::FOOTPRINT;
use crate::engine::partition::by_name::ByName;
use crate::engine::partition::change::PendingChange;
use crate::engine::partition::entry::{Entry, Unopened};
use crate::engine::partition::links::Links;
use crate::engine::partition::state::{Partition, State};
use crate::error::Error;
use crate::key::{ClientName, PartitionKey, TokenKey};
use crate::time::{Now, Timestamp};

/// Bytes that a partition takes besides itself and what its entries own: its share of L1's index and of the
/// allocator. Measured; see `benches/peers/benches/memory.rs`.
const INDEX_FOOTPRINT: usize = 480;

/// The most bytes that a partition takes: 2,000 tokens of 4 KB. It is read as a whole, within the time that
/// L2 has for an answer.
const MAX_PARTITION: usize = 8 << 20;

/// An error for a partition of this size, if it is too large.
pub(crate) fn check_size(size: usize) -> Result<(), Error> {
    let limit = MAX_PARTITION;
    match size > limit {
        true => Err(Error::TooLarge { size, limit }),
        false => Ok(()),
    }
}

/// What an entry counts for in its partition.
pub(crate) fn size_of_entry(name: &TokenKey, value: &Value) -> usize {
    EACH + name.footprint() + value.footprint()
}

/// What each entry counts for besides its own bytes.
const EACH: usize = 256;

/// The least time that an expired entry is kept: an acquisition passes the token that it replaces on to the
/// acquire function.
const EXPIRED_KEPT: Duration = Duration::from_secs(60);

impl State {
    /// The keys of the client's usable tokens, sorted.
    pub(crate) fn keys(&self, client: Option<&ClientName>, now: Now) -> Vec<TokenKey> {
        let usable = |name: &TokenKey, entry: &Entry| {
            let lives = entry.local || !self.ended(now) || self.waits(name.as_ref());
            lives && entry.is_unexpired(now.wall) && name.is_token_of(client)
        };
        let entries = self.entries.iter();
        let usable = entries.filter(|(name, entry)| usable(name, entry));
        let mut keys: Vec<_> = usable.map(|(name, _)| name.without_client()).collect();
        keys.sort_unstable();
        keys
    }

    /// All usable entries.
    pub(crate) fn usable_entries(&self, now: Now) -> Vec<(TokenKey, Value)> {
        let usable =
            |(_, entry): &(&TokenKey, &Entry)| !self.ended(now) && entry.is_unexpired(now.wall);
        let usable = self.entries.iter().filter(usable);
        usable
            .map(|(name, entry)| (name.clone(), entry.value.clone()))
            .collect()
    }

    /// The entries that are written again to an L2 that has lost them. A session value is not: another instance
    /// may have taken it.
    pub(crate) fn recoverable_entries(&self, now: Now) -> Vec<(TokenKey, Value)> {
        let local = |name: &TokenKey| {
            let found = self.entries.get(name.as_ref());
            found.is_some_and(|entry| entry.local)
        };
        let mut entries = self.usable_entries(now);
        entries.retain(|(name, _)| !(local(name) || name.is_session_value()));
        entries
    }

    /// Applies changes to the entries and, if room for them was reserved, queues them for L2.
    pub(crate) fn change(
        &mut self,
        changes: impl IntoIterator<Item = (TokenKey, Option<Value>)>,
        mut reserved: Option<Permit>,
        now: Now,
    ) {
        if self.ended(now) && !self.is_active() {
            self.forget_entries();
            // L2 may have deleted it since, and count generations from the start again.
            if self.has_outlived_generation(now) {
                self.generation = None;
            }
            self.forget_life();
        }
        self.prune(now.wall);
        for (name, value) in changes {
            self.apply(name.clone(), value.clone(), reserved.is_none());
            if let Some(reserved) = &mut reserved {
                let change = PendingChange::new(&name, value, now, reserved);
                self.pending().changes.insert(name, change);
            }
        }
    }

    /// Whether values of these sizes fit. A partition is read as a whole: if it were too large for that,
    /// every read of it would fail.
    pub(crate) fn has_room_for<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a TokenKey, usize)>,
        now: Now,
    ) -> Result<(), Error> {
        if self.ended(now) {
            // The next change discards the entries.
            return Ok(());
        }
        self.prune(now.wall);
        let mut size = self.bytes + self.entries.len() * EACH;
        let mut grows = false;
        for (name, bytes) in values {
            let known = self.entries.get(name.as_ref());
            let known = known.map(|entry| entry.value.footprint());
            grows |= known.is_none_or(|known| known < bytes);
            size += bytes + known.map_or(name.footprint() + EACH, |_| 0);
            size -= known.unwrap_or(0);
        }
        check_size(if grows { size } else { 0 })
    }

    pub(crate) fn apply(&mut self, name: TokenKey, value: Option<Value>, local: bool) {
        let own = name.footprint();
        self.relinked |= Links::is_link(&name);
        let replaced = match value {
            Some(value) => {
                self.bytes += own + value.footprint();
                let end = value.expires_at();
                let end = end.map(|at| at.saturating_add(EXPIRED_KEPT));
                self.prune_at = [self.prune_at, end].into_iter().flatten().min();
                self.entries.insert(name, Entry::new(value, local))
            }
            None => self.entries.remove(name.as_ref()),
        };
        self.bytes -= replaced.map_or(0, |entry| own + entry.value.footprint());
    }

    /// Removes the entries that L2 has, too; local ones stay.
    pub(crate) fn forget_loaded_entries(&mut self) {
        self.relinked |= !self.links.is_empty();
        self.retain(|entry| entry.local);
    }

    pub(crate) fn is_to_be_pruned(&self, now: Timestamp) -> bool {
        self.prune_at.is_some_and(|at| at <= now)
    }

    /// Frees expired entries, but only when that is due, because it scans all entries.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        if self.is_to_be_pruned(now) {
            self.retain(|entry| entry.is_unexpired(now));
            let next = now.saturating_add(EXPIRED_KEPT);
            self.prune_at = self.prune_at.map(|at| at.max(next));
        }
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(keep);
        self.bytes = 0;
        self.prune_at = None;
        for (name, entry) in self.entries.iter() {
            self.bytes += name.footprint() + entry.value.footprint();
            let end = entry.value.expires_at();
            let end = end.map(|at| at.saturating_add(EXPIRED_KEPT));
            self.prune_at = [self.prune_at, end].into_iter().flatten().min();
        }
    }

    pub(crate) fn forget_entries(&mut self) {
        self.entries = ByName::default();
        self.links = Links::default();
        self.unopenable = Unopened::default();
        self.unstored_failure = None;
        self.bytes = 0;
        self.prune_at = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nothing is in progress and no entry is usable.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        let used = |(_, entry): (&TokenKey, &Entry)| entry.is_unexpired(now.wall);
        !self.is_active() && (self.ended(now) || !self.entries.iter().any(used))
    }

    /// Bytes of the partition in total.
    pub(crate) fn footprint(&self, key: &PartitionKey) -> u32 {
        // The key is stored here and in L1's index.
        let listed = self.listed.as_ref().map_or(0, |_| FOOTPRINT);
        let own = INDEX_FOOTPRINT + std::mem::size_of::<Partition>() + 2 * key.footprint() + listed;
        let bytes = own + self.entries.footprint() + self.links.footprint() + self.bytes;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}
