//! Questions about leases, and those that wait for a connection.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::StoreError;
use crate::store::columns::integer;
use crate::store::{Lease, LeaseState};
use crate::time::millis;

/// The longest lease: what is added to the time of now stays a number.
const LONGEST: u64 = 1 << 61;

/// The most leases in one statement.
const MAX_GROUP: usize = 64;

/// A lease to be taken.
#[derive(Clone, Debug)]
pub struct Acquire {
    pub(super) lease: Lease,
    pub(super) ttl: Duration,
}

/// A lease to be given back.
#[derive(Clone, Debug)]
pub struct Release {
    pub(super) lease: Lease,
}

/// Of which lease it is.
pub(super) trait OfLease {
    fn lease(&self) -> &Lease;
}

impl OfLease for Acquire {
    fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl OfLease for Release {
    fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// The key of a lease's row.
pub(super) type Key = (Vec<u8>, Vec<u8>);

/// Takes an answer.
pub(super) type Reply<A> = oneshot::Sender<Result<A, StoreError>>;

/// The questions of one kind that wait for a connection, in the order in which they came.
pub(super) struct Waiting<Q, A>(Mutex<Vec<Asked<Q, A>>>);

pub(super) struct Asked<Q, A> {
    pub(super) question: Q,
    pub(super) reply: Reply<A>,
    /// It goes out alone: a group in which it was has not been answered. Another lease of it may be held up in the database.
    alone: bool,
}

impl<Q, A> Asked<Q, A> {
    pub(super) fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }
}

impl<Q: OfLease, A> Waiting<Q, A> {
    pub(super) fn add(&self, question: Q, alone: bool) -> oneshot::Receiver<Result<A, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            question,
            reply,
            alone,
        };
        self.0.lock().push(asked);
        answer
    }

    /// The next group. No two of it are about one lease, and they are sorted, as those of all instances are: so none waits
    /// for a row that another has while that one waits for it.
    pub(super) fn take(&self) -> Vec<Asked<Q, A>> {
        let mut waiting = self.0.lock();
        waiting.retain(Asked::is_awaited);
        let most = match waiting.first() {
            Some(first) if !first.alone => MAX_GROUP,
            _ => 1,
        };
        let mut keys = HashSet::new();
        let is_next = |asked: &mut Asked<Q, A>| {
            let goes_along = most == 1 || !asked.alone;
            goes_along && keys.len() < most && keys.insert(key(asked.question.lease()))
        };
        let mut group: Vec<_> = waiting.extract_if(.., is_next).collect();
        group.sort_by_cached_key(|asked| key(asked.question.lease()));
        group
    }
}

impl<Q, A> Default for Waiting<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

pub(super) fn key(lease: &Lease) -> Key {
    let entry = lease.entry.as_bytes().to_vec();
    (lease.partition.digest().to_vec(), entry)
}

/// A lease of another owner, for so many milliseconds.
pub(super) fn held(remaining: i64) -> LeaseState {
    let remaining = Duration::from_millis(u64::try_from(remaining).unwrap_or(0));
    LeaseState::Held { remaining }
}

/// In milliseconds.
pub(super) fn length(ttl: Duration) -> i64 {
    integer(millis(ttl).min(LONGEST))
}
