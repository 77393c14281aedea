//! What changes partitions, within a transaction of the caller's.

use sqlx::SqliteConnection;

use super::rows;
use crate::store::raise::Keep;
use crate::store::record::{Admission, Record};
use crate::store::{
    Change, Cleared, Commit, CommitId, Expected, Origin, Outcome, PartitionId, Portable, Put,
    Raise, Remaining,
};
use crate::time::Timestamp;

/// Applies a commit, unless it is stale, in conflict, or not `allowed` by more than itself.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    commit: &Commit,
    allowed: bool,
    now: Timestamp,
) -> sqlx::Result<Outcome> {
    let id = &commit.partition;
    let stored = rows::record(connection, id, now).await?;
    let (mut record, admission) = Record::admit(stored, commit, now);
    match admission {
        Admission::Stale => {
            let generation = record.generation;
            return Ok(Outcome::Stale { generation });
        }
        Admission::Lost => return Ok(Outcome::Lost),
        Admission::Repeated => {}
        Admission::Apply { fresh, spares } => {
            let met = met(connection, id, commit.expected, fresh, now).await?;
            if !met || !allowed {
                return Ok(Outcome::Conflict);
            }
            let mut changes: Vec<&Change> = commit.changes.iter().collect();
            if let Some(known) = spares {
                let mut spared = Vec::new();
                for change in &changes {
                    let stored = rows::entry(connection, id, change.entry).await?;
                    spared.push(stored.is_some_and(|(version, _)| version > known));
                }
                let mut spared = spared.into_iter();
                changes.retain(|_| !spared.next().unwrap_or(false));
            }
            let puts = changes.iter().filter_map(|change| change.put.as_ref());
            puts.for_each(|put| record.wrote(put.expires_at));
            record.renew(commit.lifetime, now);
            rows::put_record(connection, id, &record).await?;
            match fresh {
                true => rows::remove_entries(connection, id).await?,
                false => rows::remove_dead_entries(connection, id, now).await?,
            }
            for change in changes {
                rows::apply(connection, id, change, record.version).await?;
            }
        }
    }
    Ok(Outcome::Committed {
        version: record.version,
        previous: record.before(commit.id),
        life: record.life(now),
        remaining: record.remaining(now),
    })
}

async fn met(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    expected: Option<Expected>,
    fresh: bool,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let Some(expected) = expected else {
        return Ok(true);
    };
    let found = match fresh {
        true => None,
        false => rows::entry(connection, id, expected.entry).await?,
    };
    Ok(expected.met(found, now))
}

/// Starts the sliding lifetime of a partition anew.
pub(super) async fn touch(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    now: Timestamp,
) -> sqlx::Result<Remaining> {
    let stored = rows::record(connection, id, now).await?;
    let Some(mut record) = stored.filter(|record| !record.ended(now)) else {
        return Ok(Remaining::default());
    };
    let before = record.end;
    record.slide(now);
    if record.end != before {
        rows::put_record(connection, id, &record).await?;
    }
    Ok(record.remaining(now))
}

/// Signs a partition out.
pub(super) async fn clear(
    connection: &mut SqliteConnection,
    partition: &PartitionId,
    expected: Option<u64>,
    id: CommitId,
    now: Timestamp,
) -> sqlx::Result<Cleared> {
    let stored = rows::record(connection, partition, now).await?;
    let (record, cleared) = Record::cleared(stored.clone(), expected, id, now);
    if stored.as_ref() != Some(&record) {
        rows::put_record(connection, partition, &record).await?;
        rows::remove_entries(connection, partition).await?;
    }
    Ok(cleared)
}

/// Raises the generation of an epoch; the one now in force.
pub(super) async fn raise(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    raise: Raise,
    keep: Keep,
    now: Timestamp,
) -> sqlx::Result<u64> {
    let stored = rows::record(connection, id, now).await?;
    let (record, fresh) = Record::raised(stored.clone(), raise, keep, now);
    if stored.as_ref() != Some(&record) {
        rows::put_record(connection, id, &record).await?;
    }
    if fresh {
        rows::remove_entries(connection, id).await?;
    }
    Ok(record.generation)
}

/// Moves a partition.
pub(super) async fn relocate(
    connection: &mut SqliteConnection,
    from: &Origin,
    target: &Commit,
    now: Timestamp,
) -> sqlx::Result<Outcome> {
    let stored = rows::record(connection, &from.partition, now).await?;
    let unmoved = from.unmoved(stored.as_ref(), now);
    let outcome = commit(connection, target, unmoved, now).await?;
    if let Outcome::Committed { .. } = outcome {
        let ended = Some(from.generation);
        clear(connection, &from.partition, ended, target.id, now).await?;
    }
    Ok(outcome)
}

/// Puts a partition of another store where there is none; whether it did.
pub(super) async fn adopt(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    portable: &Portable,
    now: Timestamp,
) -> sqlx::Result<bool> {
    if rows::record(connection, id, now).await?.is_some() {
        return Ok(false);
    }
    let record = Record::from_portable(portable, now);
    rows::put_record(connection, id, &record).await?;
    rows::remove_entries(connection, id).await?;
    for stored in &portable.entries {
        let put = Put::new(stored.value.clone(), stored.expires_at);
        let change = Change::new(stored.entry, Some(put));
        rows::apply(connection, id, &change, stored.version).await?;
    }
    Ok(true)
}

/// Signs a partition out that is as it was read; whether it was, now or before.
pub(super) async fn withdraw(
    connection: &mut SqliteConnection,
    from: &Origin,
    id: CommitId,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let stored = rows::record(connection, &from.partition, now).await?;
    let is_repeated = stored.as_ref().is_some_and(|record| record.remembers(id));
    let is_as_read = from.unmoved(stored.as_ref(), now);
    if is_as_read && !is_repeated {
        let ending = Some(from.generation);
        clear(connection, &from.partition, ending, id, now).await?;
    }
    Ok(is_as_read || is_repeated)
}

/// Removes a partition of which this is the last id; whether it was.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    id: &PartitionId,
    last: CommitId,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let stored = rows::record(connection, id, now).await?;
    let is_last = stored.is_some_and(|record| record.last() == Some(last));
    if is_last {
        rows::remove_partition(connection, id).await?;
    }
    Ok(is_last)
}
