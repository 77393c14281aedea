//! `SqliteStore` where files fail.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::support::*;
use tower_token_cache::{Durability, SqliteStore, StoreErrorKind, TokenSet};

/// A file system of this size; gone on drop. `None` where none can be mounted.
struct Small(PathBuf, tempfile::TempDir);

impl Small {
    fn new(kib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let size = format!("size={kib}k,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .status();
        mounted
            .is_ok_and(|it| it.success())
            .then_some(Self(path, folder))
    }

    /// Fills what is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("ballast")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0; 1]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = &self.1;
    }
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.unwrap()
}

/// README: "Survives its store"; sign_out: "On return L2 has it … unless the answer is `Durability::Pending`"; "no file
/// holds a byte of the session's tokens". Here the disk is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_survived() {
    let Some(disk) = Small::new(1024) else {
        panic!("needs the right to mount a tmpfs: run it as root");
    };
    let file = disk.0.join("tokens.db");
    let one = cache(open(&file).await);
    let tokens = one.tokens(session("s"));
    let secret = "SECRET-".repeat(50);
    let set = TokenSet::from(token(&secret)).with_refresh_token("r");
    tokens.insert("api", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let other = one.tokens(session("other"));
    other.insert("api", token("kept")).await.unwrap();
    assert_stored(other.commit().await.unwrap());
    disk.fill();
    let mut stored = 0;
    let mut outcome = Vec::new();
    for number in 0..200 {
        let tokens = one.tokens(session(&format!("n{number}")));
        tokens
            .insert("api", token(&"x".repeat(3000)))
            .await
            .unwrap();
        match tokens.commit().await {
            Ok(Durability::Stored) => stored += 1,
            other => {
                outcome.push(format!("{other:?}"));
                if outcome.len() > 3 {
                    break;
                }
            }
        }
    }
    println!(
        "stored {stored}, then {outcome:?}; {:?}",
        one.check(Duration::from_secs(1)).await
    );
    // Reads go on.
    let two = cache(open(&file).await);
    assert_eq!(
        access(&two.tokens(session("other")), "api")
            .await
            .as_deref(),
        Some("kept")
    );
    let out = tokens.sign_out().await;
    println!(
        "sign-out: {out:?}, pending {}",
        one.stats().pending_sign_outs
    );
    let seen = access(&two.tokens(session("s")), "api").await;
    match &out {
        Ok(Durability::Stored) => assert_eq!(seen, None, "signed out"),
        Ok(Durability::Pending) => assert!(one.stats().pending_sign_outs > 0),
        Err(error) => panic!("{error:?}"),
    }
    disk.empty();
    eventually("all is written", async || {
        let stats = one.stats();
        stats.pending_changes == 0 && stats.pending_sign_outs == 0
    })
    .await;
    let three = cache(open(&file).await);
    assert_eq!(access(&three.tokens(session("s")), "api").await, None);
    assert!(access(&three.tokens(session("n0")), "api").await.is_some());
    let left = std::fs::read_dir(&disk.0).unwrap().filter(|entry| {
        let bytes = std::fs::read(entry.as_ref().unwrap().path()).unwrap();
        bytes.windows(7).any(|window| window == b"SECRET-")
    });
    println!("files with a byte of it: {}", left.count());
}

/// SqliteStore::open: "ConfigError for `path`: the file cannot be opened or created".
#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_is_only_read_is_a_typed_error() {
    let Some(disk) = Small::new(1024) else {
        panic!("needs the right to mount a tmpfs: run it as root");
    };
    let file = disk.0.join("tokens.db");
    let first = cache(open(&file).await);
    let tokens = first.tokens(session("s"));
    tokens.insert("api", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let remount = |how: &str| {
        let done = Command::new("mount")
            .args(["-o", how])
            .arg(&disk.0)
            .status();
        done.is_ok_and(|it| it.success())
    };
    first.shutdown(Duration::from_secs(1)).await;
    drop((tokens, first));
    // Open files keep it from being mounted anew.
    eventually("it is read only", async || remount("remount,ro")).await;
    let began = std::time::Instant::now();
    let error = SqliteStore::open(&file).await;
    println!("{error:?} after {:?}", began.elapsed());
    assert!(error.is_err());
    remount("remount,rw");
    let again = cache(open(&file).await);
    assert!(access(&again.tokens(session("s")), "api").await.is_some());
}

/// The same where it happens while the file is open: changes wait, and the kind says that it is no refusal of one
/// change.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_disk_refuses_is_told() {
    use tower_token_cache::TokenStore;
    use tower_token_cache::store::PartitionId;
    let Some(disk) = Small::new(512) else {
        panic!("needs the right to mount a tmpfs: run it as root");
    };
    let store = open(&disk.0.join("tokens.db")).await;
    disk.fill();
    let mut refused = None;
    for number in 0..200_u8 {
        let id = PartitionId::for_tests("t", &number.to_string());
        let commit = common::store::commit_of(&id, [number; 8], 1, vec![0; 4000]);
        if let Err(error) = store.commit(&[commit]).await.remove(0) {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("no room");
    println!("{refused:?}");
    assert_ne!(refused.kind(), StoreErrorKind::TooLarge);
    // A read needs no room.
    let id = PartitionId::for_tests("t", "0");
    assert!(common::store::load_one(&store, &id).await.is_ok());
}

/// SqliteStore::open: the file of this name is the file that is used.
#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_a_file_is_a_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let mut wrong = Vec::new();
    for name in [
        &b"a?mode=memory"[..],
        b"a#b",
        b"a%41b",
        b"a b",
        b":memory:",
        b"file:x",
        "ä".as_bytes(),
        b"a\nb",
        b"\xff\xfe",
        b"a'b\"c",
        b"-wal",
        b"x?cache=shared&vfs=none",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OsStr::from_bytes(name));
        let store = match SqliteStore::open(&path).await {
            Ok(store) => store,
            Err(error) => {
                println!("{}: {error:?}", String::from_utf8_lossy(name));
                continue;
            }
        };
        let one = cache(store);
        let tokens = one.tokens(session("s"));
        tokens.insert("api", token("t")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        one.shutdown(Duration::from_secs(5)).await;
        drop((tokens, one));
        let files = std::fs::read_dir(folder.path()).unwrap();
        let files = Vec::from_iter(files.map(|file| file.unwrap().file_name()));
        let again = cache(open(&path).await);
        let found = access(&again.tokens(session("s")), "api").await;
        let size = std::fs::metadata(&path).unwrap().len();
        if found.is_none() || size == 0 {
            wrong.push((
                String::from_utf8_lossy(name).into_owned(),
                found,
                size,
                files,
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// SqliteStore: "shared by all processes of one machine that open the same file". By two names of it, as a hard link has
/// them, each with a log of its own.
#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_file_are_one_store_or_an_error() {
    use common::store::{commit_of, load_one};
    use tower_token_cache::TokenStore;
    use tower_token_cache::store::PartitionId;
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let one = open(&a).await;
    std::fs::hard_link(&a, &b).unwrap();
    let Ok(two) = SqliteStore::open(&b).await else {
        return;
    };
    let id = |number: u8| PartitionId::for_tests("t", &number.to_string());
    let (mut acknowledged, mut failed) = (Vec::new(), Vec::new());
    for number in 0..40_u8 {
        let store = if number.is_multiple_of(2) { &one } else { &two };
        let commit = commit_of(&id(number), [number; 8], 1, vec![7; 2000]);
        match store.commit(&[commit]).await.remove(0) {
            Ok(_) => acknowledged.push(number),
            Err(error) => failed.push(format!("{number}: {error:?}")),
        }
    }
    drop((one, two));
    let again = open(&a).await;
    let mut lost = Vec::new();
    for number in acknowledged {
        let loaded = load_one(&again, &id(number)).await;
        if !loaded.as_ref().is_ok_and(|it| it.entries.len() == 1) {
            lost.push((number, loaded.map(|it| it.entries.len())));
        }
    }

    assert!(
        lost.is_empty(),
        "acknowledged and lost: {lost:?}; failed: {failed:?}"
    );
}
