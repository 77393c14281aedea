//! A change that L2 does not have yet, and a commit in flight.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::codec::Value;
use crate::engine::budget::Permit;
use crate::engine::error::L2Error;
use crate::engine::partition::by_name::ByName;
use crate::engine::partition::life::Life;
use crate::engine::trust::Era;
use crate::key::TokenKey;
use crate::store::{CommitId, Expected};
use crate::time::{Moment, Now};

pub(crate) type CommitAckSender = oneshot::Sender<Result<CommitAck, L2Error>>;

/// The outcome of changes that a caller waits for, if L2 could be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// A sign-out has discarded them, or some of them.
    Ended,
}

pub(crate) struct PendingChange {
    /// `None` removes the entry.
    pub(crate) value: Option<Value>,
    pub(crate) made: Moment,
    /// The change's share of the budget.
    pub(crate) _permit: Permit,
}

/// Acquired tokens, which are committed together and on a condition.
pub(crate) struct AcquiredBatch {
    pub(crate) changes: Arc<ByName<PendingChange>>,
    pub(crate) expected: Option<Expected>,
    /// The acquisition that waits. The changes are not visible while it does.
    pub(crate) ack: Option<CommitAckSender>,
}

/// The outcome of an [`AcquiredBatch`]. There is none for a batch that was dropped because of a sign-out: its sender
/// is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitAck {
    /// L2 has it.
    Stored,
    /// Another commit has replaced what the batch was to replace: the batch is dropped.
    Conflict,
}

#[derive(Clone)]
pub(crate) struct InFlight {
    pub(crate) id: CommitId,
    pub(crate) expected: Option<Expected>,
    pub(crate) changes: Arc<ByName<PendingChange>>,
    /// Entries that L2 has lost, to be written again with the changes.
    pub(crate) again: Arc<ByName<PendingChange>>,
    /// The life that the commit continues; `None` begins one.
    pub(crate) life: Option<Life>,
    /// It was sent before and may have been applied.
    pub(crate) sent: bool,
    /// What memory had when the commit was first sent. If L2 reports that the commit directly follows this,
    /// no other commit came between.
    pub(crate) base: CommitBase,
}

/// The version of memory, and the id of the commit that made it.
#[derive(Clone, Copy)]
pub(crate) struct CommitBase {
    pub(crate) version: u64,
    pub(crate) commit: Option<CommitId>,
    /// The feed's era at that time.
    pub(crate) era: Era,
}

impl PendingChange {
    /// A change; its share of the budget comes out of `reserved`.
    pub(crate) fn new(
        name: &TokenKey,
        value: Option<Value>,
        now: Now,
        reserved: &mut Permit,
    ) -> Self {
        let size = Self::size(name, value.as_ref());
        Self {
            value,
            made: now.moment,
            _permit: reserved.split(size),
        }
    }

    /// Bytes of the budget that a change takes.
    pub(crate) fn size(name: &TokenKey, value: Option<&Value>) -> usize {
        name.as_bytes().len() + value.map_or(64, Value::footprint)
    }
}
