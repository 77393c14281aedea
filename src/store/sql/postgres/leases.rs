//! Leases as rows. One that has run out is as good as none.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::PgConnection;

use super::statements::Statements;
use crate::store::sql::leases::{Acquire, Key, Release, held, key, length};
use crate::store::{Lease, LeaseState};

pub(super) async fn acquire(
    statements: &Statements,
    connection: &mut PgConnection,
    group: &[Acquire],
) -> sqlx::Result<Vec<LeaseState>> {
    let mut states = HashMap::new();
    loop {
        let is_missing = |it: &&Acquire| !states.contains_key(&key(&it.lease));
        let missing: Vec<_> = group.iter().filter(is_missing).collect();
        if missing.is_empty() {
            let state = |it: &Acquire| states.get(&key(&it.lease)).copied();
            return Ok(group.iter().filter_map(state).collect());
        }
        let rows: Vec<(Vec<u8>, Vec<u8>, Option<i64>)> = sqlx::query_as(statements.acquire())
            .bind(partitions(missing.iter().map(|it| &it.lease)))
            .bind(entries(missing.iter().map(|it| &it.lease)))
            .bind(owners(missing.iter().map(|it| &it.lease)))
            .bind(missing.iter().map(|it| length(it.ttl)).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        // One that was taken, or given back, after the statement had begun is in no row.
        for (partition, entry, remaining) in rows {
            let state = match remaining {
                None => LeaseState::Granted,
                Some(remaining) => held(remaining),
            };
            states.insert((partition, entry), state);
        }
    }
}

pub(super) async fn renew(
    statements: &Statements,
    connection: &mut PgConnection,
    lease: &Lease,
    ttl: Duration,
) -> sqlx::Result<bool> {
    let query = sqlx::query(statements.renew())
        .bind(&lease.partition.digest()[..])
        .bind(&lease.entry.as_bytes()[..])
        .bind(&lease.owner[..])
        .bind(length(ttl));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

pub(super) async fn release(
    statements: &Statements,
    connection: &mut PgConnection,
    group: &[Release],
) -> sqlx::Result<Vec<bool>> {
    let released: Vec<Key> = sqlx::query_as(statements.release())
        .bind(partitions(group.iter().map(|it| &it.lease)))
        .bind(entries(group.iter().map(|it| &it.lease)))
        .bind(owners(group.iter().map(|it| &it.lease)))
        .fetch_all(connection)
        .await?;
    let released: HashSet<Key> = released.into_iter().collect();
    let was_its = |it: &Release| released.contains(&key(&it.lease));
    Ok(group.iter().map(was_its).collect())
}

fn partitions<'a>(leases: impl Iterator<Item = &'a Lease>) -> Vec<&'a [u8]> {
    leases.map(|it| &it.partition.digest()[..]).collect()
}

fn entries<'a>(leases: impl Iterator<Item = &'a Lease>) -> Vec<&'a [u8]> {
    leases.map(|it| &it.entry.as_bytes()[..]).collect()
}

fn owners<'a>(leases: impl Iterator<Item = &'a Lease>) -> Vec<&'a [u8]> {
    leases.map(|it| &it.owner[..]).collect()
}
