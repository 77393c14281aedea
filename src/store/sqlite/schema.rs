//! The database file: its creation, its schema, and whether it is ours.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::code::primary_code;
use crate::error::ConfigError;
use crate::private_file::{self, Identity};

/// Marks a database as this crate's: "TTKC".
const APPLICATION_ID: i32 = 0x5454_4b43;

const SCHEMA_VERSION: i32 = 4;

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

/// Leases belong to no partition: they can be taken of an absent one.
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

/// What has changed lately, in order, for the feed. A touch is not told. The numbers have no gaps but at the
/// beginning, where the oldest are dropped.
const VERSION_3: &str = "
    CREATE TABLE changes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        partition_id BLOB NOT NULL
    ) STRICT;
    CREATE TRIGGER changes_are_bounded AFTER INSERT ON changes BEGIN
        DELETE FROM changes WHERE number <= new.number - 10000;
    END;
    CREATE TRIGGER partitions_begin AFTER INSERT ON partitions BEGIN
        INSERT INTO changes (partition_id) VALUES (new.id);
    END;
    CREATE TRIGGER partitions_change AFTER UPDATE OF generation, version ON partitions BEGIN
        INSERT INTO changes (partition_id) VALUES (new.id);
    END;
    CREATE TRIGGER partitions_end AFTER DELETE ON partitions BEGIN
        INSERT INTO changes (partition_id) VALUES (old.id);
    END;
    PRAGMA user_version = 3;
";

/// Leases by the machine's own clock. Those by the wall clock go with their table: no process of an older
/// version takes one of the new kind. The pragma repeats [`SCHEMA_VERSION`].
const VERSION_4: &str = "
    DROP TABLE leases;
    CREATE TABLE leases (
        partition_id BLOB NOT NULL,
        entry_id BLOB NOT NULL,
        owner BLOB NOT NULL,
        taken_at INTEGER NOT NULL,
        ends_at INTEGER NOT NULL,
        PRIMARY KEY (partition_id, entry_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX leases_ends_at ON leases (ends_at);
    CREATE INDEX leases_taken_at ON leases (taken_at);
    PRAGMA user_version = 4;
";

const _: () = assert!(APPLICATION_ID == 1_414_810_435 && SCHEMA_VERSION == 4);

/// How often the switch to WAL is tried: SQLite does not wait for its lock by itself.
const WAL_ATTEMPTS: u32 = 100;

/// The database file as it was opened.
pub(super) struct DatabaseFile {
    path: PathBuf,
    identity: Identity,
}

impl DatabaseFile {
    /// Creates the file for its owner alone, if there is none; SQLite gives its side files the same
    /// mode. Those that are there are checked.
    pub(super) fn create(path: &Path) -> Result<Self, ConfigError> {
        let checked = || {
            private_file::create(path)?;
            for side in ["-wal", "-shm"] {
                let mut name = path.as_os_str().to_owned();
                name.push(side);
                private_file::check_if_any(Path::new(&name))?;
            }
            private_file::identity(path)
        };
        let identity = checked().map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "must name a file that this process's user can open, and nobody else"
                }
                _ => "must name a file that can be created",
            };
            ConfigError::new("path", reason).with_source(error)
        })?;
        let path = path.into();
        Ok(Self { path, identity })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still has its name. What is written to one that has not is lost.
    pub(super) fn check(&self) -> io::Result<()> {
        match private_file::identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(replaced()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(replaced()),
            Err(error) => Err(error),
        }
    }
}

fn replaced() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the database file was deleted or replaced: put it back, or restart to begin a new one",
    )
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
        State::Empty => &[VERSION_1, VERSION_2, VERSION_3, VERSION_4],
        State::Version1 => &[VERSION_2, VERSION_3, VERSION_4],
        State::Version2 => &[VERSION_3, VERSION_4],
        State::Version3 => &[VERSION_4],
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
    Version2,
    Version3,
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
        (APPLICATION_ID, 2, _) => Ok(State::Version2),
        (APPLICATION_ID, 3, _) => Ok(State::Version3),
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
