//! Redis as it really fails, under the whole cache with the policy `Degrade`. Whatever the fault:
//! users in L1 are served at once, nobody waits longer than the operation timeout, nothing that was
//! acknowledged is lost, no sign-out is undone, and all is flushed after it.

use std::time::{Duration, Instant};

use common::proxy::{Mode, Proxy};
use common::store::{commit_of, load_one};
use common::support::*;
use tower_token_cache::store::{Outcome, PartitionId};
use tower_token_cache::{Durability, Lookup, RedisStore, TokenCache, TokenStore};

/// The default operation timeout, and some room for a busy machine.
const NOBODY_WAITS_LONGER: Duration = Duration::from_millis(1600);
/// A fault lasts this long: some timeouts, and some probes of the breaker.
const FAULT: Duration = Duration::from_millis(2500);
const USERS: u32 = 8;

/// A cache whose users are in L1 and in Redis.
struct Service {
    cache: TokenCache,
    server: RedisServer,
    proxy: Proxy,
    /// Of the last changes.
    round: u32,
    /// Changes that had to wait for Redis.
    kept: u32,
    admin: redis::Connection,
}

impl Service {
    async fn new() -> Self {
        Self::over(RedisServer::start()).await
    }

    async fn over(server: RedisServer) -> Self {
        let (proxy, url) = Proxy::before(&server.url()).await;
        let cache = cache(RedisStore::connect(url).await.unwrap());
        for user in 0..USERS {
            let tokens = cache.tokens(session(&format!("known-{user}")));
            tokens.insert("graph", token("0")).await.unwrap();
            assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
        }
        let leaver = cache.tokens(session("leaver"));
        leaver.insert("graph", token("0")).await.unwrap();
        assert_eq!(leaver.commit().await.unwrap(), Durability::Stored);
        Self {
            cache,
            admin: admin(&server),
            server,
            proxy,
            round: 0,
            kept: 0,
        }
    }

    /// Runs a command over a connection that was made before the fault.
    fn admin(&mut self, command: &str) {
        let mut parts = command.split(' ');
        let mut cmd = redis::cmd(parts.next().unwrap());
        cmd.arg(parts.collect::<Vec<_>>());
        cmd.exec(&mut self.admin).unwrap();
    }

    /// Closes the cache's connections, and no other.
    fn disconnect(&mut self) {
        self.admin("CLIENT KILL TYPE normal SKIPME yes");
    }

    /// Redis hears of it at once.
    async fn a_user_leaves(&self) {
        let leaver = self.cache.tokens(session("leaver"));
        assert_stored(leaver.sign_out().await.unwrap());
    }

    /// Users come, change and leave while the fault lasts, and it is one.
    async fn endure(&mut self) {
        let fault = Instant::now();
        while fault.elapsed() < FAULT {
            self.round += 1;
            self.users_in_l1_are_served().await;
            self.changes_are_accepted().await;
            self.unknown_users_do_not_wait().await;
        }
        let leaver = self.cache.tokens(session("leaver"));
        // Whether Redis has heard of it is up to the fault.
        let _ = in_time("a sign-out", leaver.sign_out()).await.unwrap();
        assert_eq!(access(&leaver, "graph").await, None, "gone at once");
        self.was_hurt();
    }

    async fn users_in_l1_are_served(&self) {
        let started = Instant::now();
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            for user in 0..USERS {
                let started = Instant::now();
                let tokens = self.cache.tokens(session(&format!("known-{user}")));
                assert!(tokens.get("graph").await.unwrap().is_hit());
                slowest = slowest.max(started.elapsed());
            }
        }
        // Not a measurement: one that asked Redis would wait for the attempt timeout.
        assert!(slowest < Duration::from_millis(150), "{slowest:?}");
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    async fn changes_are_accepted(&mut self) {
        let text = self.round.to_string();
        for user in 0..USERS {
            let tokens = self.cache.tokens(session(&format!("known-{user}")));
            let change = tokens.insert("graph", token(&text));
            in_time("a change", change).await.expect("accepted");
            assert_eq!(access(&tokens, "graph").await.as_ref(), Some(&text));
        }
        let tokens = self.cache.tokens(session("known-0"));
        let durability = in_time("a commit", tokens.commit()).await;
        self.kept += u32::from(durability.expect("or kept") == Durability::Pending);
    }

    async fn unknown_users_do_not_wait(&self) {
        let name = format!("unknown-{}", self.round);
        let tokens = self.cache.tokens(session(&name));
        let lookup = in_time("a read", tokens.get("graph")).await.unwrap();
        assert!(matches!(lookup, Lookup::Unavailable | Lookup::Absent));
        let change = tokens.insert("graph", token(&name));
        in_time("a first change", change).await.expect("accepted");
    }

    /// After the fault everything that was accepted is in Redis.
    async fn recovers(mut self) {
        self.proxy.set(Mode::Pass);
        drained(&self.cache).await;
        let stats = self.cache.stats();
        assert_eq!((stats.abandoned_changes, stats.signed_out_changes), (0, 0));
        // Another instance, past the proxy.
        let other = redis_cache(&self.server).await;
        for user in 0..USERS {
            let tokens = other.tokens(session(&format!("known-{user}")));
            let text = access(&tokens, "graph").await;
            assert_eq!(text, Some(self.round.to_string()), "known-{user}");
        }
        for round in 1..=self.round {
            let name = format!("unknown-{round}");
            let tokens = other.tokens(session(&name));
            assert_eq!(access(&tokens, "graph").await.as_ref(), Some(&name));
        }
        let leaver = other.tokens(session("leaver"));
        eventually("the sign-out is in L2", async || {
            leaver.reload().await.unwrap() && leaver.get("graph").await.unwrap() == Lookup::Absent
        })
        .await;
        // And it works as before.
        self.round += 1;
        self.kept = 0;
        let tokens = self.cache.tokens(session("known-0"));
        tokens.insert("graph", token("after")).await.unwrap();
        assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
    }

    /// The fault was one.
    fn was_hurt(&self) {
        assert!(self.cache.stats().l2_errors > 0, "no fault was seen");
        assert!(self.kept > 0, "no change had to wait");
    }
}

fn admin(server: &RedisServer) -> redis::Connection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_connection().unwrap()
}

async fn in_time<T>(what: &str, action: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let output = action.await;
    let waited = started.elapsed();
    assert!(waited < NOBODY_WAITS_LONGER, "{what} took {waited:?}");
    output
}

#[tokio::test]
async fn it_dies() {
    let mut service = Service::over(RedisServer::start_persistent()).await;
    service.server.kill();
    service.endure().await;
    service.server.restart();
    service.recovers().await;
}

#[tokio::test]
async fn it_hangs() {
    let mut service = Service::new().await;
    service.server.hang();
    service.endure().await;
    service.server.wake();
    service.recovers().await;
}

#[tokio::test]
async fn its_connections_are_half_open() {
    let mut service = Service::new().await;
    service.proxy.set(Mode::BlackHole);
    service.endure().await;
    service.proxy.reset().await;
    service.recovers().await;
}

#[tokio::test]
async fn its_connections_were_forgotten_on_the_way() {
    let mut service = Service::new().await;
    service.proxy.strand();
    // The connections are given up and replaced, without help.
    service.round += 1;
    service.changes_are_accepted().await;
    service.was_hurt();
    let tokens = service.cache.tokens(session("leaver"));
    // It may meet one that was not given up yet.
    let _ = in_time("a sign-out", tokens.sign_out()).await.unwrap();
    service.unknown_users_do_not_wait().await;
    let replaced = Instant::now();
    drained(&service.cache).await;
    assert!(replaced.elapsed() < Duration::from_secs(4));
    service.recovers().await;
}

#[tokio::test]
async fn its_answers_never_come() {
    let mut service = Service::new().await;
    service.proxy.set(Mode::BlackHoleAnswers);
    service.endure().await;
    service.recovers().await;
}

#[tokio::test]
async fn bytes_trickle() {
    let mut service = Service::new().await;
    service.proxy.set(Mode::Drip(Duration::from_millis(50)));
    service.endure().await;
    service.recovers().await;
}

#[tokio::test]
async fn connections_are_reset() {
    let mut service = Service::new().await;
    service.proxy.set(Mode::Reset);
    service.endure().await;
    service.recovers().await;
}

#[tokio::test]
async fn it_has_become_a_replica() {
    for stale in ["yes", "no"] {
        let mut service = Service::new().await;
        // READONLY to writes; MASTERDOWN to reads if it may not answer with old data.
        service.admin(&format!("CONFIG SET replica-serve-stale-data {stale}"));
        service.admin("REPLICAOF 127.0.0.1 1");
        service.endure().await;
        service.admin("REPLICAOF NO ONE");
        service.recovers().await;
    }
}

#[tokio::test]
async fn it_is_out_of_memory() {
    let mut service = Service::new().await;
    service.admin("CONFIG SET maxmemory 1");
    service.endure().await;
    service.admin("CONFIG SET maxmemory 0");
    service.recovers().await;
}

#[tokio::test]
async fn it_is_loading() {
    let mut service = Service::new().await;
    // Some four seconds' worth.
    let mut pipeline = redis::pipe();
    for number in 0..4000 {
        pipeline
            .set(format!("ballast-{number}"), vec![b'x'; 200])
            .ignore();
    }
    pipeline.exec(&mut service.admin).unwrap();
    service.admin("SAVE");
    service.server.kill();
    service.server.restart_loading_slowly();
    let mut loading = admin(&service.server);
    let answer: redis::RedisResult<String> = redis::cmd("GET").arg("x").query(&mut loading);
    assert_eq!(answer.unwrap_err().code(), Some("LOADING"));
    service.endure().await;
    service.recovers().await;
}

#[tokio::test]
async fn it_forgets_its_scripts() {
    let mut service = Service::new().await;
    for _ in 0..20 {
        service.admin("SCRIPT FLUSH");
        service.round += 1;
        service.changes_are_accepted().await;
        service.admin("SCRIPT FLUSH");
        service.unknown_users_do_not_wait().await;
    }
    assert_eq!(service.kept, 0, "loaded again without being noticed");
    service.admin("SCRIPT FLUSH");
    service.a_user_leaves().await;
    assert_eq!(service.cache.stats().l2_errors, 0);
    service.recovers().await;
}

#[tokio::test]
async fn it_takes_no_more_clients() {
    let mut service = Service::new().await;
    service.admin("CONFIG SET maxclients 1");
    service.disconnect();
    service.endure().await;
    service.admin("CONFIG SET maxclients 1000");
    service.recovers().await;
}

#[tokio::test]
async fn its_password_was_changed() {
    let mut service = Service::new().await;
    service.admin("CONFIG SET requirepass secret");
    service.disconnect();
    service.endure().await;
    service.admin("CONFIG SET requirepass ");
    service.recovers().await;
}

#[tokio::test]
async fn it_is_paused() {
    for what in ["ALL", "WRITE"] {
        let mut service = Service::new().await;
        service.admin(&format!("CLIENT PAUSE 2000 {what}"));
        service.endure().await;
        service.recovers().await;
    }
}

#[tokio::test]
async fn connections_are_reset_within_answers() {
    let mut service = Service::new().await;
    for _ in 0..4 {
        service.proxy.set(Mode::CutAnswerAfter(3));
        service.round += 1;
        service.users_in_l1_are_served().await;
        service.changes_are_accepted().await;
        service.proxy.spent().await;
        drained(&service.cache).await;
    }
    assert_eq!(service.cache.stats().l2_errors, 0, "nobody noticed");
    service.a_user_leaves().await;
    service.unknown_users_do_not_wait().await;
    for round in 1..service.round {
        let name = format!("unknown-{round}");
        let tokens = service.cache.tokens(session(&name));
        tokens.insert("graph", token(&name)).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    service.recovers().await;
}

#[tokio::test]
async fn an_answer_is_lost_and_the_commit_is_applied_once() {
    let server = RedisServer::start();
    // One who is told nothing: the answers that are lost are those to commits.
    server.query::<()>("ACL SETUSER deaf on nopass ~* +@all -client|tracking");
    let url = server.url().replace("redis://", "redis://deaf:x@");
    let (proxy, url) = Proxy::before(&url).await;
    let cache = cache(RedisStore::connect(url).await.unwrap());
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("0")).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
    let key = server.only_key();
    let version = || server.generation_and_version(&key).1;
    let calls = server.calls("evalsha");
    for number in 1..=5 {
        proxy.set(Mode::LoseAnswer);
        tokens
            .insert("graph", token(&number.to_string()))
            .await
            .unwrap();
        let durability = in_time("a commit", tokens.commit()).await.unwrap();
        assert_eq!(durability, Durability::Stored, "by another connection");
        assert_eq!(proxy.mode(), Mode::Pass, "the answer was lost");
        drained(&cache).await;
        assert_eq!(version(), 1 + number, "applied once");
    }
    // Where the lost answer was that to a ping, the commit has gone out once.
    assert!(server.calls("evalsha") > calls + 5, "some were sent again");
    let store = redis_store(&server).await;
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("5"));
}

#[tokio::test]
async fn what_is_damaged_leaves_the_rest_of_its_group_as_it_is() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    let mut group = Vec::new();
    for number in 0..5 {
        let key = session(&number.to_string());
        group.push(cache.partition_id(&key).await.unwrap());
        let tokens = cache.tokens(key);
        tokens.insert("graph", token("t")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    let name = |id: &PartitionId| format!("{}:{{{}}}", id.namespace(), id.encoded());
    // No hash, no record, and nothing.
    server.query::<()>(&format!("SET {} x", name(&group[0])));
    server.query::<()>(&format!("HSET {} h x", name(&group[2])));
    server.query::<()>(&format!("DEL {}", name(&group[3])));
    let loaded = redis_store(&server).await.load(&group).await;
    let loaded = loaded.into_iter().map(|it| it.unwrap());
    let loaded: Vec<_> = loaded.map(|it| (it.damaged, it.entries.len())).collect();
    assert_eq!(loaded, [(1, 0), (0, 1), (1, 0), (0, 0), (0, 1)]);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_goes_out_again_and_is_applied_once() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let store = RedisStore::connect(url).await.unwrap();
    let partition = PartitionId::for_tests("ns", "p");
    let commit = commit_of(&partition, [7; 8], 1, "value");
    // The script is there, so that the first command is the commit.
    assert!(store.touch(std::slice::from_ref(&partition)).await[0].is_ok());
    let elsewhere = PartitionId::for_tests("ns", "q");
    store
        .commit(&[commit_of(&elsewhere, [7; 8], 1, "value")])
        .await;
    proxy.set(Mode::LoseAnswer);
    let answer = store.commit(std::slice::from_ref(&commit)).await;
    let made = matches!(answer[0], Ok(Outcome::Committed { version: 1, .. }));
    assert!(made, "{answer:?}");
    assert_eq!(proxy.mode(), Mode::Pass, "the answer was lost");
    assert_eq!(
        load_one(&redis_store(&server).await, &partition)
            .await
            .unwrap()
            .version,
        1
    );
    for _ in 0..3 {
        let answer = store.commit(std::slice::from_ref(&commit)).await.remove(0);
        assert!(
            matches!(answer, Ok(Outcome::Committed { version: 1, .. })),
            "{answer:?}"
        );
    }
}
