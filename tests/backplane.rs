//! The backplane over a real Redis that fails as servers and networks do. What follows from lost
//! and reordered messages is tested in paused time, in `src/backplane/tests.rs`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::{Duration, Instant};

use common::instance::{Instance, RECOVERED, invalidation};
use common::proxy::{Mode, Proxy};
use common::redis::RedisServer;
use tokio::time::timeout;
use tower_token_cache::backplane::{Event, KeepAlive, MAX_MESSAGE};
use tower_token_cache::{MemoryBackplane, RedisBackplane};

/// The documented bound on what goes unnoticed, and some room for a busy machine.
const NOTICED: Duration = Duration::from_millis(3_250 + 1_500);

#[tokio::test]
async fn a_message_reaches_the_others_in_milliseconds_and_not_its_sender() {
    let server = RedisServer::start();
    let mut a = Instance::on(&server.url()).await;
    let mut b = Instance::on(&server.url()).await;
    let mut fastest = Duration::MAX;
    for number in 0..50 {
        let published = Instant::now();
        a.publish(number);
        b.hears(number).await;
        fastest = fastest.min(published.elapsed());
    }
    assert!(fastest < Duration::from_millis(20), "{fastest:?}");
    b.publish(100);
    let own =
        |event: &Event| matches!(event, Event::Invalidated(batch) if *batch != [invalidation(100)]);
    let heard = async {
        loop {
            let event = a.events.next().await;
            assert!(!own(&event), "its own message: {event:?}");
            if matches!(event, Event::Invalidated(_)) {
                return;
            }
        }
    };
    timeout(RECOVERED, heard)
        .await
        .expect("the other's message");
}

#[tokio::test]
async fn it_needs_no_more_rights_than_documented() {
    let server = RedisServer::start();
    server.command(&[
        b"ACL",
        b"SETUSER",
        b"app",
        b"on",
        b">secret",
        b"+publish",
        b"+subscribe",
        b"resetchannels",
        b"&ns:invalidate",
    ]);
    let url = server.url().replace("redis://", "redis://app:secret@");
    let mut a = Instance::on(&url).await;
    let b = Instance::on(&url).await;
    b.publish(1);
    a.hears(1).await;
    let backplane = RedisBackplane::builder(&*url);
    assert!(!format!("{backplane:?}").contains("secret"));
    assert!(!format!("{:?}", backplane.build().unwrap()).contains("secret"));
}

#[tokio::test]
async fn a_killed_subscription_is_noticed_and_made_again() {
    let server = RedisServer::start();
    let mut a = Instance::on(&server.url()).await;
    let mut b = Instance::on(&server.url()).await;
    let killed: u64 = server.query("CLIENT KILL TYPE pubsub");
    assert_eq!(killed, 2);
    // At once, not after the keep-alive.
    b.lost(Duration::from_secs(2)).await;
    b.alive(RECOVERED).await;
    a.lost(RECOVERED).await;
    a.alive(RECOVERED).await;
    a.publish(1);
    b.hears(1).await;
}

#[tokio::test]
async fn a_killed_publisher_is_made_again_and_its_messages_are_sent() {
    let server = RedisServer::start();
    let a = Instance::on(&server.url()).await;
    let clients: String = server.query("CLIENT LIST TYPE normal");
    let publisher = clients.lines().find(|line| line.contains("cmd=publish"));
    let id = publisher.unwrap().split(' ').next().unwrap();
    let id = id.strip_prefix("id=").unwrap();
    let mut b = Instance::on(&server.url()).await;
    assert_eq!(server.query::<u64>(&format!("CLIENT KILL ID {id}")), 1);
    a.publish(1);
    b.hears(1).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_within_the_keep_alive() {
    let server = RedisServer::start();
    let mut a = Instance::on(&server.url()).await;
    server.hang();
    let hung = Instant::now();
    a.lost(NOTICED).await;
    assert!(!a.publisher.is_alive());
    let unheard = a.publisher.unheard_for();
    assert!(
        unheard + Duration::from_secs(1) >= hung.elapsed(),
        "{unheard:?}"
    );
    a.publish(1);
    server.wake();
    a.alive(RECOVERED).await;
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back_is_joined_again() {
    let mut server = RedisServer::start();
    let a = Instance::on(&server.url()).await;
    let mut b = Instance::on(&server.url()).await;
    server.kill();
    b.lost(Duration::from_secs(2)).await;
    // Sent as soon as there is a server, which may be before B is back: then it is of the gap.
    let published = Instant::now();
    a.publish(1);
    server.restart();
    let mut covered = false;
    while !covered {
        let next = timeout(RECOVERED, b.events.next()).await;
        covered = match next.expect("an event") {
            Event::Alive { since } => since.into_std() >= published,
            _ => false,
        };
    }
    a.publish(2);
    b.hears(2).await;
}

#[tokio::test]
async fn it_need_not_be_up_when_the_cache_is_built() {
    let mut server = RedisServer::start();
    server.kill();
    let backplane = RedisBackplane::connect(server.url()).await.unwrap();
    let mut a = Instance::open(backplane);
    assert!(!a.publisher.is_alive());
    server.restart();
    a.alive(RECOVERED).await;
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let mut a = Instance::on(&url).await;
    let mut b = Instance::on(&server.url()).await;
    // A's heartbeats have arrived at B.
    a.publish(1);
    b.hears(1).await;
    proxy.set(Mode::BlackHole);
    a.publish(2);
    // Both know: A hears nothing, and B nothing from A.
    a.lost(NOTICED).await;
    b.lost(NOTICED).await;
    proxy.reset().await;
    b.hears(2).await;
    a.alive(RECOVERED).await;
    while !b.publisher.is_alive() {
        b.alive(RECOVERED).await;
    }
}

#[tokio::test]
async fn a_connection_that_was_forgotten_on_the_way_is_noticed_and_replaced() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let mut a = Instance::on(&url).await;
    let b = Instance::on(&server.url()).await;
    proxy.strand();
    b.publish(1);
    a.lost(NOTICED).await;
    a.alive(RECOVERED).await;
    b.publish(2);
    a.hears(2).await;
}

#[tokio::test]
async fn answers_that_never_come_are_noticed() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let mut a = Instance::on(&url).await;
    for mode in [
        Mode::BlackHoleAnswers,
        Mode::Drip(Duration::from_millis(200)),
    ] {
        proxy.set(mode);
        a.lost(NOTICED).await;
        proxy.set(Mode::Pass);
        a.alive(RECOVERED).await;
    }
    for mode in [Mode::LoseAnswer, Mode::CutAnswerAfter(3)] {
        proxy.set(mode);
        proxy.spent().await;
        a.lost(NOTICED).await;
        a.alive(RECOVERED).await;
    }
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_repeated_and_harmless() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let a = Instance::on(&url).await;
    let mut b = Instance::on(&server.url()).await;
    a.publish(1);
    b.hears(1).await;
    proxy.set(Mode::LoseAnswer);
    a.publish(2);
    b.hears(2).await;
    a.publish(3);
    b.hears(3).await;
}

#[tokio::test]
async fn foreign_messages_are_counted_and_harmless() {
    let server = RedisServer::start();
    let a = Instance::on(&server.url()).await;
    let mut b = Instance::on(&server.url()).await;
    let huge = vec![b'x'; 20 * MAX_MESSAGE];
    let garbage: [&[u8]; 5] = [b"", b"hello", b"ttcb", b"ttcb\x01\x01", &huge];
    for message in garbage {
        server.command(&[b"PUBLISH", b"ns:invalidate", message]);
    }
    a.publish(1);
    b.hears(1).await;
    assert_eq!(b.stats().foreign, 5);
    assert!(b.publisher.is_alive());
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_again() {
    let server = RedisServer::start();
    let mut a = Instance::on(&server.url()).await;
    server.query::<()>("CONFIG SET requirepass secret");
    let with_password = server.url().replace("redis://", "redis://:secret@");
    let client = redis::Client::open(with_password).unwrap();
    let mut admin = client.get_connection().unwrap();
    let mut run = |command: &[&str]| {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]).exec(&mut admin).unwrap();
    };
    // Those that are connected stay; those that come are refused.
    run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    a.lost(NOTICED).await;
    let joined = a.stats().joined;
    let event = timeout(Duration::from_millis(500), a.events.next()).await;
    assert!(event.is_err(), "{event:?}");
    assert_eq!(a.stats().joined, joined);
    run(&["CONFIG", "SET", "requirepass", ""]);
    a.alive(RECOVERED).await;
}

#[tokio::test]
async fn who_leaves_is_not_missed() {
    let server = RedisServer::start();
    let a = Instance::on(&server.url()).await;
    let short = KeepAlive::default()
        .heartbeat(Duration::from_millis(500))
        .lost_after(Duration::from_secs(1));
    let b = RedisBackplane::builder(server.url()).keep_alive(short);
    let mut b = Instance::over(b.build().unwrap()).await;
    a.publish(1);
    b.hears(1).await;
    a.publish(2);
    a.publisher.close().await;
    b.hears(2).await;
    let clients = async || {
        let clients: String = server.query("CLIENT LIST TYPE pubsub");
        clients.lines().count() == 1
    };
    common::eventually("the connection is closed", clients).await;
    // Only longer than a silent instance would be trusted.
    let since = tokio::time::sleep(Duration::from_secs(4));
    since.await;
    assert!(b.publisher.is_alive());
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_a_configuration_error() {
    for url in ["http://:secret@host", "", "redis://:secret@"] {
        let error = RedisBackplane::connect(url).await.unwrap_err();
        assert_eq!(error.option(), "url");
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
    let bad = KeepAlive::default().lost_after(Duration::ZERO);
    let builder = RedisBackplane::builder("redis://localhost").keep_alive(bad);
    assert_eq!(builder.build().unwrap_err().option(), "lost_after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn caches_of_one_process_hear_each_other() {
    let backplane = MemoryBackplane::new();
    let a = Instance::over(backplane.clone()).await;
    let mut b = Instance::over(backplane).await;
    a.publish(1);
    b.hears(1).await;
}
