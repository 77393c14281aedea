//! What goes wrong between us and Redis is mended where it can be, and said once where it cannot.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::feed::Listener;
use common::store::{commit_of, load_one};
use common::support::{RedisServer, access, cache, drained, redis_store, session, token};
use common::topologies::{Cluster, SentinelSet};
use common::{eventually, free_port};
use tower_token_cache::seal::{KeyRecord, KeyRepository};
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::store::{
    Change, Cleared, Commit, CommitId, EntryId, Expected, Lease, Listed, Origin, PartitionId,
    TokenStore,
};
use tower_token_cache::{BreakerState, Lookup, RedisStore, StoreError, StoreErrorKind};

use super::log::Log;

fn partition(name: &str) -> PartitionId {
    PartitionId::for_tests("ttc", name)
}

fn commit(name: &str, generation: u64) -> Commit {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut commit = commit_of(&partition(name), id, 1, "value");
    commit.generation = generation;
    commit
}

/// An error with all of its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// How often all connections are cut, and how often those to one server are used in between.
const ROUNDS: u32 = 100;
const USES: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_because_connections_are_cut() {
    let server = RedisServer::start();
    let url = server.url();
    none_fails_while_connections_are_cut(url.clone(), vec![url]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_because_connections_to_a_cluster_are_cut() {
    let cluster = Cluster::start().await;
    let nodes = cluster.nodes.iter();
    let nodes = nodes.map(|node| format!("redis://127.0.0.1:{}", node.port));
    none_fails_while_connections_are_cut(cluster.url(), nodes.collect()).await;
}

async fn none_fails_while_connections_are_cut(url: String, servers: Vec<String>) {
    let builder = RedisStore::builder(url).response_timeout(Duration::from_secs(2));
    let store = builder.build().unwrap();
    let first = commit("a", 0);
    store.commit(std::slice::from_ref(&first)).await[0]
        .as_ref()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let killer = {
        let (over, answered) = (over.clone(), answered.clone());
        let connect = |url| redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut admins: Vec<_> = servers.into_iter().map(connect).collect();
        let uses = USES * admins.len() as u64;
        std::thread::spawn(move || {
            for _ in 0..ROUNDS {
                for admin in &mut admins {
                    let mut kill = redis::cmd("CLIENT");
                    kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
                    kill.exec(admin).unwrap();
                }
                // A server that cuts connections before they can be used is not healthy.
                let next = answered.load(Ordering::SeqCst) + uses;
                while answered.load(Ordering::SeqCst) < next {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            over.store(true, Ordering::SeqCst);
        })
    };
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (store, over, answered) = (store.clone(), over.clone(), answered.clone());
        tasks.spawn(async move {
            let (mut done, mut failed) = (0, Vec::new());
            while !over.load(Ordering::SeqCst) {
                let read = load_one(&store, &partition("a")).await;
                failed.extend(read.err().map(|error| chain(&error)));
                let name = format!("b-{number}");
                let written = store.commit(&[commit(&name, 0)]).await.remove(0);
                failed.extend(written.err().map(|error| chain(&error)));
                done += 1;
                answered.fetch_add(1, Ordering::SeqCst);
            }
            let version = load_one(&store, &partition(&format!("b-{number}"))).await;
            (done, version.unwrap().version, failed)
        });
    }
    while let Some(task) = tasks.join_next().await {
        let (done, version, failed) = task.unwrap();
        assert_eq!(failed, Vec::<String>::new(), "of {done}");
        assert_eq!(version, done, "each was applied once");
    }
    killer.join().unwrap();
}

async fn failure(url: String) -> StoreError {
    let store = RedisStore::builder(url).response_timeout(Duration::from_secs(5));
    let store = store.build().unwrap();
    load_one(&store, &partition("a")).await.unwrap_err()
}

#[tokio::test]
async fn why_there_is_no_connection_is_the_errors_source() {
    let server = RedisServer::start();
    let _: () = server.query("CONFIG SET requirepass s3cret");
    let at = server.url().replace("redis://", "");
    let nobody = format!("127.0.0.1:{}", free_port());
    for (url, reason) in [
        (format!("redis://:wrong@{at}"), "authentication failed"),
        (format!("redis://{nobody}"), "refused"),
        ("unix:///no/such/socket".into(), "No such file"),
        (
            format!("redis+cluster://:wrong@{at}"),
            "authentication failed",
        ),
        (format!("redis+cluster://{nobody}"), "refused"),
        (format!("redis+sentinel://{nobody}/service"), "refused"),
        (format!("rediss://{at}"), ""),
        ("redis://no-such-host.invalid".into(), ""),
    ] {
        let error = failure(url.clone()).await;
        assert_eq!(
            error.kind(),
            StoreErrorKind::Unreachable,
            "{url}: {error:?}"
        );
        let chain = chain(&error);
        assert!(chain.contains(reason), "{url}: {chain}");
        assert!(error.source().is_some(), "{chain}");
        assert!(
            !chain.contains("wrong") && !chain.contains("s3cret"),
            "{chain}"
        );
    }
}

#[tokio::test]
async fn an_outage_is_a_line_for_each_change_and_not_for_each_attempt() {
    let (log, _guard) = Log::begin();
    let mut server = RedisServer::start();
    let cache = cache(redis_store(&server).await);
    let _ = cache.tokens(session("s")).get("graph").await.unwrap();
    server.kill();
    for user in 0..100 {
        let tokens = cache.tokens(session(&user.to_string()));
        assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Unavailable);
        tokens.insert("graph", token("t")).await.unwrap();
    }
    eventually("the breaker opens", async || {
        cache.stats().l2_state == BreakerState::Open
    })
    .await;
    server.restart();
    drained(&cache).await;
    eventually("reads are answered, too", async || {
        let _ = cache.tokens(session("one-more")).get("graph").await;
        cache.stats().l2_state == BreakerState::Closed
    })
    .await;
    assert_eq!(
        access(&cache.tokens(session("7")), "graph")
            .await
            .as_deref(),
        Some("t")
    );
    let all = log.lines("").join("\n");
    let count = |text: &str| log.lines(text).len();
    assert_eq!(count("Redis cannot be connected to"), 1, "{all}");
    assert!(
        log.lines("cannot be connected to")[0].contains("refused"),
        "{all}"
    );
    assert_eq!(count("connected to Redis again"), 1, "{all}");
    assert!(
        (1..=2).contains(&count("is not asked for a while")),
        "{all}"
    );
    assert_eq!(
        count("is not asked for a while"),
        count("answers again"),
        "{all}"
    );
    assert!(log.lines("").len() < 14, "{all}");
}

#[tokio::test]
async fn passwords_hold_any_character() {
    let server = RedisServer::start();
    let encode =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let printable: String = ('!'..='~').collect();
    for password in [&printable, "?db=3#x@y:z/%2F+ ", "ä→😀", "100%"] {
        let rule = format!(">{password}");
        let set = [
            b"ACL",
            "SETUSER".as_bytes(),
            b"us:er@x",
            b"reset",
            b"on",
            rule.as_bytes(),
        ];
        server.command(&[&set[..], &[b"~*", b"+@all"]].concat());
        let (user, password) = (encode("us:er@x"), encode(password));
        let at = server.url().replace("redis://", "");
        let store = RedisStore::connect(format!("redis://{user}:{password}@{at}/2")).await;
        load_one(&store.unwrap(), &partition("a")).await.unwrap();
    }
}

/// As the documentation of `RedisStore` has them.
const STORE: &str = "+ping +time +hgetall +evalsha +eval +hget +hset +hdel +del +get +set \
                     +pttl +pexpire +pexpireat +persist";
const KEYS: &str = "+hgetall +hsetnx +ping";

fn allow(server: &RedisServer, rights: &str) {
    let rules = "ACL SETUSER tokens reset on >secret resetchannels -@all";
    let _: () = server.query(&format!("{rules} {rights}"));
}

fn tokens_at(server: &RedisServer) -> String {
    server.url().replace("redis://", "redis://tokens:secret@")
}

async fn as_allowed(server: &RedisServer) -> RedisStore {
    let builder = RedisStore::builder(tokens_at(server));
    builder
        .response_timeout(Duration::from_secs(5))
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_rights_are_enough() {
    let server = RedisServer::start();
    let feed = "+hello +client|tracking +role";
    allow(&server, &format!("~conformance-* ~ttc:* {STORE} {feed}"));
    let store = as_allowed(&server).await;
    let harness = Harness::real_time(store);
    conformance::all(&harness).await;
    conformance::movable(&harness).await;
    allow(&server, &format!("~ttc:* {STORE} +scan"));
    as_allowed(&server).await.list("ttc", None).await.unwrap();
    allow(&server, &format!("~ttc:* {STORE}"));
    exercise(&as_allowed(&server).await).await.unwrap();
    allow(&server, &format!("~ttc:keys {KEYS}"));
    keep(&as_allowed(&server).await).await.unwrap();
    allow(&server, &format!("+ping {feed}"));
    Listener::on(&as_allowed(&server).await, "ttc").await;
    // A cluster and sentinels take a few more.
    let cluster = Cluster::start().await;
    for node in &cluster.nodes {
        let rights = format!("~ttc:* {STORE} +asking +cluster|slots");
        let rules = format!("ACL SETUSER tokens reset on >secret -@all {rights}");
        let _: redis::Value = node.query(&rules).unwrap();
    }
    let url = cluster.url().replace("//", "//tokens:secret@");
    let store = RedisStore::builder(url).response_timeout(Duration::from_secs(5));
    exercise(&store.build().unwrap()).await.unwrap();
}

/// All that the store does, until something fails.
async fn exercise(store: &RedisStore) -> Result<(), StoreError> {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let [a, b] = ["a", "b"].map(|name| format!("{name}-{round}"));
    let first = async |commit: Commit| store.commit(&[commit]).await.remove(0);
    first(commit(&a, 0)).await?;
    let version = load_one(store, &partition(&a)).await?.version;
    store.revisions(&[partition(&a)]).await.remove(0)?;
    let entry = EntryId::from([1; 16]);
    let mut expecting = commit(&a, 0);
    expecting.expected = Some(Expected::new(entry, version));
    expecting.lifetime.since_write = Some(Duration::from_secs(60));
    expecting.lifetime.sliding = Some(Duration::from_secs(30));
    expecting.changes[0].put.as_mut().unwrap().expires_at = Some(
        std::time::SystemTime::now()
            .checked_add(Duration::from_millis(50))
            .unwrap()
            .into(),
    );
    first(expecting).await?;
    store.touch(&[partition(&a)]).await.remove(0)?;
    tokio::time::sleep(Duration::from_millis(60)).await;
    // What has expired is removed on the way, and so is this.
    let mut removing = commit(&a, 0);
    removing.changes[0].put = None;
    let put = commit(&a, 0).changes.remove(0).put;
    removing.changes.push(Change::new([2; 16].into(), put));
    first(removing).await?;
    let loaded = load_one(store, &partition(&a)).await?;
    let from = Origin::new(partition(&a), loaded.generation, loaded.version);
    store.relocate(&from, &commit(&b, 0)).await?;
    let cleared = store.clear(&partition(&b), None, CommitId([9; 8])).await?;
    assert_eq!(cleared, Cleared::new(1, true));
    let lease = Lease::new(partition(&b), entry, [1; 16]);
    let ttl = Duration::from_secs(5);
    store.acquire_lease(&lease, ttl).await?;
    let of_another = Lease::new(partition(&b), entry, [2; 16]);
    store.acquire_lease(&of_another, ttl).await?;
    assert!(store.renew_lease(&lease, ttl).await?);
    assert!(store.release_lease(&lease).await?);
    Ok(())
}

async fn keep(store: &RedisStore) -> Result<(), Box<dyn Error + Send + Sync>> {
    let keys = store.keys("ttc");
    let record = KeyRecord::new("key", vec![1; 40]);
    keys.add(&record).await?;
    assert_eq!(keys.list().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let server = RedisServer::start();
    for missing in STORE.split_whitespace() {
        let name = missing.trim_start_matches('+');
        let denied = format!("-{name}");
        allow(&server, &format!("~ttc:* {STORE} {denied}"));
        let store = as_allowed(&server).await;
        // A script that is known need not be sent.
        let _: redis::Value = server.query("SCRIPT FLUSH");
        if name == "ping" {
            // Only a connection that may be dead is asked.
            exercise(&store).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1100)).await;
            exercise(&store).await.unwrap();
            continue;
        }
        let error = exercise(&store).await.unwrap_err();
        let said = chain(&error);
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{missing}: {said}");
        // Of what a script runs Redis tells the script and the line.
        let named = said.contains("permission") && said.contains(name);
        let within = said.contains("can't run this command") && said.contains("on @user_script:");
        assert!(named || within, "{missing}: {said}");
    }
    allow(&server, &format!("~ttc:* {STORE} -@scripting"));
    let error = exercise(&as_allowed(&server).await).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    assert!(chain(&error).contains("permission"), "{}", chain(&error));
    for missing in ["hgetall", "hsetnx"] {
        allow(&server, &format!("~ttc:keys {KEYS} -{missing}"));
        let error = keep(&as_allowed(&server).await).await.unwrap_err();
        assert!(chain(&*error).contains(missing), "{}", chain(&*error));
    }
    allow(&server, &format!("~other:* {STORE}"));
    let error = exercise(&as_allowed(&server).await).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    assert!(chain(&error).contains("permission"), "{}", chain(&error));
}

#[tokio::test]
async fn a_server_that_may_evict_is_one_warning() {
    const WARNING: &str = "Redis may evict keys";
    for (policy, warnings) in [("noeviction", 0), ("allkeys-lru", 1), ("volatile-ttl", 1)] {
        let (log, _guard) = Log::begin();
        let server = RedisServer::start();
        let _: () = server.query(&format!("CONFIG SET maxmemory-policy {policy}"));
        let store = redis_store(&server).await;
        for round in 0..3 {
            load_one(&store, &partition("a")).await.unwrap();
            let asked = || server.calls("info") > 0;
            eventually("it is asked", async || asked()).await;
            if round == 1 {
                let _: redis::Value = server.query("CLIENT KILL TYPE normal");
            }
        }
        let done = || warnings == log.lines(WARNING).len();
        eventually("the warning", async || done()).await;
        assert!(log.lines(WARNING).iter().all(|line| line.contains(policy)));
    }
    // Who may not ask does not know.
    let (log, _guard) = Log::begin();
    let server = RedisServer::start();
    let _: () = server.query("CONFIG SET maxmemory-policy allkeys-lru");
    allow(&server, &format!("~ttc:* {STORE}"));
    load_one(&as_allowed(&server).await, &partition("a"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(log.lines(""), Vec::<String>::new());
}

#[tokio::test]
async fn clusters_and_sentinels_that_may_evict_are_one_warning() {
    const WARNING: &str = "Redis may evict keys";
    let policy = "maxmemory-policy allkeys-lru";
    let cluster = Cluster::start_with(policy).await;
    let set = SentinelSet::start_with("", policy).await;
    let sentinels = format!("redis+sentinel://{}/tokens", set.hosts());
    for url in [cluster.url(), sentinels] {
        let (log, _guard) = Log::begin();
        let store = RedisStore::connect(url).await.unwrap();
        for user in 0..20 {
            let _ = load_one(&store, &partition(&user.to_string())).await;
        }
        eventually("the warning", async || !log.lines(WARNING).is_empty()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(log.lines(WARNING).len(), 1);
    }
}
