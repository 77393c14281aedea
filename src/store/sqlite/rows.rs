//! Partitions and entries as rows. A row that does not make sense is damaged, never an error.
//!
//! Each statement is carried to the connection's thread, and its answer back. So there is one for a whole group, of rows
//! whose number is one of few: it stays prepared.

use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::store::columns::{integer, time};
use crate::store::found::{Depth, Difference, Found};
use crate::store::{EntryId, PartitionId};
use crate::time::{Timestamp, millis};

/// Rows of one statement. A statement has up to 32,766 places.
const MOST_ROWS: usize = 256;

/// Numbers of rows up to this one have a statement each.
const FEW_ROWS: usize = 4;

/// Reads partitions, each as of one moment; in the order of the ids.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    ids: &[&PartitionId],
    depth: Depth,
    now: Timestamp,
) -> sqlx::Result<Vec<Found>> {
    let mut found = Vec::with_capacity(ids.len());
    for some in parts(ids) {
        let mut query = sqlx::query(AssertSqlSafe(read_text(depth, some.len())));
        for id in some {
            query = query.bind(&id.digest()[..]);
        }
        let rows = query.fetch_all(&mut *connection).await?;
        found.extend(Found::all(some, &rows, depth, now));
    }
    Ok(found)
}

pub(super) fn read_text(depth: Depth, partitions: usize) -> String {
    let head = ", e.entry_id, e.version AS entry_version, e.expires_at";
    let join = " LEFT JOIN entries e ON e.partition_id = p.id";
    let (head, value, join) = match depth {
        Depth::Record => ("", "", ""),
        Depth::Heads => (head, "", join),
        Depth::Values => (head, ", e.value", join),
    };
    format!(
        "SELECT p.id, p.generation, p.version, p.created_at, p.cleared_at, p.hard_end, p.sliding, \
         p.idle_end, p.last_expiry, p.recent{head}{value} \
         FROM partitions p{join} WHERE p.id IN ({})",
        places("?", partitions)
    )
}

/// Writes what is to become of partitions.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    differences: &[(&PartitionId, Difference)],
) -> sqlx::Result<()> {
    for some in parts(differences) {
        let mut query = sqlx::query(AssertSqlSafe(put_partitions_text(some.len())));
        for (id, Difference { record, .. }) in some {
            query = query
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
                .bind(record.forget_at().map(time));
        }
        query.execute(&mut *connection).await?;
    }
    let removed = differences
        .iter()
        .flat_map(|(id, it)| it.removed.iter().map(move |name| (id, name)));
    for some in parts(&removed.collect::<Vec<_>>()) {
        let mut query = sqlx::query(AssertSqlSafe(remove_entries_text(some.len())));
        for (id, name) in some {
            query = query.bind(&id.digest()[..]).bind(&name[..]);
        }
        query.execute(&mut *connection).await?;
    }
    let put = differences
        .iter()
        .flat_map(|(id, it)| it.put.iter().map(move |put| (id, put)));
    for some in parts(&put.collect::<Vec<_>>()) {
        let mut query = sqlx::query(AssertSqlSafe(put_entries_text(some.len())));
        for (id, (entry, put)) in some {
            query = query
                .bind(&id.digest()[..])
                .bind(&EntryId::as_bytes(entry)[..])
                .bind(integer(put.version))
                .bind(put.expires_at.map(time))
                .bind(&put.value[..]);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) fn put_partitions_text(rows: usize) -> String {
    format!(
        "INSERT INTO partitions (id, generation, version, created_at, cleared_at, hard_end, sliding, \
         idle_end, last_expiry, recent, forget_at) VALUES {} \
         ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, version = excluded.version, \
         created_at = excluded.created_at, cleared_at = excluded.cleared_at, \
         hard_end = excluded.hard_end, sliding = excluded.sliding, idle_end = excluded.idle_end, \
         last_expiry = excluded.last_expiry, recent = excluded.recent, forget_at = excluded.forget_at",
        places("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    )
}

fn remove_entries_text(rows: usize) -> String {
    format!(
        "DELETE FROM entries WHERE (partition_id, entry_id) IN (VALUES {})",
        places("(?, ?)", rows)
    )
}

pub(super) fn put_entries_text(rows: usize) -> String {
    format!(
        "INSERT INTO entries (partition_id, entry_id, version, expires_at, value) VALUES {} \
         ON CONFLICT (partition_id, entry_id) DO UPDATE SET version = excluded.version, \
         expires_at = excluded.expires_at, value = excluded.value",
        places("(?, ?, ?, ?, ?)", rows)
    )
}

/// Parts of few lengths: powers of two, and up to [`FEW_ROWS`].
pub(super) fn parts<T>(all: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    std::iter::from_fn(move || {
        let length = match rest.len() {
            0 => return None,
            few @ ..=FEW_ROWS => few,
            many => (1 << many.ilog2()).min(MOST_ROWS),
        };
        let (part, others) = rest.split_at(length);
        rest = others;
        Some(part)
    })
}

/// So many, with commas between them.
fn places(place: &str, number: usize) -> String {
    let mut places = format!("{place}, ").repeat(number);
    places.truncate(places.len().saturating_sub(2));
    places
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_in_parts_of_few_lengths() {
        let lengths = |all: usize| parts(&vec![(); all]).map(<[()]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(0), [0; 0]);
        for few in 1..=FEW_ROWS {
            assert_eq!(lengths(few), [few]);
        }
        assert_eq!(lengths(192), [128, 64]);
        assert_eq!(lengths(7), [4, 3]);
        assert_eq!(lengths(600), [256, 256, 64, 16, 8]);
    }
}
