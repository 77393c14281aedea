//! The store contract's arithmetic, for stores whose transactions run in this process.

use std::time::Duration;

use super::raise::Keep;
use super::{
    Cleared, Commit, CommitId, Expected, Lifetime, Origin, REMEMBERED_COMMITS, Raise, Remaining,
    TOMBSTONE,
};
use crate::random;
use crate::time::Timestamp;

/// Everything about a partition but its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) generation: u64,
    pub(super) version: u64,
    pub(super) created_at: Timestamp,
    pub(super) cleared_at: Option<Timestamp>,
    /// The end that only a commit can move; `None` is without end.
    pub(super) hard_end: Option<Timestamp>,
    pub(super) sliding: Option<Duration>,
    /// The end that use can move, up to `hard_end`.
    pub(super) end: Option<Timestamp>,
    /// The latest expiry of any entry; `None` once an entry without one was written.
    pub(super) last_expiry: Option<Timestamp>,
    /// The id of the first commit or sign-out, and those of the latest commits, eight bytes each, oldest
    /// first.
    pub(super) recent: Vec<u8>,
}

/// What a commit meets.
pub(super) enum Admission {
    /// Apply the changes to this record's entries, which are dropped first when `fresh`.
    Apply {
        /// Nothing that was stored before counts any more.
        fresh: bool,
        /// Entries that are newer than this version are spared.
        spares: Option<u64>,
    },
    /// The same commit was applied before.
    Repeated,
    /// The partition was signed out since.
    Stale,
    /// The life that it goes on with is over.
    Lost,
}

impl Expected {
    /// Whether the entry is as it was read. `stored` is its version and its expiry, if it is there.
    pub(super) fn met(self, stored: Option<(u64, Option<Timestamp>)>, now: Timestamp) -> bool {
        let (version, absent) = match stored {
            Some((version, expires_at)) => (version, expires_at.is_some_and(|at| at <= now)),
            None => (0, true),
        };
        self.version == version || absent && self.version == 0
    }
}

impl Origin {
    /// Whether the partition is as it was read.
    pub(super) fn unmoved(&self, stored: Option<&Record>, now: Timestamp) -> bool {
        let live = stored.filter(|record| !record.ended(now));
        self.generation == stored.map_or(0, |record| record.generation)
            && self.version == live.map_or(0, |record| record.version)
    }
}

impl Record {
    /// The id of the last commit or sign-out.
    pub(super) fn last(&self) -> Option<CommitId> {
        self.recent.last_chunk().map(|id| CommitId(*id))
    }

    /// The life of the partition, if it has not ended.
    pub(super) fn life(&self, now: Timestamp) -> Option<CommitId> {
        let first = self.recent.first_chunk().filter(|_| !self.ended(now));
        first.map(|id| CommitId(*id))
    }

    /// The id before this one.
    pub(super) fn before(&self, id: CommitId) -> Option<CommitId> {
        let ids = self.recent.as_chunks().0;
        let at = ids.iter().position(|seen| *seen == id.0)?;
        if at == 1 && ids.len() > REMEMBERED_COMMITS {
            // Others may have been between the first and this one.
            return None;
        }
        let before = ids.get(at.checked_sub(1)?)?;
        Some(CommitId(*before))
    }

    pub(super) fn remembers(&self, id: CommitId) -> bool {
        self.recent.as_chunks().0.contains(&id.0)
    }

    /// Whether the partition has ended.
    pub(super) fn ended(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    /// Decides on a commit, and prepares the record for its changes when they apply. What the
    /// commit expects is left to the store: nothing is stored yet.
    pub(super) fn admit(
        stored: Option<Self>,
        commit: &Commit,
        now: Timestamp,
    ) -> (Self, Admission) {
        let (id, generation) = (commit.id, commit.generation);
        let version = stored.as_ref().map_or(0, |record| record.version);
        let new = |cleared_at| Self {
            generation,
            version,
            created_at: now,
            cleared_at,
            last_expiry: Some(Timestamp::default()),
            ..Self::default()
        };
        let (mut record, fresh) = match stored {
            Some(record) if record.generation > generation => return (record, Admission::Stale),
            Some(record) if record.generation == generation => {
                if record.remembers(id) {
                    return (record, Admission::Repeated);
                }
                let other = record
                    .life(now)
                    .is_some_and(|life| commit.life != Some(life));
                if commit.life.is_some() && (other || record.ended(now)) {
                    return (record, Admission::Lost);
                }
                match record.ended(now) {
                    true => {
                        let mut next = new(record.cleared_at);
                        next.recent = record.recent;
                        (next, true)
                    }
                    false => (record, false),
                }
            }
            stored if commit.life.is_some() => {
                return (stored.unwrap_or_default(), Admission::Lost);
            }
            _ => (new(None), true),
        };
        // As long as no more have come since, its id would be remembered.
        let forgotten = |known: &u64| version > known.saturating_add(REMEMBERED_COMMITS as u64);
        let spares = commit.repeats.filter(forgotten);
        record.version = record.version.saturating_add(1);
        record.recent.extend(id.0);
        let surplus = record
            .recent
            .len()
            .saturating_sub(8 * (1 + REMEMBERED_COMMITS));
        record.recent.drain(8..8 + surplus);
        (record, Admission::Apply { fresh, spares })
    }

    /// Notes the expiry of an entry that a commit writes.
    pub(super) fn wrote(&mut self, expires_at: Option<Timestamp>) {
        self.last_expiry = match (self.last_expiry, expires_at) {
            (Some(last), Some(expiry)) => Some(last.max(expiry)),
            _ => None,
        };
    }

    /// Sets the ends after a commit.
    pub(super) fn renew(&mut self, lifetime: Lifetime, now: Timestamp) {
        let write = lifetime.since_write.map(|limit| now.saturating_add(limit));
        let creation = lifetime
            .since_creation
            .map(|limit| self.created_at.saturating_add(limit));
        self.hard_end = [write, creation, self.last_expiry]
            .into_iter()
            .flatten()
            .min();
        self.sliding = lifetime.sliding;
        self.slide(now);
    }

    /// Starts the sliding lifetime anew.
    pub(super) fn slide(&mut self, now: Timestamp) {
        let idle = self.sliding.map(|limit| now.saturating_add(limit));
        self.end = [self.hard_end, idle].into_iter().flatten().min();
    }

    /// The record after a sign-out, or as it was when that is of the past or was done before; and
    /// what to answer.
    pub(super) fn cleared(
        stored: Option<Self>,
        expected: Option<u64>,
        id: CommitId,
        now: Timestamp,
    ) -> (Self, Cleared) {
        let record = stored.unwrap_or_default();
        let generation = record.generation;
        let ended = record.remembers(id);
        if expected.map_or(ended, |expected| generation > expected) {
            return (record, Cleared { generation, ended });
        }
        let generation = generation.max(expected.unwrap_or(0));
        // Ended for ever, also if the clock steps back: what comes next begins a new life.
        let end = Some(Timestamp::default());
        let generation = generation.saturating_add(1);
        let record = Self {
            generation,
            version: record.version.saturating_add(1),
            created_at: now,
            cleared_at: Some(now),
            end,
            hard_end: end,
            recent: id.0.to_vec(),
            ..Self::default()
        };
        let ended = true;
        (record, Cleared { generation, ended })
    }

    /// The record of an epoch after it was raised, and whether nothing stored before counts any more.
    pub(super) fn raised(
        stored: Option<Self>,
        raise: Raise,
        keep: Keep,
        now: Timestamp,
    ) -> (Self, bool) {
        let generation = raise.from(stored.as_ref().map_or(0, |record| record.generation));
        let kept = stored.as_ref().map(|record| record.end);
        let end = match (kept, keep) {
            (_, None) | (Some(None), _) => None,
            (Some(Some(end)), Some(keep)) => Some(end.max(now.saturating_add(keep))),
            (None, Some(keep)) => Some(now.saturating_add(keep)),
        };
        let version = stored.as_ref().map_or(0, |record| record.version);
        // One that was lost and is begun again is told from the first by this.
        let kept = stored.as_ref().map(|record| record.recent.clone());
        let id = || random::number().unwrap_or_default().to_be_bytes().to_vec();
        let recent = kept.filter(|ids| !ids.is_empty()).unwrap_or_else(id);
        let goes_on = |record: &Self| record.generation == generation && !record.ended(now);
        let (record, fresh) = match stored.filter(goes_on) {
            Some(record) => (record, false),
            None => {
                let record = Self {
                    generation,
                    version: version.saturating_add(1),
                    created_at: now,
                    // What was under the number before is over from now on.
                    cleared_at: Some(now),
                    ..Self::default()
                };
                (record, true)
            }
        };
        let record = Self {
            end,
            hard_end: end,
            sliding: None,
            recent,
            ..record
        };
        (record, fresh)
    }

    /// When the record itself can be forgotten; `None` is never.
    pub(super) fn forget_at(&self) -> Option<Timestamp> {
        let tombstone = self.cleared_at.map(|at| at.saturating_add(TOMBSTONE));
        self.end.map(|end| end.max(tombstone.unwrap_or_default()))
    }

    /// How long ago it was signed out.
    pub(super) fn cleared_for(&self, now: Timestamp) -> Option<Duration> {
        self.cleared_at.map(|at| now.since(at))
    }

    pub(super) fn remaining(&self, now: Timestamp) -> Remaining {
        Remaining {
            idle: self.end.map(|end| end.since(now)),
            hard: self.hard_end.map(|end| end.since(now)),
        }
    }
}
