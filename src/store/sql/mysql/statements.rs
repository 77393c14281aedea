//! The statements, with the names of the tables in them.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;

use crate::store::found::Depth;
use crate::store::sql::dialect::{PAGE, VERSION};
use crate::store::sql::tables::Tables;

/// Milliseconds since the epoch, by the server's clock, and of no time zone.
pub(super) const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000";

/// Whether the server may be behind another one.
const READ_ONLY: &str =
    "GREATEST(CAST(@@global.read_only AS SIGNED), CAST(@@innodb_read_only AS SIGNED))";

/// How many changes are kept at least, and for how long, in milliseconds.
pub(super) const KEPT: u64 = 10_000;
pub(super) const KEPT_FOR: u64 = 120_000;

const TABLES: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS {schema} (version BIGINT PRIMARY KEY) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS {partitions} (
    id VARBINARY(32) NOT NULL PRIMARY KEY,
    stamp BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    cleared_at BIGINT,
    hard_end BIGINT,
    sliding BIGINT,
    idle_end BIGINT,
    last_expiry BIGINT,
    recent VARBINARY(255) NOT NULL,
    purge_hour BIGINT,
    KEY freed (purge_hour)
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS {entries} (
    partition_id VARBINARY(32) NOT NULL,
    entry_id VARBINARY(32) NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT,
    purge_hour BIGINT,
    value LONGBLOB NOT NULL,
    PRIMARY KEY (partition_id, entry_id),
    KEY freed (purge_hour),
    FOREIGN KEY (partition_id) REFERENCES {partitions} (id) ON DELETE CASCADE
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS {leases} (
    partition_id VARBINARY(32) NOT NULL,
    entry_id VARBINARY(32) NOT NULL,
    owner VARBINARY(32) NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (partition_id, entry_id),
    KEY freed (ends_at)
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS {changes} (
    number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    partition_id VARBINARY(32) NOT NULL,
    at BIGINT NOT NULL DEFAULT ({now})
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS {keys} (
    namespace VARBINARY(255) NOT NULL,
    name VARBINARY(255) NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
) ENGINE = InnoDB",
];

const RECORD: &str = "p.id, p.stamp, p.generation, p.version, p.created_at, p.cleared_at, \
    p.hard_end, p.sliding, p.idle_end, p.last_expiry, p.recent";

const PARTITION_COLUMNS: &str = "id, stamp, generation, version, created_at, cleared_at, hard_end, sliding, idle_end, \
    last_expiry, recent, purge_hour";
const PARTITION_UPDATE: &str = " ON DUPLICATE KEY UPDATE stamp = VALUES(stamp), generation = VALUES(generation), \
    version = VALUES(version), created_at = VALUES(created_at), cleared_at = VALUES(cleared_at), \
    hard_end = VALUES(hard_end), sliding = VALUES(sliding), idle_end = VALUES(idle_end), \
    last_expiry = VALUES(last_expiry), recent = VALUES(recent), purge_hour = VALUES(purge_hour)";
const ENTRY_UPDATE: &str = " ON DUPLICATE KEY UPDATE version = VALUES(version), expires_at = VALUES(expires_at), \
    purge_hour = VALUES(purge_hour), value = VALUES(value)";

pub(super) struct Statements {
    names: Tables,
    /// Makes the tables.
    pub(super) tables: Vec<String>,
    /// The name of the lock of sweeps.
    pub(super) lock: String,
    pub(super) version: Arc<str>,
}

impl Statements {
    pub(super) fn new(tables: &Tables) -> Self {
        let names = tables.clone();
        let fill = |statement: &str| fill(&names, statement);
        let made = TABLES.iter().map(|statement| fill(statement));
        let version = fill(&format!("INSERT IGNORE INTO {{schema}} VALUES ({VERSION})"));
        Self {
            tables: made.chain([version]).collect(),
            // Of at most 64 characters, and in all databases of the server the same.
            lock: tables.plain("sweep"),
            version: fill("SELECT version FROM {schema} ORDER BY version DESC LIMIT 1").into(),
            names,
        }
    }

    pub(super) fn fill(&self, statement: &str) -> String {
        fill(&self.names, statement)
    }

    /// What statements mean, whatever a DBA has set for all connections: what is read is whole, what is written is
    /// committed, and a partition is deleted with its entries.
    pub(super) fn settle(&self) -> &'static str {
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1, \
         completion_type = 'NO_CHAIN', foreign_key_checks = 1, sql_safe_updates = 0, sql_big_selects = 1, \
         sql_select_limit = 18446744073709551615"
    }

    /// What a connection needs, where it leads to, and whether there are tables.
    pub(super) fn prepare(&self, timeout: Duration) -> String {
        let seconds = timeout.as_secs_f64().ceil().clamp(1.0, 1e6);
        let (millis, exact) = (timeout.as_millis().clamp(1, 1 << 31), timeout.as_secs_f64());
        let schema = match self.names.schema() {
            Some(schema) => format!("'{schema}'"),
            None => "DATABASE()".into(),
        };
        let table = self.names.plain("schema");
        // A node of a cluster leaves gaps between numbers, for other writers, which there are not. The feed would take
        // them for changes that are still to come.
        let dense = "auto_increment_increment = 1, auto_increment_offset = 1";
        // What a server does not know is in a comment for it: MariaDB reads /*M! and MySQL 8 reads /*!80000, but
        // MariaDB up to 10 does not read numbers from 50700 on.
        format!(
            "{}, innodb_lock_wait_timeout = {seconds} \
             /*M!100103 , max_statement_time = {exact}, idle_transaction_timeout = {seconds}, {dense} */ \
             /*!80000 , max_execution_time = {millis} */ /*!80018 , {dense} */; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SELECT {READ_ONLY} AS read_only, CAST(@@max_allowed_packet AS SIGNED) AS packet, \
             CAST(CONCAT_WS(':', @@hostname, @@port, @@server_id, @@datadir) AS BINARY) AS server, \
             (SELECT COUNT(*) FROM information_schema.tables \
             WHERE table_schema = {schema} AND table_name = '{table}') AS tables",
            self.settle()
        )
    }

    /// The ids after this one, and whether the server may be behind another one.
    pub(super) fn list(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.fill(&format!(
            "SELECT s.read_only, p.id FROM (SELECT {READ_ONLY} AS read_only) s LEFT JOIN \
             (SELECT id FROM {{partitions}} WHERE id > ? ORDER BY id LIMIT {PAGE}) p ON 1 = 1 ORDER BY p.id"
        )))
    }

    /// The records of a namespace, and whether the server may be behind another one.
    #[cfg(feature = "seal")]
    pub(super) fn list_keys(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.fill(&format!(
            "SELECT s.read_only, k.name, k.content FROM (SELECT {READ_ONLY} AS read_only) s \
             LEFT JOIN {{keys}} k ON k.namespace = ? LIMIT ?"
        )))
    }

    #[cfg(feature = "seal")]
    pub(super) fn add_key(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.fill("INSERT INTO {keys} (namespace, name, content) VALUES (?, ?, ?)"))
    }

    pub(super) fn read(&self, depth: Depth, places: usize) -> AssertSqlSafe<String> {
        let head = ", e.entry_id, e.version AS entry_version, e.expires_at";
        let join = " LEFT JOIN {entries} e ON e.partition_id = p.id";
        let (columns, join) = match depth {
            Depth::Record => (String::new(), ""),
            Depth::Heads => (head.into(), join),
            Depth::Values => (format!("{head}, e.value"), join),
        };
        AssertSqlSafe(self.fill(&format!(
            "SELECT s.moment, s.read_only, {RECORD}{columns} \
             FROM (SELECT {NOW} AS moment, {READ_ONLY} AS read_only) s \
             LEFT JOIN {{partitions}} p ON p.id IN ({}){join}",
            places_of("?", places)
        )))
    }

    /// Begins the transaction, and locks what is there, in the order of the ids.
    pub(super) fn begin<'a>(
        &self,
        ids: impl Iterator<Item = &'a [u8; 32]>,
        not_after: i64,
    ) -> String {
        let ids: Vec<_> = ids.map(|id| literal(id)).collect();
        match ids.is_empty() {
            true => "BEGIN".into(),
            false => self.fill(&format!(
                "BEGIN; SELECT id, stamp, {NOW} <= {not_after} AS timely FROM {{partitions}} \
                 WHERE id IN ({}) ORDER BY id FOR UPDATE",
                ids.join(", ")
            )),
        }
    }

    /// One that is new must not be there.
    pub(super) fn put_partitions(&self, rows: usize, are_new: bool) -> AssertSqlSafe<String> {
        let row = format!("({})", places_of("?", 12));
        let update = if are_new { "" } else { PARTITION_UPDATE };
        AssertSqlSafe(self.fill(&format!(
            "INSERT INTO {{partitions}} ({PARTITION_COLUMNS}) VALUES {}{update}",
            places_of(&row, rows)
        )))
    }

    pub(super) fn put_entries(&self, rows: usize) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.fill(&format!(
            "INSERT INTO {{entries}} (partition_id, entry_id, version, expires_at, purge_hour, value) \
             VALUES {}{ENTRY_UPDATE}",
            places_of("(?, ?, ?, ?, ?, ?)", rows)
        )))
    }

    /// Tells of these partitions and commits, in one packet: nothing comes between the number of a change and its commit.
    pub(super) fn commit<'a>(&self, told: impl Iterator<Item = &'a [u8; 32]>) -> String {
        let told: Vec<_> = told.map(|id| format!("({})", literal(id))).collect();
        match told.is_empty() {
            true => "COMMIT".into(),
            false => self.fill(&format!(
                "INSERT INTO {{changes}} (partition_id) VALUES {}; COMMIT",
                told.join(", ")
            )),
        }
    }
}

fn fill(names: &Tables, statement: &str) -> String {
    names.fill(&statement.replace("{now}", NOW), '`')
}

/// So many, with commas between them.
fn places_of(place: &str, number: usize) -> String {
    let mut places = format!("{place}, ").repeat(number);
    places.truncate(places.len().saturating_sub(2));
    places
}

/// Bytes within a statement.
pub(super) fn literal(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("x'{}'", digits.collect::<String>())
}
