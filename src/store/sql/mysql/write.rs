//! A plan as a transaction.

use std::collections::HashSet;

use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, Row};

use super::statements::{Statements, literal};
use crate::error::{StoreError, StoreErrorKind};
use crate::patience::answered;
use crate::store::EntryId;
use crate::store::columns::{integer, time};
use crate::store::partition::Entry;
use crate::store::sql::plan::{Plan, Write, purge_hour};
use crate::time::millis;

/// What a row of an entry takes in a packet besides its value, in bytes.
const ROW: u64 = 256;
/// Rows of one statement: a statement has up to 65,535 places.
const MOST_ROWS: usize = 4000;
/// Entries that are removed at once: a packet takes them in any case.
const MOST_REMOVED: usize = 1000;

/// Whoever drops this drops the connection, and with it the transaction.
pub(super) async fn write(
    statements: &Statements,
    connection: &mut MySqlConnection,
    plan: &Plan,
    packet: u64,
) -> sqlx::Result<Vec<usize>> {
    let written = write_in_transaction(statements, connection, plan, packet).await;
    let done = written.as_ref().is_ok_and(|won| !won.is_empty());
    if !done {
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    }
    written
}

async fn write_in_transaction(
    statements: &Statements,
    connection: &mut MySqlConnection,
    plan: &Plan,
    packet: u64,
) -> sqlx::Result<Vec<usize>> {
    let due = lock(statements, connection, plan).await?;
    if due.is_empty() {
        return Ok(due);
    }
    let writes: Vec<&Write> = due.iter().map(|at| &plan.writes[*at]).collect();
    // One that another has begun meanwhile is an error, and all begin again.
    for are_new in [true, false] {
        let rows: Vec<_> = writes
            .iter()
            .filter(|it| it.replaces.is_none() == are_new)
            .collect();
        if !rows.is_empty() {
            let query = sqlx::query(statements.put_partitions(rows.len(), are_new));
            let query = rows
                .into_iter()
                .fold(query, |query, write| record(query, write));
            query.execute(&mut *connection).await?;
            answered();
        }
    }
    let removed: Vec<_> = writes
        .iter()
        .flat_map(|write| write.removed.iter().map(|name| (&write.id, name)))
        .collect();
    for some in removed.chunks(MOST_REMOVED) {
        // Each by its key. A list of keys may have the optimizer read the whole table, and wait for rows of others.
        let each = some.iter().map(|(id, name)| {
            let (id, name) = (literal(&id[..]), literal(name));
            format!("DELETE FROM {{entries}} WHERE partition_id = {id} AND entry_id = {name}")
        });
        let delete = statements.fill(&each.collect::<Vec<_>>().join("; "));
        let delete = sqlx::raw_sql(AssertSqlSafe(delete));
        delete.execute(&mut *connection).await?;
        answered();
    }
    for some in packets(&writes, packet)? {
        let query = sqlx::query(statements.put_entries(some.len()));
        let query = some.into_iter().fold(query, |query, (write, (id, entry))| {
            query
                .bind(&write.id[..])
                .bind(&id.as_bytes()[..])
                .bind(integer(entry.version))
                .bind(entry.expires_at.map(time))
                .bind(purge_hour(entry.expires_at))
                .bind(&entry.value[..])
        });
        query.execute(&mut *connection).await?;
        answered();
    }
    let told = writes.iter().filter(|write| write.told);
    let commit = statements.commit(told.map(|write| &write.id));
    sqlx::raw_sql(AssertSqlSafe(commit))
        .execute(connection)
        .await?;
    Ok(due)
}

/// Begins the transaction, and locks what is there in the order of the ids; the places in the plan of what is as it was
/// read. What is new needs no lock: where another has begun it, too, it is an error.
async fn lock(
    statements: &Statements,
    connection: &mut MySqlConnection,
    plan: &Plan,
) -> sqlx::Result<Vec<usize>> {
    let there = plan.writes.iter().filter(|write| write.replaces.is_some());
    let begin = statements.begin(there.map(|write| &write.id), time(plan.not_after));
    let rows = sqlx::raw_sql(AssertSqlSafe(begin))
        .fetch_all(connection)
        .await?;
    answered();
    let mut held = HashSet::new();
    for row in rows {
        let timely: i64 = row.try_get("timely")?;
        if timely != 0 {
            held.insert((
                row.try_get::<Vec<u8>, _>("id")?,
                row.try_get::<i64, _>("stamp")?,
            ));
        }
    }
    let is_due = |write: &Write| {
        write
            .replaces
            .is_none_or(|stamp| held.contains(&(write.id.to_vec(), stamp)))
    };
    let due = (0..plan.writes.len()).filter(|at| is_due(&plan.writes[*at]));
    let due: Vec<_> = due.collect();
    Ok(match plan.together && due.len() < plan.writes.len() {
        true => Vec::new(),
        false => due,
    })
}

fn record<'q>(
    query: Query<'q, MySql, MySqlArguments>,
    write: &'q Write,
) -> Query<'q, MySql, MySqlArguments> {
    let record = &write.record;
    query
        .bind(&write.id[..])
        .bind(write.stamp)
        .bind(integer(record.generation))
        .bind(integer(record.version))
        .bind(time(record.created_at))
        .bind(record.cleared_at.map(time))
        .bind(record.hard_end.map(time))
        .bind(record.sliding.map(|sliding| integer(millis(sliding))))
        .bind(record.end.map(time))
        .bind(record.last_expiry.map(time))
        .bind(&record.recent[..])
        .bind(purge_hour(record.forget_at()))
}

type Rows<'a> = Vec<(&'a Write, &'a (EntryId, Entry))>;

/// The entries that are put, in statements that the server takes.
fn packets<'a>(writes: &[&'a Write], packet: u64) -> sqlx::Result<Vec<Rows<'a>>> {
    let mut packets: Vec<Rows<'a>> = Vec::new();
    let mut bytes = u64::MAX;
    let each = writes
        .iter()
        .flat_map(|write| write.put.iter().map(move |put| (*write, put)));
    for (write, put) in each {
        let more = put.1.value.len() as u64 + ROW;
        if more > packet {
            let error = StoreError::new(StoreErrorKind::TooLarge);
            return Err(sqlx::Error::Configuration(Box::new(error)));
        }
        bytes = bytes.saturating_add(more);
        match packets.last_mut() {
            Some(last) if bytes <= packet / 2 && last.len() < MOST_ROWS => last.push((write, put)),
            _ => {
                bytes = more;
                packets.push(vec![(write, put)]);
            }
        }
    }
    Ok(packets)
}
