//! A change that L2 has yet to get, and a commit that is on its way.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::codec::Value;
use crate::engine::budget::Permit;
use crate::engine::error::L2Error;
use crate::engine::partition::entries::ByName;
use crate::engine::partition::life::Life;
use crate::key::TokenKey;
use crate::store::{CommitId, Expected};
use crate::time::{Moment, Now, Timestamp};

pub(crate) type CommitAckSender = oneshot::Sender<Result<CommitAck, L2Error>>;

/// What became of changes that somebody waited for, where L2 could be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// A sign-out has ended them, or some of them.
    Ended,
}

pub(crate) struct PendingChange {
    /// `None` removes the entry.
    pub(crate) value: Option<Value>,
    pub(crate) since: Timestamp,
    pub(crate) made: Moment,
    /// The change's place in the budget.
    pub(crate) _permit: Permit,
}

/// Tokens that were acquired, which are committed together and on a condition.
pub(crate) struct Batch {
    pub(crate) changes: Arc<ByName<PendingChange>>,
    pub(crate) expected: Option<Expected>,
    /// Who waits. Nobody sees the changes as long as somebody does.
    pub(crate) ack: Option<CommitAckSender>,
}

/// What became of a [`Batch`]. One that was dropped because of a sign-out is never told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitAck {
    /// L2 has it.
    Stored,
    /// Somebody has replaced what it was to replace: it is dropped.
    Conflict,
}

#[derive(Clone)]
pub(crate) struct InFlight {
    pub(crate) id: CommitId,
    pub(crate) expected: Option<Expected>,
    pub(crate) changes: Arc<ByName<PendingChange>>,
    /// What L2 has lost, to be written with them.
    pub(crate) again: Arc<ByName<PendingChange>>,
    /// The life that it goes on with.
    pub(crate) life: Option<Life>,
    /// It was sent before, and may have been applied.
    pub(crate) sent: bool,
    /// What memory had when it was first sent. If L2 says that it came right after, it has had no
    /// other commit since.
    pub(crate) base: CommitBase,
}

/// The version of memory, and the id of the commit that made it.
#[derive(Clone, Copy)]
pub(crate) struct CommitBase {
    pub(crate) version: u64,
    pub(crate) commit: Option<CommitId>,
    /// The epoch of the feed then.
    pub(crate) epoch: u32,
}

impl PendingChange {
    /// A change, with its room out of what was reserved.
    pub(crate) fn new(
        name: &TokenKey,
        value: Option<Value>,
        now: Now,
        reserved: &mut Permit,
    ) -> Self {
        let size = Self::size(name, value.as_ref());
        Self {
            value,
            since: now.wall,
            made: now.moment,
            _permit: reserved.split(size),
        }
    }

    /// The room that a change takes, in bytes.
    pub(crate) fn size(name: &TokenKey, value: Option<&Value>) -> usize {
        name.as_bytes().len() + value.map_or(64, Value::footprint)
    }
}
