//! Records and entries as columns of a SQL table. What does not make sense is damaged, never an error.

use std::time::Duration;

use bytes::Bytes;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};

use super::record::Record;
use super::{EntryId, REMEMBERED_COMMITS, StoredEntry};
use crate::time::Timestamp;
use crate::wipe::Wiped;

/// A row was passed over.
pub(super) struct Damaged;

impl From<sqlx::Error> for Damaged {
    fn from(_: sqlx::Error) -> Self {
        Self
    }
}

/// A row of a database with 64-bit integers and bytes.
pub(super) trait Columns {
    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, Damaged>;

    fn integer(&self, column: &str) -> Result<Option<i64>, Damaged>;

    fn optional(&self, column: &str) -> Result<Option<u64>, Damaged> {
        let value = self.integer(column)?;
        let unsigned = |value| u64::try_from(value).map_err(|_| Damaged);
        value.map(unsigned).transpose()
    }

    fn required(&self, column: &str) -> Result<u64, Damaged> {
        self.optional(column)?.ok_or(Damaged)
    }

    fn time(&self, column: &str) -> Result<Option<Timestamp>, Damaged> {
        Ok(self.optional(column)?.map(Timestamp::from_millis))
    }

    /// The columns of a partition.
    fn record(&self) -> Result<Record, Damaged> {
        let recent = self.bytes("recent")?.ok_or(Damaged)?;
        if recent.len() % 8 != 0 || recent.len() > 8 * (1 + REMEMBERED_COMMITS) {
            return Err(Damaged);
        }
        Ok(Record {
            generation: self.required("generation")?,
            version: self.required("version")?,
            created_at: Timestamp::from_millis(self.required("created_at")?),
            cleared_at: self.time("cleared_at")?,
            hard_end: self.time("hard_end")?,
            sliding: self.optional("sliding")?.map(Duration::from_millis),
            end: self.time("idle_end")?,
            last_expiry: self.time("last_expiry")?,
            recent,
        })
    }

    /// The entry of a joined row; `None` if the partition has none.
    fn entry(&self) -> Result<Option<StoredEntry>, Damaged> {
        let Some(mut entry) = self.entry_head()? else {
            return Ok(None);
        };
        let value = self.bytes("value")?.ok_or(Damaged)?;
        // Without encryption it holds tokens.
        entry.value = Bytes::from_owner(Wiped::new(value));
        Ok(Some(entry))
    }

    /// The same without its value.
    fn entry_head(&self) -> Result<Option<StoredEntry>, Damaged> {
        let Some(entry) = self.bytes("entry_id")? else {
            return Ok(None);
        };
        let entry: [u8; 16] = entry.try_into().map_err(|_| Damaged)?;
        Ok(Some(StoredEntry {
            entry: EntryId::from(entry),
            version: self.required("entry_version")?,
            expires_at: self.time("expires_at")?,
            value: Bytes::new(),
        }))
    }
}

impl<R: Row> Columns for R
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    R::Database: Database<Row = R>,
{
    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, Damaged> {
        Ok(self.try_get(column)?)
    }

    fn integer(&self, column: &str) -> Result<Option<i64>, Damaged> {
        Ok(self.try_get(column)?)
    }
}

/// As a signed integer: beyond its end there is only the end.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn time(at: Timestamp) -> i64 {
    integer(at.as_millis())
}
