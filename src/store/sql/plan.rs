//! `Plan`: what is to be written, as the difference between a partition as it was read and as it is to be.

use std::fmt;
use std::time::Duration;

use crate::random;
use crate::store::EntryId;
use crate::store::found::{Difference, Found};
use crate::store::partition::{Entry, Partition};
use crate::store::record::Record;
use crate::time::Timestamp;

/// How long after the partitions were read a plan may still be carried out: it was made for the time of the reading.
/// Longer than a statement takes on a busy server, and short for a session that ends meanwhile.
const VALID: Duration = Duration::from_secs(1);

pub struct Plan {
    pub(super) writes: Vec<Write>,
    /// Whether all of them are to be carried out, or none.
    pub(super) together: bool,
    /// It is not carried out later than this, by the server's clock.
    pub(super) not_after: Timestamp,
}

/// What becomes of one partition, if it is still as it was read.
pub(super) struct Write {
    pub(super) id: [u8; 32],
    /// The stamp as it was read; `None` where there was no row.
    pub(super) replaces: Option<i64>,
    /// The stamp from now on.
    pub(super) stamp: i64,
    pub(super) record: Record,
    /// Whether it is more than a touch. PostgreSQL sees that by itself.
    #[cfg(feature = "mysql")]
    pub(super) told: bool,
    pub(super) removed: Vec<Vec<u8>>,
    pub(super) put: Vec<(EntryId, Entry)>,
}

impl Plan {
    pub(super) fn new(together: bool, now: Timestamp) -> Self {
        Self {
            writes: Vec::new(),
            together,
            not_after: now.saturating_add(VALID),
        }
    }
}

impl Write {
    /// What makes the partition that was found this one; `None` if it is that by now.
    pub(super) fn new(
        id: [u8; 32],
        found: &Found,
        next: Option<&Partition>,
    ) -> Result<Option<Self>, getrandom::Error> {
        let Some(difference) = found.difference(next) else {
            return Ok(None);
        };
        let Difference {
            record,
            removed,
            put,
        } = difference;
        #[cfg(feature = "mysql")]
        let told = {
            let count = |record: &Record| (record.generation, record.version);
            let before = found.partition.as_ref();
            before.map(|before| count(&before.record)) != Some(count(&record))
        };
        Ok(Some(Self {
            id,
            replaces: found.stamp,
            // Positive, so that no database takes it for anything else.
            stamp: (random::number()? >> 1) as i64,
            #[cfg(feature = "mysql")]
            told,
            record,
            removed,
            put,
        }))
    }
}

/// The hour after which something that counts until then can be freed. So coarse that the index changes once an hour,
/// and not with each use of a session.
pub(super) fn purge_hour(end: Option<Timestamp>) -> Option<i64> {
    const HOUR: u64 = 3_600_000;
    end.map(|end| (end.as_millis() / HOUR + 1) as i64)
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").finish_non_exhaustive()
    }
}
