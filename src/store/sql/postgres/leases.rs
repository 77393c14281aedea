//! Leases as rows. One that has run out is as good as none.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::PgConnection;

use super::statements::Statements;
use crate::store::sql::leases::{Acquire, Key, Release, held, length};
use crate::store::{Lease, LeaseState};

pub(super) async fn acquire(
    statements: &Statements,
    connection: &mut PgConnection,
    group: &[Acquire],
) -> sqlx::Result<HashMap<Key, LeaseState>> {
    let rows: Vec<(Vec<u8>, Vec<u8>, Option<i64>)> = sqlx::query_as(statements.acquire())
        .bind(partitions(group.iter().map(|it| &it.lease)))
        .bind(entries(group.iter().map(|it| &it.lease)))
        .bind(owners(group.iter().map(|it| &it.lease)))
        .bind(group.iter().map(|it| length(it.ttl)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let states = rows.into_iter().map(|(partition, entry, remaining)| {
        let state = remaining.map_or(LeaseState::Granted, held);
        ((partition, entry), state)
    });
    Ok(states.collect())
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
) -> sqlx::Result<HashSet<Key>> {
    let released: Vec<Key> = sqlx::query_as(statements.release())
        .bind(partitions(group.iter().map(|it| &it.lease)))
        .bind(entries(group.iter().map(|it| &it.lease)))
        .bind(owners(group.iter().map(|it| &it.lease)))
        .fetch_all(connection)
        .await?;
    Ok(released.into_iter().collect())
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
