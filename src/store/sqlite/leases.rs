//! Leases as rows, from when to when by the machine's own clock, which cannot be set. One that has run out
//! is as good as none, and so is one that was taken later than now: before the machine started again.

use std::time::Duration;

use sqlx::SqliteConnection;

use crate::store::columns::integer;
use crate::store::{Lease, LeaseState};
use crate::time::millis;

pub(super) async fn acquire(
    connection: &mut SqliteConnection,
    lease: &Lease,
    ttl: Duration,
    uptime: Duration,
) -> sqlx::Result<LeaseState> {
    let query = "INSERT INTO leases (partition_id, entry_id, owner, taken_at, ends_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (partition_id, entry_id) \
                 DO UPDATE SET owner = ?3, taken_at = ?4, ends_at = ?5 \
                 WHERE owner = ?3 OR ends_at <= ?4 OR taken_at > ?4";
    let query = of(query, lease, uptime).bind(time(uptime.saturating_add(ttl)));
    let taken = query.execute(&mut *connection).await?;
    if taken.rows_affected() > 0 {
        return Ok(LeaseState::Granted);
    }
    let query = "SELECT ends_at FROM leases WHERE partition_id = ? AND entry_id = ?";
    let ends_at: i64 = sqlx::query_scalar(query)
        .bind(&lease.partition.digest()[..])
        .bind(&lease.entry.as_bytes()[..])
        .fetch_one(connection)
        .await?;
    let ends_at = Duration::from_millis(u64::try_from(ends_at).unwrap_or(0));
    Ok(LeaseState::Held {
        remaining: ends_at.saturating_sub(uptime),
    })
}

pub(super) async fn renew(
    connection: &mut SqliteConnection,
    lease: &Lease,
    ttl: Duration,
    uptime: Duration,
) -> sqlx::Result<bool> {
    let query = "UPDATE leases SET taken_at = ?4, ends_at = ?5 \
                 WHERE partition_id = ?1 AND entry_id = ?2 AND owner = ?3 \
                 AND taken_at <= ?4 AND ends_at > ?4";
    let query = of(query, lease, uptime).bind(time(uptime.saturating_add(ttl)));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

pub(super) async fn release(
    connection: &mut SqliteConnection,
    lease: &Lease,
    uptime: Duration,
) -> sqlx::Result<bool> {
    let query = "DELETE FROM leases \
                 WHERE partition_id = ?1 AND entry_id = ?2 AND owner = ?3 \
                 AND taken_at <= ?4 AND ends_at > ?4";
    let query = of(query, lease, uptime);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

type Query<'a> = sqlx::query::Query<'a, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn of<'a>(query: &'static str, lease: &'a Lease, uptime: Duration) -> Query<'a> {
    sqlx::query(query)
        .bind(&lease.partition.digest()[..])
        .bind(&lease.entry.as_bytes()[..])
        .bind(&lease.owner[..])
        .bind(time(uptime))
}

fn time(uptime: Duration) -> i64 {
    integer(millis(uptime))
}

/// Frees up to `limit` leases; how many it has freed.
pub(super) async fn sweep(
    connection: &mut SqliteConnection,
    uptime: Duration,
    limit: u32,
) -> sqlx::Result<u64> {
    let query = "DELETE FROM leases WHERE (partition_id, entry_id) IN \
                 (SELECT partition_id, entry_id FROM leases \
                 WHERE ends_at <= ?1 OR taken_at > ?1 LIMIT ?2)";
    let query = sqlx::query(query).bind(time(uptime)).bind(limit);
    Ok(query.execute(connection).await?.rows_affected())
}
