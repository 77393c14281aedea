//! A plan as the arrays of one statement.

use sqlx::{PgConnection, Row};

use super::statements::Statements;
use crate::store::columns::{integer, time};
use crate::store::record::Record;
use crate::store::sql::plan::{Plan, Write, purge_hour};
use crate::time::{Timestamp, millis};

pub(super) async fn write(
    statements: &Statements,
    connection: &mut PgConnection,
    plan: &Plan,
) -> sqlx::Result<Vec<usize>> {
    let writes = &plan.writes;
    let column = |of: fn(&Write) -> i64| writes.iter().map(of).collect::<Vec<_>>();
    let times = |of: fn(&Record) -> Option<Timestamp>| {
        let each = writes.iter().map(|write| of(&write.record).map(time));
        each.collect::<Vec<_>>()
    };
    let removed = || places(plan, |write| write.removed.len());
    let put = || writes.iter().flat_map(|write| &write.put);
    let query = sqlx::query(statements.write())
        .bind(writes.iter().map(|it| &it.id[..]).collect::<Vec<_>>())
        .bind(writes.iter().map(|it| it.replaces).collect::<Vec<_>>())
        .bind(column(|it| it.stamp))
        .bind(column(|it| integer(it.record.generation)))
        .bind(column(|it| integer(it.record.version)))
        .bind(column(|it| time(it.record.created_at)))
        .bind(times(|record| record.cleared_at))
        .bind(times(|record| record.hard_end))
        .bind(
            writes
                .iter()
                .map(|it| it.record.sliding.map(|sliding| integer(millis(sliding))))
                .collect::<Vec<_>>(),
        )
        .bind(times(|record| record.end))
        .bind(times(|record| record.last_expiry))
        .bind(
            writes
                .iter()
                .map(|it| &it.record.recent[..])
                .collect::<Vec<_>>(),
        )
        .bind(
            writes
                .iter()
                .map(|it| purge_hour(it.record.forget_at()))
                .collect::<Vec<_>>(),
        )
        .bind(time(plan.not_after))
        .bind(plan.together)
        .bind(removed())
        .bind(
            writes
                .iter()
                .flat_map(|it| &it.removed)
                .map(|name| &name[..])
                .collect::<Vec<_>>(),
        )
        .bind(places(plan, |write| write.put.len()))
        .bind(put().map(|(id, _)| &id.as_bytes()[..]).collect::<Vec<_>>())
        .bind(
            put()
                .map(|(_, entry)| integer(entry.version))
                .collect::<Vec<_>>(),
        )
        .bind(
            put()
                .map(|(_, entry)| entry.expires_at.map(time))
                .collect::<Vec<_>>(),
        )
        .bind(
            put()
                .map(|(_, entry)| purge_hour(entry.expires_at))
                .collect::<Vec<_>>(),
        )
        .bind(put().map(|(_, entry)| &entry.value[..]).collect::<Vec<_>>());
    let rows = query.fetch_all(connection).await?;
    let place = |row: &sqlx::postgres::PgRow| {
        let place = row.try_get::<i64, _>("place")?;
        // Counted from 1.
        let place = usize::try_from(place - 1)
            .ok()
            .filter(|at| *at < writes.len());
        place.ok_or(sqlx::Error::RowNotFound)
    };
    rows.iter().map(place).collect()
}

/// The place of the partition, as often as it has something.
fn places(plan: &Plan, count: impl Fn(&Write) -> usize) -> Vec<i64> {
    let each = plan.writes.iter().zip(1_i64..);
    each.flat_map(|(write, place)| std::iter::repeat_n(place, count(write)))
        .collect()
}
