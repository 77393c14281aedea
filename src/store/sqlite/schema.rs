//! The database file: its creation, its schema, and whether it is ours.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::primary_code;
use crate::error::ConfigError;

/// Marks a database as this crate's: "TTKC".
const APPLICATION_ID: i32 = 0x5454_4b43;

const SCHEMA_VERSION: i32 = 2;

/// Entries keep their row id: their values are too large for the tree of a table without one.
/// The pragma repeats [`APPLICATION_ID`].
const VERSION_1: &str = "
    CREATE TABLE partitions (
        id BLOB NOT NULL PRIMARY KEY,
        generation INTEGER NOT NULL,
        version INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        cleared_at INTEGER,
        hard_end INTEGER,
        sliding INTEGER,
        idle_end INTEGER,
        last_expiry INTEGER,
        recent BLOB NOT NULL,
        forget_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX partitions_forget_at ON partitions (forget_at) WHERE forget_at IS NOT NULL;
    CREATE TABLE entries (
        partition_id BLOB NOT NULL REFERENCES partitions (id) ON DELETE CASCADE,
        entry_id BLOB NOT NULL,
        version INTEGER NOT NULL,
        expires_at INTEGER,
        value BLOB NOT NULL,
        PRIMARY KEY (partition_id, entry_id)
    ) STRICT;
    CREATE INDEX entries_expires_at ON entries (expires_at) WHERE expires_at IS NOT NULL;
    PRAGMA application_id = 1414810435;
";

/// Leases belong to no partition: they can be taken of an absent one. The pragma repeats
/// [`SCHEMA_VERSION`].
const VERSION_2: &str = "
    CREATE TABLE leases (
        partition_id BLOB NOT NULL,
        entry_id BLOB NOT NULL,
        owner BLOB NOT NULL,
        ends_at INTEGER NOT NULL,
        PRIMARY KEY (partition_id, entry_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX leases_ends_at ON leases (ends_at);
    PRAGMA user_version = 2;
";

const _: () = assert!(APPLICATION_ID == 1_414_810_435 && SCHEMA_VERSION == 2);

/// How often the switch to WAL is tried: SQLite does not wait for its lock by itself.
const WAL_ATTEMPTS: u32 = 100;

/// Creates the file for its owner alone; SQLite gives its side files the same mode.
pub(super) fn create_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Checks that the database is ours, and makes it so when it is empty. One of an older schema is
/// brought up to date; a foreign one is left as it is.
pub(super) async fn prepare(options: &SqliteConnectOptions) -> Result<(), ConfigError> {
    let mut connection = options.connect().await.map_err(not_opened)?;
    inspect(&mut connection).await?;
    use_wal(&mut connection).await.map_err(not_opened)?;
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(not_opened)?;
    let missing: &[&str] = match inspect(&mut transaction).await? {
        State::Empty => &[VERSION_1, VERSION_2],
        State::Version1 => &[VERSION_2],
        State::Current => &[],
    };
    for step in missing.iter().copied() {
        let step = sqlx::raw_sql(step).execute(&mut *transaction);
        step.await.map_err(not_opened)?;
    }
    transaction.commit().await.map_err(not_opened)?;
    connection.close().await.map_err(not_opened)
}

enum State {
    Empty,
    Version1,
    Current,
}

async fn inspect(connection: &mut SqliteConnection) -> Result<State, ConfigError> {
    let query = "SELECT (SELECT application_id FROM pragma_application_id), \
                 (SELECT user_version FROM pragma_user_version), \
                 (SELECT count(*) FROM sqlite_schema)";
    let found = sqlx::query_as::<_, (i32, i32, i32)>(query);
    match found.fetch_one(connection).await.map_err(not_opened)? {
        (0, 0, 0) => Ok(State::Empty),
        (APPLICATION_ID, 1, _) => Ok(State::Version1),
        (APPLICATION_ID, SCHEMA_VERSION, _) => Ok(State::Current),
        (APPLICATION_ID, ..) => Err(ConfigError::new(
            "path",
            "must not name a database of another version of tower-token-cache",
        )),
        _ => Err(ConfigError::new(
            "path",
            "must not name another application's database",
        )),
    }
}

async fn use_wal(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let switch = sqlx::query("PRAGMA journal_mode = WAL");
        match switch.execute(&mut *connection).await {
            Err(error) if attempt < WAL_ATTEMPTS && primary_code(&error) == Some(5) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome.map(drop),
        }
    }
}

pub(super) fn not_opened(error: sqlx::Error) -> ConfigError {
    ConfigError::new("path", "must name a SQLite database that can be written").with_source(error)
}
