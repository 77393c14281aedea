//! Leases as rows. One that has run out is as good as none.

use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::statements::{NOW, Statements, literal};
use crate::store::columns::integer;
use crate::store::{Lease, LeaseState};
use crate::time::millis;

/// The longest lease: what is added to the time of now stays a number.
const LONGEST: u64 = 1 << 61;

pub(super) async fn acquire(
    statements: &Statements,
    connection: &mut MySqlConnection,
    lease: &Lease,
    ttl: Duration,
) -> sqlx::Result<LeaseState> {
    // Assignments are made from left to right: the second one sees what the first has made of the owner.
    let statement = format!(
        "INSERT INTO {{leases}} (partition_id, entry_id, owner, ends_at) VALUES ({id}, {entry}, {owner}, {NOW} + {ttl}) \
         ON DUPLICATE KEY UPDATE owner = IF(owner = VALUES(owner) OR ends_at <= {NOW}, VALUES(owner), owner), \
         ends_at = IF(owner = VALUES(owner), VALUES(ends_at), ends_at); \
         SELECT owner, GREATEST(ends_at - ({NOW}), 0) AS remaining FROM {{leases}} \
         WHERE partition_id = {id} AND entry_id = {entry}",
        id = literal(lease.partition.digest()),
        entry = literal(lease.entry.as_bytes()),
        owner = literal(&lease.owner),
        ttl = length(ttl),
    );
    loop {
        let query = sqlx::raw_sql(AssertSqlSafe(statements.fill(&statement)));
        // It may be given back in between.
        let Some(row) = query.fetch_optional(&mut *connection).await? else {
            continue;
        };
        if row.try_get::<Vec<u8>, _>("owner")? == lease.owner {
            return Ok(LeaseState::Granted);
        }
        let remaining: i64 = row.try_get("remaining")?;
        return Ok(LeaseState::Held {
            remaining: Duration::from_millis(u64::try_from(remaining).unwrap_or(0)),
        });
    }
}

pub(super) async fn renew(
    statements: &Statements,
    connection: &mut MySqlConnection,
    lease: &Lease,
    ttl: Duration,
) -> sqlx::Result<bool> {
    let change = format!("UPDATE {{leases}} SET ends_at = {NOW} + {}", length(ttl));
    changes(statements, connection, &change, lease).await
}

pub(super) async fn release(
    statements: &Statements,
    connection: &mut MySqlConnection,
    lease: &Lease,
) -> sqlx::Result<bool> {
    changes(statements, connection, "DELETE FROM {leases}", lease).await
}

/// Whether the lease was this owner's. The driver counts rows that were found, also where nothing became different.
async fn changes(
    statements: &Statements,
    connection: &mut MySqlConnection,
    change: &str,
    lease: &Lease,
) -> sqlx::Result<bool> {
    let statement = format!(
        "{change} WHERE partition_id = {} AND entry_id = {} AND owner = {} AND ends_at > {NOW}",
        literal(lease.partition.digest()),
        literal(lease.entry.as_bytes()),
        literal(&lease.owner),
    );
    let query = sqlx::raw_sql(AssertSqlSafe(statements.fill(&statement)));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

fn length(ttl: Duration) -> i64 {
    integer(millis(ttl).min(LONGEST))
}
