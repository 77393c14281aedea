//! Passwords of Redis that change while the store is used.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::eventually;
use common::feed::Listener;
use common::redis::RedisServer;
use common::store::commit_of;
use common::topologies::{Cluster, SentinelSet};
use tower_token_cache::store::{PartitionId, TokenStore};
use tower_token_cache::{RedisCredentials, RedisStore, StoreErrorKind};

const NAMESPACE: &str = "test";
const RIGHTS: &str = "~* +@all";

fn partition(number: u64) -> PartitionId {
    PartitionId::for_tests(NAMESPACE, &number.to_string())
}

/// What the application knows, as from a file that is mounted.
#[derive(Clone)]
struct Known(Arc<Mutex<Result<RedisCredentials, &'static str>>>);

impl Known {
    fn new(credentials: RedisCredentials) -> Self {
        Self(Arc::new(Mutex::new(Ok(credentials))))
    }

    fn set(&self, credentials: Result<RedisCredentials, &'static str>) {
        *self.0.lock().unwrap() = credentials;
    }

    fn store(&self, url: String) -> RedisStore {
        let known = self.clone();
        let ask = move || {
            let credentials = known.0.lock().unwrap().clone();
            async move { Ok(credentials?) }
        };
        // The machine of the tests is busy.
        let builder = RedisStore::builder(url).response_timeout(Duration::from_secs(5));
        builder.credentials(ask).build().unwrap()
    }
}

/// Reads and writes without a pause, and fails with the first that does.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(store: &RedisStore) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8 {
            let (store, stop, done) = (store.clone(), stop.clone(), done.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    let commit =
                        commit_of(&partition(task), number.to_be_bytes(), 1, "x".to_owned());
                    store.commit(&[commit]).await.remove(0).expect("a write");
                    let loaded = store.load(&[partition(task)]).await.remove(0);
                    assert_eq!(loaded.expect("a read").entries.len(), 1);
                }
            });
        }
        Self { stop, done, tasks }
    }

    /// Waits until it has done some more.
    async fn goes_on(&self) {
        let enough = self.done.load(Ordering::Relaxed) + 50;
        eventually("it goes on", async || {
            self.done.load(Ordering::Relaxed) > enough
        })
        .await;
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("nothing has failed");
        }
    }
}

/// The numbers of the connections of a user.
fn connections(server: &RedisServer, user: &str) -> BTreeSet<u64> {
    let list: String = server.query("CLIENT LIST");
    let of_user = format!(" user={user} ");
    let lines = list.lines().filter(|line| line.contains(&of_user));
    let id = |line: &str| line.split(' ').next()?.strip_prefix("id=")?.parse().ok();
    lines.map(|line| id(line).expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_password_that_changes_fails_nothing() {
    let server = RedisServer::start();
    server.query::<()>(&format!("ACL SETUSER tokens on >password-0 {RIGHTS}"));
    let known = Known::new(RedisCredentials::new("tokens", "password-0"));
    let store = known.store(server.url());
    let mut listener = Listener::on(&store, NAMESPACE).await;
    let load = Load::start(&store);
    load.goes_on().await;
    for round in 1..=5 {
        let (old, new) = (
            format!("password-{}", round - 1),
            format!("password-{round}"),
        );
        server.query::<()>(&format!("ACL SETUSER tokens >{new}"));
        known.set(Ok(RedisCredentials::new("tokens", new)));
        server.query::<()>(&format!("ACL SETUSER tokens <{old}"));
        // All are made again, with the new one alone.
        let cut: u64 = server.query("CLIENT KILL USER tokens");
        assert!(cut >= 2, "those of the store and of its feed");
        load.goes_on().await;
        listener.begins_again().await;
    }
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_sign_in_again_before_their_credentials_end() {
    let server = RedisServer::start();
    for user in ["first", "second"] {
        server.query::<()>(&format!("ACL SETUSER {user} on >{user}-token {RIGHTS}"));
    }
    let good_for = Duration::from_secs(2);
    let token =
        |user: &str| RedisCredentials::new(user, format!("{user}-token")).good_for(good_for);
    let known = Known::new(token("first"));
    let store = known.store(server.url());
    let mut listener = Listener::on(&store, NAMESPACE).await;
    let load = Load::start(&store);
    load.goes_on().await;
    let before = connections(&server, "first");
    assert!(before.len() >= 2, "those of the store and of its feed");
    known.set(Ok(token("second")));
    eventually("all have signed in again", async || {
        // The feed signs in when it is asked for a proof.
        listener.until_now().await;
        connections(&server, "first").is_empty()
    })
    .await;
    let after = connections(&server, "second");
    assert!(
        before.is_subset(&after),
        "none was cut: {before:?}, {after:?}"
    );
    server.query::<()>("ACL DELUSER first");
    load.goes_on().await;
    assert!(!listener.until_now().await.lost);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_had_are_an_error_of_the_connection() {
    let server = RedisServer::start();
    server.query::<()>(&format!("ACL SETUSER tokens on >hush {RIGHTS}"));
    let known = Known::new(RedisCredentials::new("tokens", "hush"));
    known.set(Err("the file is not there"));
    let store = known.store(server.url());
    let load = async || store.load(&[partition(0)]).await.remove(0);
    let error = load().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable);
    let all = format!("{error:?}");
    assert!(all.contains("the file is not there"), "{all}");

    known.set(Ok(RedisCredentials::new("tokens", "wrong-secret")));
    let error = load().await.unwrap_err();
    let all = format!("{error:?} {:?}", known.0.lock().unwrap());
    assert!(all.contains("authentication failed"), "{all}");
    assert!(
        !all.contains("wrong-secret") && !all.contains("hush"),
        "{all}"
    );

    known.set(Ok(RedisCredentials::new("tokens", "hush")));
    eventually("it is connected", async || load().await.is_ok()).await;
}

/// Nothing is left behind by a call that panics: more of them than there are places for connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_error_of_the_connection() {
    let server = RedisServer::start();
    server.query::<()>(&format!("ACL SETUSER tokens on >hush {RIGHTS}"));
    let (calls, panics) = (Arc::<AtomicU64>::default(), Arc::new(AtomicBool::new(true)));
    let (called, whether) = (calls.clone(), panics.clone());
    let ask = move || {
        called.fetch_add(1, Ordering::Relaxed);
        assert!(!whether.load(Ordering::Relaxed), "the file is not there");
        async { Ok(RedisCredentials::new("tokens", "hush")) }
    };
    let builder = RedisStore::builder(server.url()).credentials(ask);
    let store = builder.build().unwrap();
    let mut listener = Listener::silent(&store, NAMESPACE);
    let load = async || store.load(&[partition(0)]).await.remove(0);
    let is_asked = async |times: u64| {
        let until = calls.load(Ordering::Relaxed) + times;
        eventually("it is asked again", async || {
            let error = load().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unreachable);
            calls.load(Ordering::Relaxed) > until
        })
        .await;
    };
    is_asked(10).await;
    panics.store(false, Ordering::Relaxed);
    eventually("it is connected", async || load().await.is_ok()).await;
    assert!(listener.until_now().await.everything);

    // Also where there was a connection, and a feed.
    panics.store(true, Ordering::Relaxed);
    server.query::<u64>("CLIENT KILL USER tokens");
    listener.until_lost().await;
    is_asked(10).await;
    panics.store(false, Ordering::Relaxed);
    assert!(listener.until_now().await.everything);
    eventually("it is connected", async || load().await.is_ok()).await;
}

/// Each connection asks again once a second, and not with each command.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_over_are_no_reason_to_ask_all_the_time() {
    let server = RedisServer::start();
    server.query::<()>(&format!("ACL SETUSER tokens on >hush {RIGHTS}"));
    let calls = Arc::<AtomicU64>::default();
    let called = calls.clone();
    let ask = move || {
        called.fetch_add(1, Ordering::Relaxed);
        async { Ok(RedisCredentials::new("tokens", "hush").good_for(Duration::ZERO)) }
    };
    let builder = RedisStore::builder(server.url()).credentials(ask);
    let store = builder.build().unwrap();
    let begun = std::time::Instant::now();
    let load = Load::start(&store);
    for _ in 0..10 {
        load.goes_on().await;
    }
    load.stop().await;
    let connections = 4;
    let most = connections * (2 + begun.elapsed().as_secs());
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls <= most, "{calls}, and not {most} at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_cluster_and_masters_of_sentinels_are_signed_in_to() {
    let rule = format!("ACL SETUSER tokens on >hush {RIGHTS}");
    let known = Known::new(RedisCredentials::new("tokens", "hush"));
    let cluster = Cluster::start().await;
    for node in &cluster.nodes {
        node.query::<()>(&rule).unwrap();
    }
    let sentinels = SentinelSet::start("").await;
    for node in &sentinels.servers {
        node.query::<()>(&rule).unwrap();
    }
    let url = format!("redis+sentinel://{}/tokens", sentinels.hosts());
    for (url, nodes) in [
        (cluster.url(), &cluster.nodes[..]),
        (url, &sentinels.servers[..]),
    ] {
        let store = known.store(url);
        let mut listener = Listener::on(&store, NAMESPACE).await;
        let group: Vec<_> = (0..100).map(partition).collect();
        for loaded in store.load(&group).await {
            loaded.unwrap();
        }
        listener.until_now().await;
        let masters = nodes.iter().filter(|node| node.is_master());
        for master in masters {
            let list: String = master.query("CLIENT LIST").unwrap();
            let ours = list.lines().filter(|line| line.contains(" user=tokens "));
            assert!(ours.count() >= 2, "the store and its feed: {list}");
        }
    }
}
