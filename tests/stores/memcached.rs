//! `MemcachedStore` on real servers: the contract, and what a cache as a store costs.

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::assert_stored;
use common::memcached::{MemcachedServer, STRICT};
use common::process::Process;
use common::store::{commit_of, load_one};
use common::support::{builder, cache, session, token};
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::store::{
    Commit, CommitId, EntryId, Lease, LeaseState, Outcome, PartitionId, TOMBSTONE,
};
use tower_token_cache::{
    Error, FailurePolicy, Lookup, MemcachedStore, Prior, ProviderError, StoreError, StoreErrorKind,
    Timestamp, Token, TokenSet, TokenStore,
};

const LIMIT: usize = 1 << 20;

async fn connect(server: &MemcachedServer) -> MemcachedStore {
    let store = MemcachedStore::connect(&server.url()).await;
    store.expect("a server that evicts nothing")
}

async fn send(store: &MemcachedStore, commit: &Commit) -> Result<Outcome, StoreError> {
    store.commit(std::slice::from_ref(commit)).await.remove(0)
}

fn partition(name: &str) -> PartitionId {
    PartitionId::for_tests("test", name)
}

fn key(name: &str) -> String {
    format!("test:{}", partition(name).encoded())
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_store_conforms() {
    // The contract has values of 1 MiB.
    let server = MemcachedServer::start_with(&[&STRICT[..], &["-I", "2m"]].concat());
    let harness = Harness::real_time(connect(&server).await);
    conformance::all(&harness).await;
    conformance::cas_store(&harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_store_conforms_on_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let path = socket.to_str().expect("a path of ASCII");
    let _server = Process::spawn_memcached(&[&STRICT[..], &["-s", path]].concat());
    common::eventually("it listens", async || socket.exists()).await;
    let store = MemcachedStore::connect(&format!("unix://{path}")).await;
    let harness = Harness::real_time(store.unwrap()).with_largest_value(LIMIT - 1000);
    conformance::values_come_back_as_they_were(&harness).await;
    conformance::sign_out_is_final(&harness).await;
    conformance::leases_obey_their_owner_alone(&harness).await;
}

#[tokio::test]
async fn a_server_that_may_evict_is_refused() {
    let permissive: [&[&str]; 3] = [&[], &["-M"], &["-o", "slab_automove=0"]];
    for options in permissive {
        let server = MemcachedServer::start_with(options);
        let refused = MemcachedStore::connect(&server.url()).await.unwrap_err();
        assert_eq!(refused.option(), "address");
        assert!(refused.source().is_some());
        MemcachedStore::evicting(&server.url()).await.unwrap();
    }
    // It was another one when the store was made.
    let mut server = MemcachedServer::start();
    let store = connect(&server).await;
    load_one(&store, &partition("a")).await.unwrap();
    server.kill();
    server.restart_with(&["-M"]);
    let refused = load_one(&store, &partition("a")).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
}

#[tokio::test]
async fn a_server_that_is_away_is_asked_again() {
    let mut server = MemcachedServer::start();
    let commit = commit_of(&partition("a"), [1; 8], 1, "value");
    let store = connect(&server).await;
    send(&store, &commit).await.unwrap();
    server.kill();
    let kind = |answer: Result<Outcome, StoreError>| answer.unwrap_err().kind();
    assert_eq!(
        kind(send(&store, &commit).await),
        StoreErrorKind::Unreachable
    );
    let early = MemcachedStore::connect(&server.url()).await.unwrap();
    assert_eq!(
        kind(send(&early, &commit).await),
        StoreErrorKind::Unreachable
    );
    server.restart_with(&STRICT);
    for store in [store, early] {
        let loaded = load_one(&store, &partition("a")).await.unwrap();
        assert_eq!(loaded.version, 0, "a restart loses everything");
    }
}

/// A connection that was cut while it was idle costs no error.
#[tokio::test]
async fn what_was_cut_is_sent_again() {
    let mut server = MemcachedServer::start();
    let store = connect(&server).await;
    let ids = [1, 2, 3].map(|name| partition(&name.to_string()));
    store.load(&ids).await;
    server.kill();
    server.restart_with(&STRICT);
    let committed = send(&store, &commit_of(&ids[0], [1; 8], 1, "value")).await;
    assert!(matches!(
        committed,
        Ok(Outcome::Committed { version: 1, .. })
    ));
}

/// The answer to a dropped operation is not taken for that to the next one.
#[tokio::test]
async fn a_dropped_operation_leaves_no_answer_behind() {
    let server = MemcachedServer::start();
    let store = connect(&server).await;
    let (a, b) = (partition("a"), partition("b"));
    send(&store, &commit_of(&a, [1; 8], 1, vec![7; 100_000]))
        .await
        .unwrap();
    for micros in 0..200 {
        let load = load_one(&store, &a);
        let _ = tokio::time::timeout(Duration::from_micros(micros * 5), load).await;
        assert_eq!(load_one(&store, &b).await.unwrap().version, 0);
    }
}

/// The limit of an item is known, and kept before anything is sent.
#[tokio::test]
async fn what_is_too_large_is_not_sent() {
    let server = MemcachedServer::start();
    let store = connect(&server).await;
    send(&store, &commit_of(&partition("a"), [1; 8], 1, "before"))
        .await
        .unwrap();
    let sets = server.stat("cmd_set");
    let too_large = commit_of(&partition("a"), [2; 8], 1, vec![7; LIMIT]);
    let refused = send(&store, &too_large).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::TooLarge);
    assert_eq!(server.stat("cmd_set"), sets);
    let loaded = load_one(&store, &partition("a")).await.unwrap();
    assert_eq!(loaded.entries[0].value, "before");
    // What is said to fit does, at each length.
    let mut largest = 0;
    for spare in (0..1000).step_by(7) {
        let id = [&[3; 6][..], &u16::to_be_bytes(spare)].concat();
        let value = vec![7; LIMIT - usize::from(spare)];
        let commit = commit_of(&partition("a"), id.try_into().unwrap(), 1, value);
        match send(&store, &commit).await {
            Ok(_) => largest = largest.max(LIMIT - usize::from(spare)),
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::TooLarge),
        }
    }
    assert!(largest > LIMIT - 400, "{largest}");
}

/// A full server refuses changes, and forgets nothing.
#[tokio::test]
async fn a_full_server_forgets_no_sign_out() {
    let server = MemcachedServer::start_with(&[&STRICT[..], &["-m", "2"]].concat());
    let store = connect(&server).await;
    let early = commit_of(&partition("a"), [1; 8], 1, "early");
    store
        .clear(&partition("a"), None, CommitId([2; 8]))
        .await
        .unwrap();
    let refused = fill(&store).await.expect("it is full");
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    let stale = Outcome::Stale { generation: 1 };
    assert_eq!(send(&store, &early).await.unwrap(), stale);
    assert_eq!(server.stat("evictions"), 0);
}

/// What [`MemcachedStore::evicting`] says that it costs.
#[tokio::test]
async fn a_server_that_evicts_forgets_a_sign_out() {
    let server = MemcachedServer::start_with(&["-m", "2"]);
    let store = MemcachedStore::evicting(&server.url()).await.unwrap();
    let first = commit_of(&partition("a"), [1; 8], 1, "first");
    let Ok(Outcome::Committed { life, .. }) = send(&store, &first).await else {
        panic!("it is applied");
    };
    store
        .clear(&partition("a"), None, CommitId([2; 8]))
        .await
        .unwrap();
    let refused = fill(&store).await;
    assert!(
        refused.is_none() && server.stat("evictions") > 0,
        "{refused:?}"
    );
    assert_eq!(
        load_one(&store, &partition("a")).await.unwrap().generation,
        0
    );
    // An instance that had read the session knows its life.
    let mut late = commit_of(&partition("a"), [3; 8], 1, "late");
    late.life = life;
    assert_eq!(send(&store, &late).await.unwrap(), Outcome::Lost);
    late.life = None;
    let committed = send(&store, &late).await.unwrap();
    assert!(matches!(committed, Outcome::Committed { version: 1, .. }));
}

/// The server frees what has ended, and deletes what is given back.
#[tokio::test]
async fn the_server_is_told_how_long_an_item_counts() {
    let server = MemcachedServer::start();
    let store = connect(&server).await;
    let seconds = |key: &str| -> Option<i64> {
        let answer = server
            .command(&format!("mg {key} t"), &["HD", "EN"])
            .remove(0);
        answer.strip_prefix("HD t").map(|t| t.parse().unwrap())
    };
    let day = TOMBSTONE.as_secs() as i64;
    store
        .clear(&partition("a"), None, CommitId([2; 8]))
        .await
        .unwrap();
    assert!((day..day + 120).contains(&seconds(&key("a")).unwrap()));
    for (name, days) in [("b", 20), ("c", 50)] {
        let mut commit = commit_of(&partition(name), [1; 8], 1, "value");
        commit.lifetime.since_write = Some(days * TOMBSTONE);
        send(&store, &commit).await.unwrap();
        let end = i64::from(days) * day;
        let kept = seconds(&key(name)).unwrap();
        assert!((end..end + 120).contains(&kept), "{name}: {kept}");
    }
    send(&store, &commit_of(&partition("d"), [1; 8], 1, "value"))
        .await
        .unwrap();
    assert_eq!(
        seconds(&key("d")),
        Some(-1),
        "without an end it is for ever"
    );
    let lease = Lease::new(partition("e"), EntryId::from([1; 16]), [1; 16]);
    let ttl = Duration::from_secs(10);
    for _ in 0..2 {
        let state = store.acquire_lease(&lease, ttl).await.unwrap();
        assert_eq!(state, LeaseState::Granted);
        let key = format!("{}:{}", key("e"), lease.entry.encoded());
        assert!(seconds(&key).unwrap() >= 10);
        assert!(store.release_lease(&lease).await.unwrap());
        assert_eq!(seconds(&key), None);
    }
}

/// Writes tombstones until the server refuses, or has had several times what it can hold.
async fn fill(store: &MemcachedStore) -> Option<StoreError> {
    for number in 0..20_000_u32 {
        let filler = partition(&format!("filler {number}"));
        let cleared = store.clear(&filler, None, CommitId([9; 8])).await;
        if let Err(error) = cleared {
            return Some(error);
        }
    }
    None
}

/// Two instances redeem a refresh token once, and know of each other's sign-outs when they ask.
#[tokio::test]
async fn two_instances_share_sessions() {
    let server = MemcachedServer::start();
    let caches = [cache(connect(&server).await), cache(connect(&server).await)];
    let [one, other] = [0, 1].map(|i| caches[i].tokens(session("s")));
    let old = Token::new("old").with_expires_at(Timestamp::from_millis(1));
    let old = TokenSet::from(old).with_refresh_token("r0");
    one.insert("graph", old).await.unwrap();
    assert_stored(one.commit().await.unwrap());
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let redeem = async |_: Prior| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Ok::<_, ProviderError>(TokenSet::from(token("new")))
    };
    let (a, b) = tokio::join!(
        one.get_or_acquire("graph", redeem),
        other.get_or_acquire("graph", redeem)
    );
    for token in [a.unwrap(), b.unwrap()] {
        assert_eq!(token.access_token(), "new");
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    assert_stored(other.sign_out().await.unwrap());
    assert!(one.reload().await.unwrap());
    assert!(matches!(one.get("graph").await.unwrap(), Lookup::Absent));
}

/// A session that is too large is an error of that session alone.
#[tokio::test]
async fn a_session_that_is_too_large_holds_up_no_other() {
    let server = MemcachedServer::start();
    let cache = builder(connect(&server).await);
    let cache = cache.failure_policy(FailurePolicy::Strict).build().unwrap();
    let tokens = cache.tokens(session("large"));
    for name in ["a", "b", "c"] {
        tokens
            .insert(name, token(&"x".repeat(400 << 10)))
            .await
            .unwrap();
    }
    for _ in 0..7 {
        let Err(Error::Unavailable(error)) = tokens.commit().await else {
            panic!("it is too large");
        };
        assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    }
    let small = cache.tokens(session("small"));
    small.insert("a", token("x")).await.unwrap();
    assert_stored(small.commit().await.unwrap());
    // What takes less can be stored.
    tokens.remove("a").await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}
