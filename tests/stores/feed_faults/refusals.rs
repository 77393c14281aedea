//! Servers that refuse, for good or for a while, and connections that are cut again and again: the feed comes back, and
//! neither the log nor the server is flooded.

use std::time::{Duration, Instant};

use common::feed::Listener;
use common::proxy::Proxy;
use common::support::*;
use common::topologies::Node;
use tower_token_cache::RedisStore;

use super::super::log::Log;
use super::{ATTEMPTS, Admin, Fleet, RECHECK};

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
    // One of them is here. That of the other one, which was cut as well, says so if it was steady before.
    let again = log.lines("tells what changes again").len();
    assert!((1..=2).contains(&again), "{}", all());
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
