//! Leases as rows. One that has run out is as good as none.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use super::statements::Statements;
use crate::store::columns::integer;
use crate::store::{Lease, LeaseState};
use crate::time::millis;

/// The longest lease: what is added to the time of now stays a number.
const LONGEST: u64 = 1 << 61;

pub(super) async fn acquire(
    statements: &Statements,
    connection: &mut PgConnection,
    lease: &Lease,
    ttl: Duration,
) -> sqlx::Result<LeaseState> {
    loop {
        let query = sqlx::query_scalar::<_, Option<i64>>(statements.acquire())
            .bind(&lease.partition.digest()[..])
            .bind(&lease.entry.as_bytes()[..])
            .bind(&lease.owner[..])
            .bind(length(ttl));
        return Ok(match query.fetch_optional(&mut *connection).await? {
            Some(None) => LeaseState::Granted,
            Some(Some(remaining)) => LeaseState::Held {
                remaining: Duration::from_millis(u64::try_from(remaining).unwrap_or(0)),
            },
            // It was taken, or given back, after the statement had begun.
            None => continue,
        });
    }
}

pub(super) async fn renew(
    statements: &Statements,
    connection: &mut PgConnection,
    lease: &Lease,
    ttl: Duration,
) -> sqlx::Result<bool> {
    let query = of(sqlx::query(statements.renew()), lease).bind(length(ttl));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

pub(super) async fn release(
    statements: &Statements,
    connection: &mut PgConnection,
    lease: &Lease,
) -> sqlx::Result<bool> {
    let query = of(sqlx::query(statements.release()), lease);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

fn of<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    lease: &'q Lease,
) -> Query<'q, sqlx::Postgres, PgArguments> {
    query
        .bind(&lease.partition.digest()[..])
        .bind(&lease.entry.as_bytes()[..])
        .bind(&lease.owner[..])
}

fn length(ttl: Duration) -> i64 {
    integer(millis(ttl).min(LONGEST))
}
