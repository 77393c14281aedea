//! Records and entries as rows. A row that does not make sense is damaged, never an error.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::store::columns::{Columns, Damaged, integer, time};
use crate::store::record::Record;
use crate::store::{Change, EntryId, Loaded, PartitionId, Revision, StoredEntry};
use crate::time::{Timestamp, millis};

/// A partition with all that is in its rows.
#[derive(Default)]
pub(super) struct Whole {
    /// `None` if it is absent, forgotten or damaged.
    pub(super) record: Option<Record>,
    pub(super) entries: Vec<StoredEntry>,
    pub(super) damaged: usize,
}

/// Reads a partition with its entries, in one statement and so from one snapshot.
pub(super) async fn whole(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    now: Timestamp,
) -> sqlx::Result<Whole> {
    let query = "SELECT p.generation, p.version, p.created_at, p.cleared_at, p.hard_end, \
                 p.sliding, p.idle_end, p.last_expiry, p.recent, \
                 e.entry_id, e.version AS entry_version, e.expires_at, e.value \
                 FROM partitions p LEFT JOIN entries e ON e.partition_id = p.id \
                 AND (e.expires_at IS NULL OR e.expires_at > ?2 OR e.expires_at < 0) \
                 WHERE p.id = ?1";
    let query = sqlx::query(query).bind(&id.digest()[..]).bind(time(now));
    let rows = query.fetch_all(connection).await?;
    let mut whole = Whole::default();
    match rows.first().map(Columns::record) {
        None => {}
        Some(Ok(record)) if forgotten(&record, now) => {}
        Some(Ok(record)) => whole.record = Some(record),
        Some(Err(Damaged)) => whole.damaged = 1,
    }
    if whole
        .record
        .as_ref()
        .is_some_and(|record| !record.ended(now))
    {
        for row in &rows {
            match row.entry() {
                Ok(entry) => whole.entries.extend(entry),
                Err(Damaged) => whole.damaged += 1,
            }
        }
    }
    Ok(whole)
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    now: Timestamp,
) -> sqlx::Result<Loaded> {
    let whole = whole(connection, id, now).await?;
    let mut loaded = Loaded {
        entries: whole.entries,
        damaged: whole.damaged,
        ..Loaded::default()
    };
    if let Some(record) = whole.record {
        loaded.generation = record.generation;
        loaded.version = record.version;
        loaded.commit = record.last();
        loaded.life = record.life(now);
        loaded.cleared_for = record.cleared_for(now);
        loaded.remaining = record.remaining(now);
    }
    Ok(loaded)
}

/// The partition's record; `None` if it is absent, forgotten or damaged.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    now: Timestamp,
) -> sqlx::Result<Option<Record>> {
    let query = "SELECT generation, version, created_at, cleared_at, hard_end, sliding, idle_end, \
                 last_expiry, recent FROM partitions WHERE id = ?";
    let row = sqlx::query(query)
        .bind(&id.digest()[..])
        .fetch_optional(connection)
        .await?;
    let record = row.and_then(|row| row.record().ok());
    Ok(record.filter(|record| !forgotten(record, now)))
}

/// The revision of a partition, without its entries.
pub(super) async fn revision(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    now: Timestamp,
) -> sqlx::Result<Revision> {
    let record = record(connection, id, now).await?;
    Ok(record.map_or_else(Revision::default, |record| Revision {
        generation: record.generation,
        version: record.version,
        commit: record.last(),
    }))
}

pub(super) async fn put_record(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    record: &Record,
) -> sqlx::Result<()> {
    let query = "INSERT INTO partitions (id, generation, version, created_at, cleared_at, \
                 hard_end, sliding, idle_end, last_expiry, recent, forget_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
                 ON CONFLICT (id) DO UPDATE SET generation = ?2, version = ?3, created_at = ?4, \
                 cleared_at = ?5, hard_end = ?6, sliding = ?7, idle_end = ?8, last_expiry = ?9, \
                 recent = ?10, forget_at = ?11";
    sqlx::query(query)
        .bind(&id.digest()[..])
        .bind(integer(record.generation))
        .bind(integer(record.version))
        .bind(time(record.created_at))
        .bind(record.cleared_at.map(time))
        .bind(record.hard_end.map(time))
        .bind(record.sliding.map(|sliding| integer(millis(sliding))))
        .bind(record.end.map(time))
        .bind(record.last_expiry.map(time))
        .bind(&record.recent[..])
        .bind(record.forget_at().map(time))
        .execute(connection)
        .await
        .map(drop)
}

pub(super) async fn remove_entries(
    connection: &mut SqliteConnection,
    id: &PartitionId,
) -> sqlx::Result<()> {
    let query = sqlx::query("DELETE FROM entries WHERE partition_id = ?");
    query
        .bind(&id.digest()[..])
        .execute(connection)
        .await
        .map(drop)
}

/// Removes a partition with its entries.
pub(super) async fn remove_partition(
    connection: &mut SqliteConnection,
    id: &PartitionId,
) -> sqlx::Result<()> {
    remove_entries(connection, id).await?;
    let query = sqlx::query("DELETE FROM partitions WHERE id = ?");
    query
        .bind(&id.digest()[..])
        .execute(connection)
        .await
        .map(drop)
}

/// The version and the expiry of an entry; `None` if it is absent or damaged.
pub(super) async fn entry(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    entry: EntryId,
) -> sqlx::Result<Option<(u64, Option<Timestamp>)>> {
    let query = "SELECT version, expires_at FROM entries WHERE partition_id = ? AND entry_id = ?";
    let row = sqlx::query(query)
        .bind(&id.digest()[..])
        .bind(&entry.as_bytes()[..])
        .fetch_optional(connection)
        .await?;
    let decode = |row: SqliteRow| -> Result<_, Damaged> {
        Ok((row.required("version")?, row.time("expires_at")?))
    };
    Ok(row.and_then(|row| decode(row).ok()))
}

/// Removes the entries of a partition that have expired or are damaged.
pub(super) async fn remove_dead_entries(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    now: Timestamp,
) -> sqlx::Result<()> {
    let query = "DELETE FROM entries WHERE partition_id = ?1 \
                 AND (expires_at <= ?2 OR version < 0 OR length(entry_id) <> 16)";
    let query = sqlx::query(query).bind(&id.digest()[..]).bind(time(now));
    query.execute(connection).await.map(drop)
}

/// Puts or removes one entry.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    change: &Change,
    version: u64,
) -> sqlx::Result<()> {
    let query = match &change.put {
        Some(_) => {
            "INSERT INTO entries (partition_id, entry_id, version, expires_at, value) \
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (partition_id, entry_id) \
             DO UPDATE SET version = ?3, expires_at = ?4, value = ?5"
        }
        None => "DELETE FROM entries WHERE partition_id = ?1 AND entry_id = ?2",
    };
    let mut query = sqlx::query(query)
        .bind(&id.digest()[..])
        .bind(&change.entry.as_bytes()[..]);
    if let Some(put) = &change.put {
        query = query
            .bind(integer(version))
            .bind(put.expires_at.map(time))
            .bind(&put.value[..]);
    }
    query.execute(connection).await.map(drop)
}

/// Frees up to `limit` partitions and as many entries; whether there may be more.
pub(super) async fn sweep(
    connection: &mut SqliteConnection,
    now: Timestamp,
    limit: u32,
) -> sqlx::Result<bool> {
    let partitions = "DELETE FROM partitions WHERE id IN \
                      (SELECT id FROM partitions WHERE forget_at <= ?1 LIMIT ?2)";
    let entries = "DELETE FROM entries WHERE rowid IN \
                   (SELECT rowid FROM entries WHERE expires_at <= ?1 LIMIT ?2)";
    let mut full = false;
    for query in [partitions, entries] {
        let query = sqlx::query(query).bind(time(now)).bind(limit);
        let freed = query.execute(&mut *connection).await?.rows_affected();
        full |= freed >= u64::from(limit);
    }
    Ok(full)
}

fn forgotten(record: &Record, now: Timestamp) -> bool {
    record.forget_at().is_some_and(|at| at <= now)
}
