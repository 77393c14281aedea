//! Leases as rows. One that has run out is as good as none.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::rows::time;
use crate::store::{Lease, LeaseState};
use crate::time::Timestamp;

pub(super) async fn acquire(
    connection: &mut SqliteConnection,
    lease: &Lease,
    ttl: Duration,
    now: Timestamp,
) -> sqlx::Result<LeaseState> {
    let query = "INSERT INTO leases (partition_id, entry_id, owner, ends_at) \
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT (partition_id, entry_id) \
                 DO UPDATE SET owner = ?3, ends_at = ?4 WHERE owner = ?3 OR ends_at <= ?5";
    let taken = sqlx::query(query)
        .bind(&lease.partition.digest()[..])
        .bind(&lease.entry.as_bytes()[..])
        .bind(&lease.owner[..])
        .bind(time(now.saturating_add(ttl)))
        .bind(time(now))
        .execute(&mut *connection)
        .await?;
    if taken.rows_affected() > 0 {
        return Ok(LeaseState::Granted);
    }
    let query = "SELECT ends_at FROM leases WHERE partition_id = ? AND entry_id = ?";
    let ends_at: i64 = sqlx::query_scalar(query)
        .bind(&lease.partition.digest()[..])
        .bind(&lease.entry.as_bytes()[..])
        .fetch_one(connection)
        .await?;
    let ends_at = Timestamp::from_millis(u64::try_from(ends_at).unwrap_or(0));
    Ok(LeaseState::Held {
        remaining: ends_at.since(now),
    })
}

pub(super) async fn renew(
    connection: &mut SqliteConnection,
    lease: &Lease,
    ttl: Duration,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let query = "UPDATE leases SET ends_at = ?5 \
                 WHERE partition_id = ?1 AND entry_id = ?2 AND owner = ?3 AND ends_at > ?4";
    let query = of(query, lease, now).bind(time(now.saturating_add(ttl)));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

pub(super) async fn release(
    connection: &mut SqliteConnection,
    lease: &Lease,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let query = "DELETE FROM leases \
                 WHERE partition_id = ?1 AND entry_id = ?2 AND owner = ?3 AND ends_at > ?4";
    let query = of(query, lease, now);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

type Query<'a> = sqlx::query::Query<'a, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn of<'a>(query: &'static str, lease: &'a Lease, now: Timestamp) -> Query<'a> {
    sqlx::query(query)
        .bind(&lease.partition.digest()[..])
        .bind(&lease.entry.as_bytes()[..])
        .bind(&lease.owner[..])
        .bind(time(now))
}
