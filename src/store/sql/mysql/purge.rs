//! What is over is freed, some of each kind at a time.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::statements::{KEPT, KEPT_FOR, NOW, Statements};

/// How many rows of each table are freed at once, so that none takes long.
const BATCH: usize = 500;

/// Rows that are in use just then are left to the next sweep. MariaDB knows that from 10.6 on; an earlier one waits for
/// them.
const SKIP_LOCKED: &str = "/*M!100600 SKIP LOCKED */ /*!80000 SKIP LOCKED */";

/// What names a row, as a condition.
const PARTITION: &str = "CONCAT('id = x''', HEX(id), '''')";
const ENTRY: &str =
    "CONCAT('partition_id = x''', HEX(partition_id), ''' AND entry_id = x''', HEX(entry_id), '''')";
const CHANGE: &str = "CONCAT('number = ', number)";

/// Unless another instance is at it; whether there may be more. A server has one lock of the name for all its databases,
/// and takes it back when the connection ends.
pub(super) async fn purge(
    statements: &Statements,
    connection: &mut MySqlConnection,
) -> sqlx::Result<bool> {
    let lock = sqlx::query_scalar("SELECT GET_LOCK(?, 0)").bind(&statements.lock);
    let locked: Option<i64> = lock.fetch_one(&mut *connection).await?;
    if locked != Some(1) {
        return Ok(false);
    }
    let purged = purge_tables(statements, &mut *connection).await;
    // Also after a failure: the connection goes back to the pool, and both are the connection's.
    let release = format!("ROLLBACK; DO RELEASE_LOCK('{}')", statements.lock);
    let release = sqlx::raw_sql(AssertSqlSafe(release));
    release.execute(connection).await?;
    purged
}

/// Whether one batch was full. Partitions take their entries along. They come last: an entry that somebody else has
/// locked, and not its partition, is waited for.
async fn purge_tables(
    statements: &Statements,
    connection: &mut MySqlConnection,
) -> sqlx::Result<bool> {
    let hour = format!("purge_hour <= ({NOW}) DIV 3600000 ORDER BY purge_hour");
    let entries = format!("{hour}, partition_id, entry_id");
    let partitions = format!("{hour}, id");
    let leases = format!("ends_at <= {NOW} ORDER BY ends_at, partition_id, entry_id");
    let changes = format!(
        "number <= (SELECT * FROM (SELECT MAX(number) - {KEPT} FROM {{changes}}) latest) \
         AND at < {NOW} - {KEPT_FOR} ORDER BY number"
    );
    let mut full = false;
    for (table, name, over) in [
        ("{entries}", ENTRY, entries),
        ("{leases}", ENTRY, leases),
        ("{changes}", CHANGE, changes),
        ("{partitions}", PARTITION, partitions),
    ] {
        let lock = format!(
            "BEGIN; SELECT {name} AS found FROM {table} WHERE {over} LIMIT {BATCH} FOR UPDATE {SKIP_LOCKED}"
        );
        let lock = sqlx::raw_sql(AssertSqlSafe(statements.fill(&lock)));
        let rows = lock.fetch_all(&mut *connection).await?;
        full |= rows.len() >= BATCH;
        let mut delete = String::new();
        for row in &rows {
            // Each by its key. For many at once the optimizer may read the whole table, and wait for rows that are not
            // among them.
            let found: String = row.try_get("found")?;
            delete += &format!("DELETE FROM {table} WHERE {found}; ");
        }
        let delete = statements.fill(&(delete + "COMMIT"));
        let delete = sqlx::raw_sql(AssertSqlSafe(delete));
        delete.execute(&mut *connection).await?;
    }
    Ok(full)
}
