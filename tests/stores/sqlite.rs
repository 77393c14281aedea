//! What `SqliteStore` does beyond the contract: files, restarts, damage, several processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::poll;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tower_token_cache::store::{
    Change, Commit, CommitId, EntryId, Lease, LeaseState, Loaded, Outcome, PartitionId, Put,
    TokenStore,
};
use tower_token_cache::{Clock, ConfigError, SqliteStore, StoreError, StoreErrorKind, Timestamp};

fn file() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.db");
    (directory, path)
}

fn partition(name: impl ToString) -> PartitionId {
    PartitionId::for_tests("test", &name.to_string())
}

fn entry(number: u8) -> EntryId {
    EntryId::from([number; 16])
}

/// A commit of one entry, whose id is the entry's number.
fn put(partition: &PartitionId, number: u8, value: &str) -> Commit {
    let mut commit = Commit::new(partition.clone(), CommitId([number; 8]), 0);
    let put = Put::new(value.to_owned(), None);
    commit.changes = vec![Change::new(entry(number), Some(put))];
    commit.lifetime.since_write = Some(MINUTE);
    commit
}

const MINUTE: Duration = Duration::from_secs(60);

fn lease(partition: &PartitionId, owner: u8) -> Lease {
    Lease::new(partition.clone(), entry(0), [owner; 16])
}

async fn send(store: &SqliteStore, commit: Commit) -> Result<Outcome, StoreError> {
    store.commit(&[commit]).await.remove(0)
}

async fn load(store: &SqliteStore, partition: &PartitionId) -> Loaded {
    let mut loaded = store.load(std::slice::from_ref(partition)).await;
    loaded.remove(0).unwrap()
}

/// The file as this crate would have made it: for its owner alone.
fn create(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).unwrap();
}

async fn raw(path: &Path) -> SqliteConnection {
    create(path);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    options.foreign_keys(false).connect().await.unwrap()
}

async fn execute(path: &Path, sql: &'static str) {
    let mut connection = raw(path).await;
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

async fn number(path: &Path, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(&mut raw(path).await)
        .await
        .unwrap()
}

async fn refused(path: &Path) -> ConfigError {
    let error = SqliteStore::open(path).await.unwrap_err();
    assert_eq!(error.option(), "path");
    error
}

#[tokio::test]
async fn data_survives_a_reopen() {
    let (_directory, path) = file();
    let (kept, signed_out) = (partition("kept"), partition("signed out"));
    let store = SqliteStore::open(&path).await.unwrap();
    send(&store, put(&kept, 1, "x")).await.unwrap();
    send(&store, put(&signed_out, 1, "x")).await.unwrap();
    store
        .clear(&signed_out, None, CommitId([9; 8]))
        .await
        .unwrap();
    drop(store);

    let store = SqliteStore::open(&path).await.unwrap();
    let loaded = load(&store, &kept).await;
    assert_eq!(loaded.version, 1);
    assert_eq!(loaded.entries[0].value, "x");
    let again = send(&store, put(&kept, 1, "x")).await.unwrap();
    assert!(
        matches!(again, Outcome::Committed { version: 1, .. }),
        "{again:?}"
    );
    let late = send(&store, put(&signed_out, 2, "late")).await.unwrap();
    assert_eq!(late, Outcome::Stale { generation: 1 });
}

#[tokio::test]
async fn a_foreign_database_is_refused_and_left_alone() {
    let (_directory, path) = file();
    execute(
        &path,
        "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)",
    )
    .await;
    let before = std::fs::read(&path).unwrap();
    let error = refused(&path).await;
    assert!(error.to_string().contains("another application"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before);

    let (_directory, path) = file();
    execute(&path, "PRAGMA user_version = 7").await;
    refused(&path).await;

    let (_directory, path) = file();
    create(&path);
    std::fs::write(
        &path,
        "this is no database, and it is not to become one".repeat(50),
    )
    .unwrap();
    refused(&path).await;
}

/// As the first release made it.
const SCHEMA_OF_0_1: &str = "
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
    PRAGMA user_version = 1;
";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_older_schema_is_brought_up_to_date() {
    let (_directory, path) = file();
    execute(&path, SCHEMA_OF_0_1).await;
    let id = partition("of old");
    let mut connection = raw(&path).await;
    let rows = [
        "INSERT INTO partitions (id, generation, version, created_at, recent) \
         VALUES (?, 3, 7, 0, x'')",
        "INSERT INTO entries (partition_id, entry_id, version, value) \
         VALUES (?, zeroblob(16), 7, CAST('x' AS BLOB))",
    ];
    for row in rows {
        let row = sqlx::query(row).bind(&id.digest()[..]);
        row.execute(&mut connection).await.unwrap();
    }
    drop(connection);

    let mut tasks = tokio::task::JoinSet::new();
    for owner in 0..4 {
        let (path, id) = (path.clone(), id.clone());
        tasks.spawn(async move {
            let store = SqliteStore::open(path).await.unwrap();
            let loaded = load(&store, &id).await;
            assert_eq!((loaded.generation, loaded.version), (3, 7));
            assert_eq!(loaded.entries[0].value, "x");
            let state = store.acquire_lease(&lease(&id, owner), MINUTE).await;
            state.unwrap() == LeaseState::Granted
        });
    }
    let granted = tasks.join_all().await;
    assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 1);
}

#[tokio::test]
async fn leases_survive_a_reopen_and_are_freed_in_time() {
    let (_directory, path) = file();
    let clock = Clock::manual(Timestamp::now());
    let open = async || {
        let store = SqliteStore::open(&path).await.unwrap();
        store.with_clock(clock.clone())
    };
    let id = partition("leased");
    let store = open().await;
    store.acquire_lease(&lease(&id, 1), MINUTE).await.unwrap();
    drop(store);
    let store = open().await;
    let held = store.acquire_lease(&lease(&id, 2), MINUTE).await.unwrap();
    assert!(matches!(held, LeaseState::Held { .. }), "{held:?}");
    clock.advance(MINUTE);
    let other = lease(&partition("another"), 1);
    store.acquire_lease(&other, MINUTE).await.unwrap();
    assert_eq!(number(&path, "SELECT count(*) FROM leases").await, 1);
}

/// All processes on the file share the clock of their machine.
#[tokio::test]
async fn a_lease_has_one_owner_for_its_time_although_the_clock_is_set() {
    let hour = 60 * MINUTE;
    for ahead in [true, false] {
        let (_directory, path) = file();
        let clock = Clock::manual(Timestamp::now());
        let store = SqliteStore::open(&path).await.unwrap();
        let store = store.with_clock(clock.clone());
        let [one, other] = [1, 2].map(|owner| lease(&partition("leased"), owner));
        let taken = store.acquire_lease(&one, MINUTE).await.unwrap();
        assert_eq!(taken, LeaseState::Granted);
        clock.set(match ahead {
            true => clock.now().saturating_add(hour),
            false => clock.now().saturating_sub(hour),
        });
        let held = store.acquire_lease(&other, MINUTE).await.unwrap();
        let LeaseState::Held { remaining } = held else {
            panic!("two owners, ahead: {ahead}");
        };
        assert!(remaining <= MINUTE, "{remaining:?}, ahead: {ahead}");
        assert!(store.renew_lease(&one, MINUTE).await.unwrap(), "{ahead}");
        clock.advance(MINUTE);
        let taken = store.acquire_lease(&other, MINUTE).await.unwrap();
        assert_eq!(taken, LeaseState::Granted, "ahead: {ahead}");
    }
}

/// The machine has started again since, and its clock has begun anew.
#[tokio::test]
async fn a_lease_ends_with_the_machine() {
    let (_directory, path) = file();
    let [one, other] = [1, 2].map(|owner| lease(&partition("leased"), owner));
    for (up, lease) in [(60 * MINUTE, one), (MINUTE, other)] {
        let clock = Clock::manual(Timestamp::now());
        clock.advance(up);
        let store = SqliteStore::open(&path).await.unwrap().with_clock(clock);
        let taken = store.acquire_lease(&lease, MINUTE).await.unwrap();
        assert_eq!(taken, LeaseState::Granted, "up for {up:?}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (_directory, path) = file();
    drop(SqliteStore::open(&path).await.unwrap());
    execute(&path, "PRAGMA user_version = 99").await;
    let error = refused(&path).await;
    assert!(error.to_string().contains("another version"), "{error}");
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_is_refused() {
    let (directory, path) = file();
    refused(&path.join("below a missing directory")).await;
    refused(directory.path()).await;
    refused(Path::new("")).await;
}

#[tokio::test]
async fn damaged_records_are_counted_and_replaced() {
    for damage in [
        "UPDATE partitions SET version = -1",
        "UPDATE partitions SET generation = -1",
        "UPDATE partitions SET created_at = -9223372036854775808",
        "UPDATE partitions SET sliding = -5",
        "UPDATE partitions SET idle_end = -5",
        "UPDATE partitions SET recent = x'010203'",
        "UPDATE partitions SET recent = zeroblob(800)",
    ] {
        let (_directory, path) = file();
        let store = SqliteStore::open(&path).await.unwrap();
        let id = partition("damaged");
        send(&store, put(&id, 1, "old")).await.unwrap();
        execute(&path, damage).await;

        let loaded = load(&store, &id).await;
        assert_eq!(loaded.damaged, 1, "{damage}");
        assert_eq!(
            (loaded.generation, loaded.version, loaded.entries.len()),
            (0, 0, 0)
        );
        let sound = partition("sound");
        send(&store, put(&sound, 3, "sound")).await.unwrap();
        let both = store.load(&[id.clone(), sound]).await;
        let entries = both.into_iter().map(|it| it.unwrap().entries.len());
        assert_eq!(entries.collect::<Vec<_>>(), [0, 1], "{damage}");
        store
            .touch(std::slice::from_ref(&id))
            .await
            .remove(0)
            .unwrap();
        assert_eq!(load(&store, &id).await.damaged, 1, "{damage}");

        send(&store, put(&id, 2, "new")).await.unwrap();
        let loaded = load(&store, &id).await;
        assert_eq!((loaded.damaged, loaded.version), (0, 1), "{damage}");
        assert_eq!(loaded.entries.len(), 1, "{damage}");
        assert_eq!(loaded.entries[0].value, "new", "{damage}");
    }
}

#[tokio::test]
async fn damaged_entries_are_counted_and_replaced() {
    for damage in [
        "UPDATE entries SET version = -1 WHERE value = CAST('old' AS BLOB)",
        "UPDATE entries SET expires_at = -1 WHERE value = CAST('old' AS BLOB)",
        "UPDATE entries SET entry_id = x'0102' WHERE value = CAST('old' AS BLOB)",
    ] {
        let (_directory, path) = file();
        let store = SqliteStore::open(&path).await.unwrap();
        let id = partition("damaged");
        send(&store, put(&id, 1, "old")).await.unwrap();
        send(&store, put(&id, 2, "good")).await.unwrap();
        execute(&path, damage).await;

        let loaded = load(&store, &id).await;
        assert_eq!((loaded.damaged, loaded.version), (1, 2), "{damage}");
        assert_eq!(loaded.entries.len(), 1, "{damage}");
        assert_eq!(loaded.entries[0].value, "good", "{damage}");

        send(&store, put(&id, 3, "new")).await.unwrap();
        let loaded = load(&store, &id).await;
        assert_eq!((loaded.damaged, loaded.entries.len()), (0, 2), "{damage}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = file();
    let store = SqliteStore::open(&path).await.unwrap();
    send(&store, put(&partition("a"), 1, "x")).await.unwrap();
    let files: Vec<_> = directory
        .path()
        .read_dir()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        files.len(),
        3,
        "the database, its log and the log's index: {files:?}"
    );
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_stores_can_create_one_file_at_once() {
    let (_directory, path) = file();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..8 {
        let path = path.clone();
        tasks.spawn(async move {
            let store = SqliteStore::open(path).await.unwrap();
            send(&store, put(&partition("shared"), i, "x"))
                .await
                .unwrap();
        });
    }
    tasks.join_all().await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(load(&store, &partition("shared")).await.entries.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_on_one_file_lose_nothing() {
    let (_directory, path) = file();
    let one = SqliteStore::open(&path).await.unwrap();
    let other = SqliteStore::open(&path).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..100 {
        let store = if i % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        tasks.spawn(async move {
            send(&store, put(&partition("shared"), i, "x"))
                .await
                .unwrap()
        });
    }
    let outcomes = tasks.join_all().await;
    let mut versions: Vec<u64> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Committed { version, .. } => version,
            other => panic!("no sign-out, no expectation and no life, but {other:?}"),
        })
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=100).collect::<Vec<_>>());
    for store in [one, other] {
        let loaded = load(&store, &partition("shared")).await;
        assert_eq!((loaded.version, loaded.entries.len()), (100, 100));
    }
}

#[tokio::test]
async fn what_has_expired_is_freed() {
    let (_directory, path) = file();
    let clock = Clock::manual(Timestamp::now());
    let store = SqliteStore::open(&path)
        .await
        .unwrap()
        .with_clock(clock.clone());
    let group: Vec<_> = (0..250).map(|i| put(&partition(i), 1, "x")).collect();
    for outcome in store.commit(&group).await {
        outcome.unwrap();
    }
    let keeper = partition("keeper");
    let mut brief = put(&keeper, 1, "x");
    brief.changes[0].put.as_mut().unwrap().expires_at =
        Some(clock.now().saturating_add(Duration::from_secs(1)));
    brief.lifetime.since_write = None;
    brief.changes.extend(put(&keeper, 2, "x").changes);
    send(&store, brief).await.unwrap();
    let gone = partition("signed out");
    store.clear(&gone, None, CommitId([9; 8])).await.unwrap();
    assert_eq!(number(&path, "SELECT count(*) FROM entries").await, 252);

    clock.advance(Duration::from_secs(61));
    for i in 1..=3 {
        let left = number(&path, "SELECT count(*) FROM partitions").await;
        assert_eq!(
            left,
            252 - i64::from(i - 1) * 100 + i64::from(i > 1),
            "a sweep is bounded"
        );
        send(&store, put(&partition("another"), i, "x"))
            .await
            .unwrap();
    }
    assert_eq!(number(&path, "SELECT count(*) FROM partitions").await, 3);
    assert_eq!(number(&path, "SELECT count(*) FROM entries").await, 1 + 3);
    assert_eq!(
        load(&store, &gone).await.generation,
        1,
        "the tombstone is kept"
    );

    clock.advance(Duration::from_secs(25 * 3600));
    send(&store, put(&partition("another"), 4, "x"))
        .await
        .unwrap();
    assert_eq!(number(&path, "SELECT count(*) FROM partitions").await, 2);
    assert_eq!(load(&store, &keeper).await.entries.len(), 1);
}

#[tokio::test]
async fn sign_out_removes_the_rows_at_once() {
    let (_directory, path) = file();
    let store = SqliteStore::open(&path).await.unwrap();
    send(&store, put(&partition("a"), 1, "x")).await.unwrap();
    store
        .clear(&partition("a"), None, CommitId([9; 8]))
        .await
        .unwrap();
    assert_eq!(number(&path, "SELECT count(*) FROM entries").await, 0);
}

#[tokio::test]
async fn a_commit_is_remembered_beyond_its_session_while_the_tombstone_is_kept() {
    let (_directory, path) = file();
    let clock = Clock::manual(Timestamp::now());
    let store = SqliteStore::open(&path).await.unwrap();
    let store = store.with_clock(clock.clone());
    let id = partition("a");
    store.clear(&id, None, CommitId([9; 8])).await.unwrap();
    let [mut old, mut new] = [put(&id, 1, "old"), put(&id, 2, "new")];
    (old.generation, new.generation) = (1, 1);
    send(&store, old.clone()).await.unwrap();
    clock.advance(Duration::from_secs(61));
    send(&store, new).await.unwrap();
    send(&store, old).await.unwrap();
    let entries = load(&store, &id).await.entries;
    assert_eq!(entries.len(), 1, "what has ended is not brought back");
    assert_eq!(entries[0].value, "new");
}

#[tokio::test]
async fn a_refused_commit_does_not_affect_its_group() {
    let (_directory, path) = file();
    let store = SqliteStore::open(&path).await.unwrap();
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON entries \
                   WHEN new.value = CAST('refuse' AS BLOB) \
                   BEGIN SELECT RAISE(ROLLBACK, 'refused'); END";
    execute(&path, trigger).await;
    let group = [(1, "x"), (2, "refuse"), (3, "x")];
    let group = group.map(|(i, value)| put(&partition(i), i, value));
    let outcomes = store.commit(&group).await;
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    assert!(std::error::Error::source(error).is_some());
    let versions = [1, 2, 3].map(partition);
    for (id, version) in versions.iter().zip([1, 0, 1]) {
        assert_eq!(
            load(&store, id).await.version,
            version,
            "each is applied once or not at all"
        );
    }
}

#[tokio::test]
async fn an_abandoned_commit_is_whole_or_absent() {
    let (_directory, path) = file();
    let store = SqliteStore::open(&path).await.unwrap();
    let ids = [partition("one"), partition("other")];
    for polls in 0..40 {
        let group = ids.each_ref().map(|id| put(id, polls, "x"));
        let mut commit = Box::pin(store.commit(&group));
        for _ in 0..polls {
            if poll!(&mut commit).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(commit);
        let [one, other] = &ids;
        let after = put(one, 100 + polls, "x");
        send(&store, after).await.unwrap();
        let touched = |loaded: Loaded| loaded.entries.iter().any(|e| e.entry == entry(polls));
        let (one, other) = (load(&store, one).await, load(&store, other).await);
        assert_eq!(touched(one), touched(other), "after {polls} polls");
    }
}

#[tokio::test]
async fn times_beyond_sqlites_integers_are_the_end_of_time() {
    let (_directory, path) = file();
    let store = SqliteStore::open(&path).await.unwrap();
    let id = partition("endless");
    let mut commit = put(&id, 1, "x");
    commit.lifetime.sliding = Some(Duration::MAX);
    commit.lifetime.since_write = Some(Duration::MAX);
    commit.lifetime.since_creation = Some(Duration::MAX);
    commit.changes[0].put.as_mut().unwrap().expires_at = Some(Timestamp::from_millis(u64::MAX));
    send(&store, commit).await.unwrap();
    let loaded = load(&store, &id).await;
    assert_eq!((loaded.damaged, loaded.entries.len()), (0, 1));
    assert!(loaded.remaining.hard > Some(Duration::from_secs(1 << 40)));
    assert_eq!(
        store
            .clear(&id, Some(u64::MAX), CommitId([9; 8]))
            .await
            .unwrap()
            .generation,
        u64::MAX
    );
}

/// Files that others could read, write or have put there.
#[cfg(unix)]
mod private_files {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Refused with an error whose sources say which file it is and what to do about it.
    async fn refused_with(path: &Path, file: &str, advice: &str) {
        let error = refused(path).await;
        let source = std::error::Error::source(&error)
            .expect("a reason")
            .to_string();
        assert!(source.contains(file), "{source}");
        assert!(source.contains(advice), "{source}");
    }

    #[tokio::test]
    async fn a_file_that_others_can_open_is_refused() {
        for mode in [0o666, 0o640, 0o604, 0o620, 0o601] {
            let (_directory, path) = file();
            fs::write(&path, b"").unwrap();
            set_mode(&path, mode);
            refused_with(&path, "tokens.db", "chmod 600").await;
            assert_eq!(fs::read(&path).unwrap(), b"", "and left as it is");
            set_mode(&path, 0o600);
            SqliteStore::open(&path).await.unwrap();
        }
    }

    #[tokio::test]
    async fn side_files_that_others_can_open_are_refused() {
        for side in ["tokens.db-wal", "tokens.db-shm"] {
            let (directory, path) = file();
            let side_file = directory.path().join(side);
            fs::write(&side_file, b"").unwrap();
            set_mode(&side_file, 0o644);
            refused_with(&path, side, "chmod 600").await;
        }
    }

    #[tokio::test]
    async fn a_symbolic_link_is_refused() {
        let (directory, path) = file();
        drop(SqliteStore::open(&path).await.unwrap());
        let link = directory.path().join("link.db");
        symlink(&path, &link).unwrap();
        refused_with(&link, "link.db", "symbolic link").await;
        let dangling = directory.path().join("dangling.db");
        symlink(directory.path().join("elsewhere.db"), &dangling).unwrap();
        refused_with(&dangling, "dangling.db", "symbolic link").await;
        assert!(!directory.path().join("elsewhere.db").exists());
    }

    #[tokio::test]
    async fn a_folder_in_which_others_can_replace_files_is_refused() {
        for mode in [0o777, 0o775, 0o2777] {
            let (directory, path) = file();
            set_mode(directory.path(), mode);
            refused_with(&path, directory.path().to_str().unwrap(), "folder").await;
            assert!(!path.exists());
        }
        // As the system's folder for temporary files: there files are their owners'.
        let (directory, path) = file();
        set_mode(directory.path(), 0o1777);
        SqliteStore::open(&path).await.unwrap();
    }

    /// Only root can give files away, which is what many containers run as.
    #[tokio::test]
    async fn a_file_of_somebody_else_is_refused() {
        for planted in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
            let (directory, path) = file();
            let planted_file = directory.path().join(planted);
            fs::write(&planted_file, b"").unwrap();
            set_mode(&planted_file, 0o600);
            if chown(&planted_file, Some(65_534), Some(65_534)).is_err() {
                return;
            }
            refused_with(&path, planted, "owner").await;
        }
    }

    #[tokio::test]
    async fn a_database_that_is_deleted_or_replaced_is_an_error_and_no_lost_write() {
        let (directory, path) = file();
        let store = SqliteStore::open(&path).await.unwrap();
        let id = partition("a");
        send(&store, put(&id, 1, "x")).await.unwrap();
        let away = directory.path().join("away.db");
        let gone = async |what: &str| {
            let written = send(&store, put(&id, 2, "y")).await.expect_err(what);
            assert_eq!(written.kind(), StoreErrorKind::Unreachable, "{what}");
            let source = std::error::Error::source(&written).expect("a reason");
            assert!(
                source.to_string().contains("deleted or replaced"),
                "{source}"
            );
            store
                .load(std::slice::from_ref(&id))
                .await
                .remove(0)
                .expect_err(what);
            store
                .clear(&id, None, CommitId([9; 8]))
                .await
                .expect_err(what);
            store
                .acquire_lease(&lease(&id, 1), MINUTE)
                .await
                .expect_err(what);
            assert!(
                store.touch(std::slice::from_ref(&id)).await[0].is_err(),
                "{what}"
            );
            assert!(
                store.revisions(std::slice::from_ref(&id)).await[0].is_err(),
                "{what}"
            );
        };
        fs::rename(&path, &away).unwrap();
        gone("deleted").await;
        fs::write(&path, b"").unwrap();
        gone("replaced").await;
        // It is the same file again.
        fs::rename(&away, &path).unwrap();
        send(&store, put(&id, 2, "y")).await.unwrap();
    }
}

/// Sessions that have ended leave no byte of their tokens in any file.
mod remains {
    use tower_token_cache::{PartitionKey, Token, TokenCache, TokenSet};

    use super::*;

    fn files_with(directory: &Path, needle: &str) -> Vec<String> {
        let holds = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            bytes
                .windows(needle.len())
                .any(|part| part == needle.as_bytes())
        };
        let files = std::fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().path());
        let files = files.filter(|path| holds(path));
        files.map(|path| path.display().to_string()).collect()
    }

    fn tokens(number: usize) -> TokenSet {
        let access = format!("CANARY-ACCESS-{number}").repeat(300);
        let token = Token::new(access).with_expires_in(60 * MINUTE);
        TokenSet::from(token).with_refresh_token("CANARY-REFRESH".repeat(50))
    }

    /// While the store lives on: neither its connections' end nor a restart cleans up for it.
    #[tokio::test]
    async fn of_a_session_that_was_signed_out_nothing_is_left_in_any_file() {
        let (directory, path) = file();
        let store = SqliteStore::open(&path).await.unwrap();
        let cache = TokenCache::builder(store.clone()).build().unwrap();
        let sessions = (0..8).map(|number| PartitionKey::session(number.to_string()).unwrap());
        let sessions: Vec<_> = sessions.map(|session| cache.tokens(session)).collect();
        for session in &sessions {
            for number in 0..4 {
                // Replaced ones, too.
                session.insert("graph", tokens(number)).await.unwrap();
                assert_eq!(
                    session.commit().await.unwrap(),
                    tower_token_cache::Durability::Stored
                );
            }
        }
        assert!(!files_with(directory.path(), "CANARY").is_empty());
        for session in &sessions {
            assert_eq!(
                session.sign_out().await.unwrap(),
                tower_token_cache::Durability::Stored
            );
        }
        cache.shutdown(Duration::from_secs(5)).await;
        // What the last sign-outs have left goes with the next operation a moment later.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        store
            .acquire_lease(&lease(&partition("other"), 1), MINUTE)
            .await
            .unwrap();
        assert_eq!(files_with(directory.path(), "CANARY"), [""; 0]);
    }

    #[tokio::test]
    async fn the_end_of_the_store_leaves_nothing_either() {
        let (directory, path) = file();
        let store = SqliteStore::open(&path).await.unwrap();
        let cache = TokenCache::builder(store).build().unwrap();
        let session = cache.tokens(PartitionKey::session("s").unwrap());
        session.insert("graph", tokens(0)).await.unwrap();
        assert_eq!(
            session.commit().await.unwrap(),
            tower_token_cache::Durability::Stored
        );
        assert_eq!(
            session.sign_out().await.unwrap(),
            tower_token_cache::Durability::Stored
        );
        cache.shutdown(Duration::from_secs(5)).await;
        drop((session, cache));
        assert_eq!(files_with(directory.path(), "CANARY"), [""; 0]);
    }

    /// A limit: those raise one number, and touch no session.
    #[tokio::test]
    async fn what_all_or_a_user_were_signed_out_of_stays_until_its_lifetime_is_over() {
        for all in [false, true] {
            let (directory, path) = file();
            let clock = Clock::manual(Timestamp::now());
            let store = SqliteStore::open(&path).await.unwrap();
            let cache = TokenCache::builder(store.with_clock(clock.clone())).clock(clock.clone());
            let cache = cache.build().unwrap();
            let commit = async |name: &str, token: &str| {
                let session = cache.tokens(PartitionKey::session(name).unwrap());
                session.insert("graph", Token::new(token)).await.unwrap();
                session.link_user("ada").await.unwrap();
                let stored = session.commit().await.unwrap();
                assert_eq!(stored, tower_token_cache::Durability::Stored);
            };
            commit("s", "CANARY").await;
            match all {
                true => cache.sign_out_all().await.unwrap(),
                false => drop(cache.sign_out_user("ada").await.unwrap()),
            }
            clock.advance(24 * 60 * MINUTE);
            commit("a day later", "t").await;
            // Another commit may be moving it from one file to another just now.
            let is_left = || !files_with(directory.path(), "CANARY").is_empty();
            common::eventually("it is found", async || is_left()).await;
            clock.advance(14 * 24 * 60 * MINUTE);
            commit("its lifetime is over", "t").await;
            // Of two commits at once, one frees it.
            common::eventually("it is freed", async || !is_left()).await;
        }
    }
}
