//! Leases as rows. One that has run out is as good as none.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::statements::{NOW, Statements, literal};
use crate::store::sql::leases::{Acquire, Key, Release, held, key, length};
use crate::store::{Lease, LeaseState};

pub(super) async fn acquire(
    statements: &Statements,
    connection: &mut MySqlConnection,
    group: &[Acquire],
) -> sqlx::Result<HashMap<Key, LeaseState>> {
    let row = |it: &Acquire| {
        let [partition, entry, owner] = literals(&it.lease);
        format!(
            "({partition}, {entry}, {owner}, {NOW} + {})",
            length(it.ttl)
        )
    };
    // Assignments are made from left to right: the second one sees what the first has made of the owner.
    let statement = format!(
        "INSERT INTO {{leases}} (partition_id, entry_id, owner, ends_at) VALUES {rows} \
         ON DUPLICATE KEY UPDATE owner = IF(owner = VALUES(owner) OR ends_at <= {NOW}, VALUES(owner), owner), \
         ends_at = IF(owner = VALUES(owner), VALUES(ends_at), ends_at); \
         SELECT partition_id, entry_id, owner, GREATEST(ends_at - ({NOW}), 0) AS remaining FROM {{leases}} WHERE {these}",
        rows = joined(group.iter().map(row), ", "),
        these = joined(group.iter().map(|it| is_of(&it.lease)), " OR "),
    );
    let query = sqlx::raw_sql(AssertSqlSafe(statements.fill(&statement)));
    let rows = query.fetch_all(connection).await?;
    let owners = group.iter().map(|it| (key(&it.lease), it.lease.owner));
    let owners: HashMap<_, _> = owners.collect();
    let states = rows.iter().map(|row| {
        let key = key_of(row)?;
        let owner = row.try_get::<Vec<u8>, _>("owner")?;
        let state = match owners.get(&key).is_some_and(|it| owner == *it) {
            true => LeaseState::Granted,
            false => held(row.try_get("remaining")?),
        };
        Ok((key, state))
    });
    states.collect()
}

/// The driver counts rows that were found, also where nothing became different.
pub(super) async fn renew(
    statements: &Statements,
    connection: &mut MySqlConnection,
    lease: &Lease,
    ttl: Duration,
) -> sqlx::Result<bool> {
    let statement = format!(
        "UPDATE {{leases}} SET ends_at = {NOW} + {} WHERE {}",
        length(ttl),
        is_its(lease)
    );
    let query = sqlx::raw_sql(AssertSqlSafe(statements.fill(&statement)));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

/// What runs out between the two statements was its owner's at the first.
pub(super) async fn release(
    statements: &Statements,
    connection: &mut MySqlConnection,
    group: &[Release],
) -> sqlx::Result<HashSet<Key>> {
    let these = joined(group.iter().map(|it| is_its(&it.lease)), " OR ");
    let statement = format!(
        "SELECT partition_id, entry_id FROM {{leases}} WHERE {these}; DELETE FROM {{leases}} WHERE {these}"
    );
    let query = sqlx::raw_sql(AssertSqlSafe(statements.fill(&statement)));
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(key_of).collect()
}

fn key_of(row: &sqlx::mysql::MySqlRow) -> sqlx::Result<Key> {
    Ok((row.try_get("partition_id")?, row.try_get("entry_id")?))
}

fn literals(lease: &Lease) -> [String; 3] {
    let (partition, entry) = (lease.partition.digest(), lease.entry.as_bytes());
    [&partition[..], &entry[..], &lease.owner[..]].map(literal)
}

fn is_of(lease: &Lease) -> String {
    let [partition, entry, _] = literals(lease);
    format!("(partition_id = {partition} AND entry_id = {entry})")
}

fn is_its(lease: &Lease) -> String {
    let [partition, entry, owner] = literals(lease);
    format!(
        "(partition_id = {partition} AND entry_id = {entry} AND owner = {owner} AND ends_at > {NOW})"
    )
}

fn joined(parts: impl Iterator<Item = String>, by: &str) -> String {
    parts.collect::<Vec<_>>().join(by)
}
