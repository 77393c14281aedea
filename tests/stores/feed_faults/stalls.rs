//! Servers that restart or pause, and connections that stall.

use std::time::{Duration, Instant};

use common::feed::Listener;
use common::proxy::{Mode, Proxy};
use common::support::*;
use common::topologies::{Certificates, Node};
use tower_token_cache::mutation::{self, Mutation};
use tower_token_cache::{Durability, RedisStore};

use super::{ATTEMPTS, Admin, Fleet, RECHECK, TRUST};

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
    loop {
        let feed_alive = fleet.here.stats().feed_alive;
        let is_served = known.is_served().await;
        if began.elapsed() >= Duration::from_millis(3900) {
            break;
        }
        assert_eq!((feed_alive, is_served), (Some(true), true));
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
    loop {
        let is_served = known.is_served().await;
        // An answer that was waited for until then is one of the time after the pause.
        if began.elapsed() >= Duration::from_millis(5900) {
            break;
        }
        assert!(!is_served);
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
    mutation::choose(Some(Mutation::AnswerTakenForProof));
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
