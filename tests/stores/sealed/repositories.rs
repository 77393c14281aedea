//! Where keys are kept: all who start at once agree, and nobody else can read them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use tower_token_cache::seal::{DirRepository, KeyId, KeyRingErrorKind};
use tower_token_cache::store::{PartitionId, Raise};
use tower_token_cache::{MemoryStore, SqliteStore};

use common::store::TestStore;

use super::*;

const INSTANCES: usize = 20;

/// What a ring calls a partition, under the namespace's number 1.
pub(crate) async fn name(ring: &KeyRing) -> PartitionId {
    let store = TestStore::default();
    sealed(store.clone(), ring)
        .partition_id(&user("ada"))
        .await
        .unwrap();
    let namespace = &store.epochs()[0];
    store.evict(namespace);
    let begin = store.raise(namespace, Raise::Begin(1), None);
    begin.await.unwrap();
    let cache = sealed(store.clone(), ring);
    cache.partition_id(&user("ada")).await.unwrap()
}

/// All have the same keys, active and names.
pub(crate) async fn assert_agree(rings: &[KeyRing]) {
    let active: HashSet<KeyId> = rings.iter().map(KeyRing::active).collect();
    assert_eq!((rings.len(), active.len()), (INSTANCES, 1));
    let mut names = HashSet::new();
    for ring in rings {
        names.insert(name(ring).await);
    }
    assert_eq!(names.len(), 1);
    assert!(rings.iter().all(|ring| ring.keys().len() == 1));
}

pub(crate) async fn opened(repository: impl KeyRepository + Clone) -> Vec<KeyRing> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..INSTANCES {
        let repository = repository.clone();
        tasks.spawn(async move { KeyRing::open_in_store(repository, key(1)).await.unwrap() });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_instances_agree_through_redis() {
    let server = RedisServer::start();
    let store = redis_store(&server).await;
    assert_agree(&opened(store.keys("ttc")).await).await;
    assert_eq!(server.only_key(), "ttc:keys");
    // Another application on the same server has keys of its own.
    let other = KeyRing::open_in_store(store.keys("other"), key(1))
        .await
        .unwrap();
    let ours = KeyRing::open_in_store(store.keys("ttc"), key(1))
        .await
        .unwrap();
    assert_ne!(other.active(), ours.active());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_instances_agree_through_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.db");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..INSTANCES {
        let path = path.clone();
        tasks.spawn(async move {
            let store = SqliteStore::open(path).await.unwrap();
            KeyRing::open_in_store(store.keys("ttc"), key(1))
                .await
                .unwrap()
        });
    }
    assert_agree(&tasks.join_all().await).await;
}

#[tokio::test]
async fn twenty_instances_agree_through_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/keys");
    let start = std::sync::Barrier::new(INSTANCES);
    let rings = std::thread::scope(|scope| {
        let open = || {
            start.wait();
            KeyRing::open_dir(&path).unwrap()
        };
        let threads: Vec<_> = (0..INSTANCES).map(|_| scope.spawn(open)).collect();
        let rings = threads.into_iter().map(|thread| thread.join().unwrap());
        rings.collect::<Vec<_>>()
    });
    assert_agree(&rings).await;
    let mut files: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|file| file.unwrap())
        .collect();
    files.sort_by_key(|file| file.file_name());
    let names: Vec<_> = files.iter().map(|file| file.file_name()).collect();
    assert_eq!(
        names,
        ["key-00000001.key", "naming.key"],
        "and nothing is left behind"
    );
}

#[cfg(unix)]
#[test]
fn a_folder_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set =
        |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    KeyRing::open_dir(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    for file in fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    let refused = || KeyRing::open_dir(&path).unwrap_err().kind();
    for open in [0o750, 0o705, 0o701, 0o770] {
        set(&path, open);
        assert_eq!(refused(), KeyRingErrorKind::Permissions, "{open:o}");
    }
    set(&path, 0o700);
    let file = path.join("key-00000001.key");
    for open in [0o640, 0o604, 0o660] {
        set(&file, open);
        assert_eq!(refused(), KeyRingErrorKind::Permissions, "{open:o}");
    }
    set(&file, 0o400);
    KeyRing::open_dir(&path).unwrap();
    let not_a_folder = KeyRing::open_dir(&file).unwrap_err().kind();
    assert!(matches!(
        not_a_folder,
        KeyRingErrorKind::Permissions | KeyRingErrorKind::Unreachable
    ));
}

#[tokio::test]
async fn keys_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let open = || KeyRing::open_dir(folder.path().join("keys")).unwrap();
    store_token(&sealed(store.clone(), &open()), &user("ada"), "graph", "t").await;
    let cache = sealed(store, &open());
    assert_eq!(
        hit(&cache, &user("ada"), "graph").await.as_deref(),
        Some("t")
    );
}

#[tokio::test]
async fn one_damaged_record_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let ring = KeyRing::open_dir(&path).unwrap();
    let second = ring.rotate().await.unwrap();
    let file = path.join("key-00000002.key");
    let text = fs::read_to_string(&file).unwrap();
    // Somebody without the key wants it to seal at once, or to be another.
    let number = text.split("\"activates\":").nth(1).unwrap();
    let activates = &number[..number.find(',').unwrap()];
    for damaged in [
        text.replace(activates, "0"),
        text.replace(&second.to_string(), "0123456789abcdef"),
        text.replace("\"v\":1", "\"v\":2"),
        text[..text.len() / 2].to_owned(),
        String::new(),
    ] {
        assert_ne!(damaged, text);
        fs::write(&file, damaged).unwrap();
        let ring = KeyRing::open_dir(&path).unwrap();
        assert_eq!(ring.keys().len(), 1);
    }
    fs::write(&file, &text).unwrap();
    assert_eq!(KeyRing::open_dir(&path).unwrap().keys().len(), 2);
    // Without any key that can be read there is no ring, rather than a new one.
    fs::write(path.join("naming.key"), "{}").unwrap();
    let error = KeyRing::open_dir(&path).unwrap_err();
    assert_eq!(error.kind(), KeyRingErrorKind::Damaged);
}

#[tokio::test]
async fn what_a_repository_has_lost_is_put_back() {
    let server = RedisServer::start();
    let keys = redis_store(&server).await.keys("ttc");
    let ring = KeyRing::open_in_store(keys.clone(), key(1)).await.unwrap();
    let revoked = ring.active();
    ring.revoke(revoked).await.unwrap();
    server.query::<()>("FLUSHALL");
    ring.refresh().await.unwrap();
    let other = KeyRing::open_in_store(keys, key(1)).await.unwrap();
    assert_eq!(other.keys(), ring.keys());
    assert!(
        other
            .keys()
            .iter()
            .any(|key| key.id == revoked && key.revoked)
    );
    assert_eq!(name(&other).await, name(&ring).await);
}

#[tokio::test]
async fn a_repository_that_is_away_is_an_error_and_changes_nothing() {
    let mut server = RedisServer::start();
    let keys = redis_store(&server).await.keys("ttc");
    let ring = KeyRing::open_in_store(keys.clone(), key(1)).await.unwrap();
    let before = ring.keys();
    server.kill();
    assert_eq!(
        ring.refresh().await.unwrap_err().kind(),
        KeyRingErrorKind::Unreachable
    );
    assert_eq!(ring.keys(), before);
    let error = KeyRing::open_in_store(keys, key(1)).await.unwrap_err();
    assert_eq!(error.kind(), KeyRingErrorKind::Unreachable);
}

#[tokio::test]
async fn a_repository_is_read_up_to_a_bound() {
    let shared = Shared::default();
    KeyRing::builder(shared.clone()).open().await.unwrap();
    shared.set_text("naming", &"x".repeat(20_000));
    let error = KeyRing::builder(shared).open().await.unwrap_err();
    assert_eq!(error.kind(), KeyRingErrorKind::TooLarge);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let dir = DirRepository::open(&path).unwrap();
    KeyRing::builder(dir).open().await.unwrap();
    fs::write(path.join("naming.key"), "x".repeat(20_000)).unwrap();
    let error = KeyRing::open_dir(&path).unwrap_err();
    assert_eq!(error.kind(), KeyRingErrorKind::TooLarge);
}

/// The files of `tests/golden/ring` were made by another implementation, and must open for ever:
/// a naming key, a sealing key, and a later one that was revoked.
#[tokio::test]
async fn a_ring_of_the_documented_format_opens() {
    let shared = Shared::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ring");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let record = KeyRecord::new(name, fs::read(&path).unwrap());
        shared.add(&record).await.unwrap();
    }
    let builder = KeyRing::builder(shared.clone()).rotate_every(None);
    let ring = builder.open().await.unwrap();
    assert_eq!(shared.names().len(), 4, "and nothing is missing in it");
    let keys = ring.keys();
    let ids: Vec<_> = keys
        .iter()
        .map(|key| (key.id.to_string(), key.revoked))
        .collect();
    let expected = [("0102030405060708", false), ("2222222222222222", true)];
    assert_eq!(ids, expected.map(|(id, revoked)| (id.to_owned(), revoked)));
    assert_eq!(ring.active(), KeyId::parse("0102030405060708").unwrap());
    let names = KeyRing::builder(shared)
        .rotate_every(None)
        .open()
        .await
        .unwrap();
    let id = name(&names).await;
    assert_eq!(id.encoded(), "2KaNDEllcR8AQmeEcJEHEWaqmRnQAmqeB463pp30yH0");
}

/// A failover that has lost the last writes, or whoever stole the key and can write to the repository.
#[tokio::test]
async fn a_revocation_that_the_repository_loses_stays_and_is_put_back() {
    let shared = Shared::default();
    let open = || KeyRing::builder(shared.clone()).open();
    let ring = open().await.unwrap();
    let stolen = ring.active();
    ring.revoke(stolen).await.unwrap();
    let known = ring.keys();
    let revocation = format!("revoked-{stolen}");
    assert!(shared.0.lock().unwrap().remove(&revocation).is_some());
    ring.refresh().await.unwrap();
    assert_eq!(ring.keys(), known, "it opens nothing on a running instance");
    assert!(shared.names().contains(&revocation), "nor on a new one");
    assert_eq!(open().await.unwrap().keys(), known);
}

#[tokio::test]
async fn a_sealing_key_that_the_repository_loses_stays_and_is_put_back() {
    let shared = Shared::default();
    let ring = KeyRing::open_in_store(shared.clone(), key(1))
        .await
        .unwrap();
    ring.rotate().await.unwrap();
    let known = ring.keys();
    for lost in ["key-00000001", "key-00000002"] {
        assert!(shared.0.lock().unwrap().remove(lost).is_some());
        ring.refresh().await.unwrap();
        assert_eq!(ring.keys(), known, "without {lost}");
        assert!(shared.names().contains(&lost.to_owned()));
    }
    let other = KeyRing::open_in_store(shared, key(1)).await.unwrap();
    assert_eq!(other.keys(), known);
}

/// Whoever can write to the repository and has no key cannot keep its owners from theirs.
#[tokio::test]
async fn records_that_nobody_can_read_block_neither_rotation_nor_revocation_nor_start() {
    let names = [
        "key-00000002",
        "key-00000003.0123456789abcdef",
        "key-99999998",
        "key-99999999",
        "key-4294967295",
        "revoked-nothing",
        "naming.0123456789abcdef",
        "",
        "..",
    ];
    let contents = ["{}", "", "no json", &"x".repeat(20_000)];
    for name in names {
        for content in contents {
            let shared = Shared::default();
            let open = || KeyRing::open_in_store(shared.clone(), key(1));
            let ring = open().await.unwrap();
            let record = KeyRecord::new(name, content.as_bytes().to_vec());
            shared.add(&record).await.unwrap();
            ring.refresh().await.unwrap();
            let next = ring.rotate().await.unwrap();
            assert!(ring.keys().iter().any(|key| key.id == next));
            let first = ring.active();
            ring.revoke(first).await.unwrap();
            let again = ring.rotate().await.unwrap();
            assert!(ring.keys().iter().any(|key| key.id == again));
            assert_eq!(open().await.unwrap().keys(), ring.keys());
        }
    }
}

#[cfg(unix)]
mod folders_of_others {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path, advice: &str) {
        let error = KeyRing::open_dir(path).unwrap_err();
        assert_eq!(error.kind(), KeyRingErrorKind::Permissions, "{advice}");
        let source = std::error::Error::source(&error)
            .expect("a reason")
            .to_string();
        assert!(source.contains(advice), "{source}");
    }

    /// Only root can give files away, which is what many containers run as.
    #[test]
    fn a_folder_or_file_of_another_owner_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        KeyRing::open_dir(&path).unwrap();
        let key = path.join("naming.key");
        for theirs in [&path, &key] {
            if chown(theirs, Some(65_534), Some(65_534)).is_err() {
                return;
            }
            refused(&path, "owner");
            chown(theirs, Some(rustix::process::geteuid().as_raw()), None).unwrap();
        }
        KeyRing::open_dir(&path).unwrap();
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        KeyRing::open_dir(&path).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        refused(&link, "symbolic link");
        let key = path.join("naming.key");
        fs::rename(&key, folder.path().join("elsewhere")).unwrap();
        symlink(folder.path().join("elsewhere"), &key).unwrap();
        refused(&path, "symbolic link");
    }

    #[test]
    fn a_folder_that_others_can_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        KeyRing::open_dir(&path).unwrap();
        for mode in [0o777, 0o770] {
            set(folder.path(), mode);
            refused(&path, "folder");
        }
        set(folder.path(), 0o1777);
        KeyRing::open_dir(&path).unwrap();
    }
}
