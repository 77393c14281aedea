//! The feed of Redis while servers pause, connections stall and passwords change: what was signed out elsewhere is
//! not served for longer than is said, and the feed comes back by itself.

use std::time::{Duration, Instant};

use common::feed::Listener;
use common::proxy::{Mode, Proxy};
use common::support::*;
use common::topologies::{Certificates, Node};
use tower_token_cache::sabotage::{self, Sabotage};
use tower_token_cache::{Durability, FailurePolicy, RedisStore, TokenCache, Tokens};

use super::log::Log;

/// A proof is believed for so long.
const TRUST: Duration = Duration::from_secs(3);
/// Memory is compared so often where nothing is proven.
const RECHECK: Duration = Duration::from_secs(1);
/// For a busy machine.
const ROOM: Duration = Duration::from_millis(500);
/// What a feed that cannot connect may try in five seconds: four times at first, and then each second.
const ATTEMPTS: u64 = 12;

/// An instance that is asked, and another one that signs users out.
struct Fleet {
    here: TokenCache,
    there: TokenCache,
    round: u32,
}

impl Fleet {
    async fn of(here: RedisStore, there: RedisStore) -> Self {
        let fleet = Self {
            here: cache(here),
            there: cache(there),
            round: 0,
        };
        hears(&fleet.here).await;
        hears(&fleet.there).await;
        fleet
    }

    /// A session that this instance has in memory, as the store has it. No read of it is answered unless it is known.
    async fn known(&mut self) -> Known {
        self.round += 1;
        let key = session(&self.round.to_string());
        let theirs = self.there.tokens(key.clone());
        theirs.insert("graph", token("t")).await.unwrap();
        assert_stored(theirs.commit().await.unwrap());
        let ours = self.here.tokens(key);
        ours.set_failure_policy(FailurePolicy::Strict);
        let known = Known { ours, theirs };
        eventually("it is in memory", async || {
            let reads = self.here.stats().l2_reads;
            known.is_served().await && self.here.stats().l2_reads == reads
        })
        .await;
        known
    }

    /// A sign-out elsewhere ends the hits here in time.
    async fn a_sign_out_holds_within(&mut self, bound: Duration) {
        let known = self.known().await;
        let began = Instant::now();
        assert_stored(known.theirs.sign_out().await.unwrap());
        known.ends_by(began + bound).await;
    }

    async fn is_lost(&self) {
        eventually("the feed is lost", async || {
            self.here.stats().feed_alive == Some(false)
        })
        .await;
    }
}

struct Known {
    ours: Tokens,
    theirs: Tokens,
}

impl Known {
    async fn is_served(&self) -> bool {
        self.ours.get("graph").await.is_ok_and(|it| it.is_hit())
    }

    /// No hit is served after this time.
    async fn ends_by(&self, deadline: Instant) {
        while self.is_served().await {
            let late = Instant::now().saturating_duration_since(deadline + ROOM);
            assert!(late.is_zero(), "served {late:?} too long");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// One who sends commands over a connection of its own, which stays.
struct Admin(redis::Connection);

impl Admin {
    fn of(url: &str) -> Self {
        let client = redis::Client::open(url).unwrap();
        Self(client.get_connection().unwrap())
    }

    fn run<T: redis::FromRedisValue>(&mut self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query(&mut self.0).unwrap()
    }

    /// Cuts the connections by which instances are told, and no other.
    fn cut_feeds(&mut self) {
        let clients: String = self.run("CLIENT LIST");
        for client in clients.lines() {
            let field = |name: &str| client.split(' ').find_map(|field| field.strip_prefix(name));
            if field("flags=").unwrap().contains('t') {
                let _: u64 = self.run(&format!("CLIENT KILL ID {}", field("id=").unwrap()));
            }
        }
    }

    fn connections(&mut self) -> u64 {
        let stats: String = self.run("INFO stats");
        let count = |line: &str| {
            line.strip_prefix("total_connections_received:")?
                .parse()
                .ok()
        };
        stats.lines().find_map(count).unwrap()
    }
}

#[tokio::test]
async fn over_tls_it_tells_and_comes_back_after_a_restart() {
    let made = Certificates::make();
    let file = |name| made.path(name).display().to_string();
    let mut server = Node::start(&format!(
        "port 0\ntls-port {{port}}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         tls-auth-clients no",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    ));
    let store = || {
        let store = RedisStore::builder(format!("rediss://127.0.0.1:{}", server.port));
        let store = store.response_timeout(Duration::from_secs(1));
        store
            .root_certificates(made.read("ca.pem"))
            .build()
            .unwrap()
    };
    let mut fleet = Fleet::of(store(), store()).await;
    let told = fleet.here.stats().feed_hints;
    fleet.a_sign_out_holds_within(Duration::ZERO).await;
    assert!(fleet.here.stats().feed_hints > told);
    for _ in 0..2 {
        let known = fleet.known().await;
        server.kill();
        fleet.is_lost().await;
        known.ends_by(Instant::now() + RECHECK).await;
        server.restart();
        hears(&fleet.here).await;
        hears(&fleet.there).await;
        fleet.a_sign_out_holds_within(Duration::ZERO).await;
    }
}

/// The password of a user changes, and then connections are cut: first the one that tells, then all.
#[tokio::test]
async fn a_password_that_has_changed_ends_the_trust_and_floods_nothing() {
    let (log, _guard) = Log::begin();
    let server = RedisServer::start();
    let mut admin = Admin::of(&server.url());
    let _: () = admin.run("ACL SETUSER tokens on >old ~* +@all");
    let with = |password: &str| server.url().replace("//", &format!("//tokens:{password}@"));
    let old = RedisStore::connect(with("old")).await.unwrap();
    let new = RedisStore::connect(with("new")).await.unwrap();
    let _: () = admin.run("ACL SETUSER tokens on >new");
    let mut fleet = Fleet::of(old, new).await;
    let _: () = admin.run("ACL SETUSER tokens resetpass >new");
    // Connections stay what they were.
    fleet.a_sign_out_holds_within(Duration::ZERO).await;
    assert_eq!(fleet.here.stats().feed_alive, Some(true));
    admin.cut_feeds();
    fleet.is_lost().await;
    hears(&fleet.there).await;
    let (began, connections) = (Instant::now(), admin.connections());
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(fleet.here.stats().feed_alive, Some(false));
        assert!(fleet.here.stats().staleness_bound <= Some(RECHECK));
        fleet.a_sign_out_holds_within(RECHECK).await;
    }
    let attempts = admin.connections() - connections;
    assert!(attempts <= ATTEMPTS, "{attempts} attempts");
    let all = || log.lines("").join("\n");
    let said = log.lines("does not tell");
    assert!(
        said.len() == 1 && said[0].contains("WRONGPASS"),
        "{}",
        all()
    );

    let known = fleet.known().await;
    let _: redis::Value = admin.run("CLIENT KILL TYPE normal SKIPME yes");
    known.ends_by(Instant::now() + RECHECK).await;
    let (began, connections) = (Instant::now(), admin.connections());
    while began.elapsed() < Duration::from_secs(5) {
        assert!(!known.is_served().await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let attempts = admin.connections() - connections;
    // Of its feed and its store; what the other one needed is among them.
    assert!(attempts <= 2 * ATTEMPTS, "{attempts} attempts");
    assert_eq!(log.lines("cannot be connected to").len(), 1, "{}", all());

    // Both hold while the new one is rolled out.
    let _: () = admin.run("ACL SETUSER tokens >old");
    hears(&fleet.here).await;
    eventually("it is served again", async || known.is_served().await).await;
    fleet.a_sign_out_holds_within(Duration::ZERO).await;
    assert_eq!(log.lines("tells what changes again").len(), 1, "{}", all());
}

#[tokio::test]
async fn a_server_that_pauses_writes_tells_and_one_that_pauses_all_is_not_believed() {
    let server = RedisServer::start();
    let mut admin = Admin::of(&server.url());
    let mut fleet = Fleet::of(redis_store(&server).await, redis_store(&server).await).await;
    let known = fleet.known().await;
    let began = Instant::now();
    let _: () = admin.run("CLIENT PAUSE 4000 WRITE");
    let held = known.theirs.sign_out().await.unwrap();
    assert_eq!(
        held,
        Durability::Pending,
        "nothing is acknowledged meanwhile"
    );
    while began.elapsed() < Duration::from_millis(3900) {
        assert_eq!(fleet.here.stats().feed_alive, Some(true));
        assert!(known.is_served().await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    eventually("the sign-out is written, and told", async || {
        !known.is_served().await
    })
    .await;
    fleet.a_sign_out_holds_within(Duration::ZERO).await;

    // A feed that begins meanwhile finds out nothing, and begins after it.
    let _: () = admin.run("CLIENT PAUSE 60000 WRITE");
    let mut late = Listener::silent(&redis_store(&server).await, "test");
    late.proves_nothing(Duration::from_secs(2)).await;
    let _: () = admin.run("CLIENT UNPAUSE");
    assert!(late.until_now().await.everything);

    let known = fleet.known().await;
    let began = Instant::now();
    let _: () = admin.run("CLIENT PAUSE 6000 ALL");
    known.ends_by(began + TRUST).await;
    assert_eq!(fleet.here.stats().feed_alive, Some(false));
    assert_eq!(fleet.here.stats().staleness_bound, None);
    while began.elapsed() < Duration::from_millis(5900) {
        assert!(!known.is_served().await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    hears(&fleet.here).await;
    hears(&fleet.there).await;
    eventually("it is served again", async || known.is_served().await).await;
    fleet.a_sign_out_holds_within(Duration::ZERO).await;
}

/// Bytes of the connection that tells stay on their way, all others pass: nothing that comes by those is a proof.
#[tokio::test]
async fn a_feed_that_stalls_alone_is_not_believed() {
    stalls_alone().await;
}

/// The test above notices an engine that takes what comes by the store's own connections for a proof.
#[tokio::test]
#[should_panic(expected = "too long")]
async fn an_answer_of_another_connection_that_is_taken_for_a_proof_is_noticed() {
    sabotage::choose(Some(Sabotage::AnswerTakenForProof));
    stalls_alone().await;
}

async fn stalls_alone() {
    let server = RedisServer::start();
    let mut admin = Admin::of(&server.url());
    let (proxy, url) = Proxy::before(&server.url()).await;
    let store = RedisStore::connect(url).await.unwrap();
    let mut fleet = Fleet::of(store, redis_store(&server).await).await;
    for _ in 0..2 {
        let known = fleet.known().await;
        let (began, connections) = (Instant::now(), admin.connections());
        proxy.set(Mode::Hold("TRACKING"));
        assert_stored(known.theirs.sign_out().await.unwrap());
        known.ends_by(began + TRUST).await;
        while began.elapsed() < Duration::from_secs(5) {
            fleet
                .a_sign_out_holds_within(RECHECK.max(TRUST.saturating_sub(began.elapsed())))
                .await;
        }
        assert_eq!(fleet.here.stats().feed_alive, Some(false));
        let attempts = admin.connections() - connections;
        assert!(attempts <= ATTEMPTS, "{attempts} attempts");
        proxy.set(Mode::Pass);
        hears(&fleet.here).await;
        fleet.a_sign_out_holds_within(Duration::ZERO).await;
    }
}

/// A stall that is shorter than the patience of a proof costs nothing.
#[tokio::test]
async fn a_feed_that_stalls_for_a_moment_stays() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let store = RedisStore::connect(url).await.unwrap();
    let mut fleet = Fleet::of(store, redis_store(&server).await).await;
    for _ in 0..5 {
        let known = fleet.known().await;
        proxy.set(Mode::Hold("TRACKING"));
        assert_stored(known.theirs.sign_out().await.unwrap());
        tokio::time::sleep(Duration::from_millis(400)).await;
        proxy.set(Mode::Pass);
        known.ends_by(Instant::now()).await;
        assert_eq!(fleet.here.stats().feed_alive, Some(true));
    }
}

/// Each of these passes by itself, so that the feed tries again soon, and does not take it for a refusal.
#[tokio::test]
async fn what_passes_by_itself_is_no_refusal() {
    const SOON: Duration = Duration::from_secs(4);
    let server = RedisServer::start();
    let mut admin = Admin::of(&server.url());
    let mut other = Admin::of(&server.url());
    let _: () = admin.run("CONFIG SET busy-reply-threshold 1");
    let _: () = admin.run("ACL SETUSER tokens on >x ~* +@all");
    // What a server without room says may be lost where nothing is in between.
    let (_proxy, url) = Proxy::before(&server.url().replace("//", "//tokens:x@")).await;
    for (begins, ends) in [
        ("CONFIG SET maxclients 1", "CONFIG SET maxclients 1000"),
        ("ACL SETUSER tokens off", "ACL SETUSER tokens on"),
        ("ACL SETUSER tokens resetpass", "ACL SETUSER tokens >x"),
        ("EVAL", "SCRIPT KILL"),
    ] {
        let (log, _guard) = Log::begin();
        let store = RedisStore::connect(url.clone()).await.unwrap();
        let mut listener = Listener::on(&store, "test").await;
        let script = match begins {
            "EVAL" => {
                let mut busy = Admin::of(&server.url());
                let script = redis::cmd("EVAL").arg("while true do end").arg(0).clone();
                Some(std::thread::spawn(move || script.exec(&mut busy.0)))
            }
            _ => {
                let _: () = admin.run(begins);
                None
            }
        };
        if script.is_none() {
            admin.cut_feeds();
        }
        listener.until_lost().await;
        listener.proves_nothing(Duration::from_secs(2)).await;
        let _: () = other.run(ends);
        drop(script.map(std::thread::JoinHandle::join));
        let began = Instant::now();
        assert!(listener.until_now().await.everything);
        let took = began.elapsed();
        let all = log.lines("").join("\n");
        assert!(took < SOON, "{begins}: {took:?}, {all}");
        assert_eq!(log.lines("needs the right").len(), 0, "{begins}: {all}");
        assert!(!log.lines("does not tell").is_empty(), "{begins}: {all}");
    }
}

/// Each of these lasts until an operator acts: one line says so, and attempts are rare.
#[tokio::test]
async fn a_refusal_is_one_line_and_no_flood() {
    let renamed = ["HELLO", "CLIENT", "PING"];
    let nodes = renamed.map(|it| Node::start(&format!("rename-command {it} \"\"")));
    let poor = Node::start("user default on nopass ~* +@all -client|tracking");
    let old = server_without_resp3().await;
    let mut servers = nodes.each_ref().map(|it| it.port).to_vec();
    servers.extend([poor.port, old]);
    for port in servers {
        let (log, _guard) = Log::begin();
        let (proxy, url) = Proxy::before(&format!("redis://127.0.0.1:{port}")).await;
        let store = RedisStore::connect(url).await.unwrap();
        let mut listener = Listener::silent(&store, "test");
        listener.proves_nothing(Duration::from_secs(3)).await;
        let all = log.lines("").join("\n");
        assert_eq!(log.lines("needs the right").len(), 1, "{all}");
        assert_eq!(log.lines(" WARN").len(), 1, "{all}");
        assert_eq!(proxy.accepted(), 1, "{all}");
    }
}

/// What a server before 6.0 says to whatever it is asked first.
async fn server_without_resp3() -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            while let Ok(read @ 1..) = client.read(&mut bytes).await {
                let commands = bytes[..read].iter().filter(|it| **it == b'*').count();
                let answer = "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n";
                let _ = client.write_all(answer.repeat(commands).as_bytes()).await;
            }
        }
    });
    port
}

/// Connections that are cut again and again, those that tell or all: they are made less and less often, and what the
/// log says of it does not grow with them.
#[tokio::test]
async fn connections_that_are_cut_again_and_again_flood_nothing() {
    for all in [false, true] {
        let (log, _guard) = Log::begin();
        let server = RedisServer::start();
        let mut admin = Admin::of(&server.url());
        let mut fleet = Fleet::of(redis_store(&server).await, redis_store(&server).await).await;
        let known = fleet.known().await;
        let (began, connections) = (Instant::now(), admin.connections());
        while began.elapsed() < Duration::from_secs(6) {
            match all {
                false => admin.cut_feeds(),
                true => drop(admin.run::<redis::Value>("CLIENT KILL TYPE normal SKIPME yes")),
            }
            let _ = known.is_served().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let attempts = admin.connections() - connections;
        let logged = || log.lines("").join("\n");
        // Those of the store are made as they are needed.
        assert!(all || attempts <= 2 * ATTEMPTS, "{attempts} attempts");
        // Three reasons of two feeds, and of two stores.
        for line in [
            "does not tell",
            "tells what changes again",
            "cannot be connected to",
            "connected to Redis again",
        ] {
            assert!(log.lines(line).len() <= 6, "{line}: {}", logged());
        }
        hears(&fleet.here).await;
        hears(&fleet.there).await;
        fleet.a_sign_out_holds_within(Duration::ZERO).await;
    }
}
