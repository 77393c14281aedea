//! Sign-out, and cookies that come back after it.

use common::assert_stored;
use reqwest::{Method, StatusCode};
use tower_token_cache::cookie::CookieStore;
use tower_token_cache::seal::RingKey;
use tower_token_cache::{Clock, KeyRing, MemoryStore, Timestamp};

use super::jar::Jar;
use super::server::{HOUR, Provider, Server, builder};
use common::eventually;
use common::store::TestStore;

#[tokio::test]
async fn sign_out_removes_the_cookies_and_refuses_copies() {
    let server = Server::new(builder()).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/tokens/graph", "t").await;
    let mut copied = jar.clone();
    let answer = jar.send(server.address, Method::DELETE, "/session").await;
    assert_eq!((answer.body.as_str(), jar.0.len()), ("Stored", 0));
    assert_eq!(
        copied.get(server.address, "/tokens/graph").await.body,
        "Absent"
    );
    assert_eq!(copied.0.len(), 0);
}

#[tokio::test]
async fn planted_cookies_have_no_part_in_what_comes_after_a_sign_in() {
    let server = Server::new(builder()).await;
    let mut mallory = Jar::default();
    mallory.post(server.address, "/tokens/other", "m").await;
    let mut ada = mallory.clone();
    ada.post(server.address, "/session", "t").await;
    assert_eq!(ada.get(server.address, "/tokens/graph").await.body, "t");
    assert_eq!(
        ada.get(server.address, "/tokens/other").await.body,
        "Absent"
    );
    assert_eq!(
        mallory.get(server.address, "/tokens/graph").await.body,
        "Absent"
    );
    assert_eq!(mallory.0.len(), 0);
    assert_eq!(ada.get(server.address, "/tokens/graph").await.body, "t");
}

#[tokio::test]
async fn with_a_store_every_instance_refuses_copies_for_as_long_as_they_could_live() {
    let clock = Clock::manual(Timestamp::now());
    let store = MemoryStore::new().with_clock(clock.clone());
    let cookies = CookieStore::builder(KeyRing::generate().unwrap())
        .sign_outs_in(store)
        .clock(clock.clone());
    let one = Server::new(cookies.clone()).await;
    let two = Server::new(cookies.clone()).await;
    let mut jar = Jar::default();
    jar.post(one.address, "/refresh", "36000000").await;
    assert_eq!(jar.get(two.address, "/tokens/graph").await.body, "first");
    let copied = jar.clone();
    jar.send(one.address, Method::DELETE, "/session").await;
    for wait in [0, 30, 250] {
        clock.advance(HOUR * wait);
        let three = Server::new(cookies.clone()).await;
        for at in [two.address, three.address] {
            let mut copied = copied.clone();
            let answer = copied.get(at, "/tokens/graph").await;
            assert_eq!(answer.body, "Absent", "after {wait} hours");
            assert_eq!(copied.0.len(), 0, "after {wait} hours");
        }
    }
    // A new life of the same session is another matter.
    let mut again = Jar::default();
    again.post(one.address, "/refresh", "36000000").await;
    again.post(two.address, "/session", "t").await;
    for at in [one.address, two.address] {
        assert_eq!(again.get(at, "/tokens/graph").await.body, "t");
    }
}

#[tokio::test]
async fn with_a_store_a_user_can_be_signed_out_everywhere() {
    let cookies =
        CookieStore::builder(KeyRing::generate().unwrap()).sign_outs_in(MemoryStore::new());
    let one = Server::new(cookies.clone()).await;
    let two = Server::new(cookies.clone()).await;
    let mut phone = Jar::default();
    let mut desktop = Jar::default();
    phone.post(one.address, "/session", "t1").await;
    desktop.post(two.address, "/session", "t2").await;
    let three = Server::new(cookies).await;
    assert_eq!(three.cache.sessions_of("ada").await.unwrap().len(), 2);
    assert_stored(three.cache.sign_out_user("ada").await.unwrap());
    for at in [one.address, two.address, three.address] {
        for jar in [&phone, &desktop] {
            let answer = jar.clone().get(at, "/tokens/graph").await;
            assert_eq!(answer.body, "Absent");
        }
    }
}

#[tokio::test]
async fn without_an_answer_nobody_is_believed_and_nothing_is_lost_silently() {
    let sign_outs = TestStore::default();
    let cookies = CookieStore::builder(KeyRing::generate().unwrap());
    let server = Server::new(cookies.sign_outs_in(sign_outs.clone())).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/tokens/graph", "t").await;
    let before = jar.clone();
    sign_outs.set_down(true);
    let found = jar.get(server.address, "/tokens/graph").await;
    assert_eq!(found.body, "Unavailable");
    let changed = jar.post(server.address, "/tokens/mail", "t").await;
    assert_eq!(changed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(jar.0, before.0, "the session is still there");
    // The cookies go at once, and the others are told later.
    let signed_out = jar.send(server.address, Method::DELETE, "/session").await;
    assert_eq!(signed_out.body, "Pending");
    assert_eq!(jar.0.len(), 0);
    let clears = sign_outs.clears();
    sign_outs.set_down(false);
    eventually("the sign-out is replayed", async || {
        sign_outs.clears() > clears && server.cache.stats().pending_changes == 0
    })
    .await;
    let mut copied = before;
    eventually("the copy is refused", async || {
        copied
            .clone()
            .get(server.address, "/tokens/graph")
            .await
            .body
            == "Absent"
    })
    .await;
    copied.get(server.address, "/tokens/graph").await;
    assert_eq!(copied.0.len(), 0);
}

/// Copied cookies are renewed by nothing that does not ask the fleet whether they are still good: a
/// page without tokens, an instance that has a newer state of the session, another key of the ring,
/// a request that begins before the sign-out and ends long after it.
#[tokio::test]
async fn the_mark_of_a_sign_out_outlives_every_copy() {
    let key = |byte| RingKey::from_bytes([byte; 32]);
    let rings = [
        KeyRing::from_keys_named_by(key(1), key(1), []),
        KeyRing::from_keys_named_by(key(1), key(2), [key(1)]),
    ];
    for use_of_session in ["none", "newer state", "another key", "long request"] {
        let clock = Clock::manual(Timestamp::now());
        let marks = MemoryStore::new().with_clock(clock.clone());
        let cookies = |ring: &KeyRing| {
            CookieStore::builder(ring.clone())
                .max_age(HOUR * 48)
                .sign_outs_in(marks.clone())
                .clock(clock.clone())
        };
        let held = Provider {
            held: true,
            ..Provider::default()
        };
        let one = Server::new(cookies(&rings[0])).await;
        let two = Server::with(cookies(&rings[0]), held).await;
        let three = Server::new(cookies(&rings[1])).await;
        let mut ada = Jar::default();
        ada.post(one.address, "/refresh", "36000000").await;
        let mut thief = ada.clone();
        let at = match use_of_session {
            "another key" => three.address,
            _ => two.address,
        };
        if use_of_session == "newer state" {
            ada.post(at, "/tokens/other", "t").await;
        }
        let long = match use_of_session {
            "long request" => {
                let jar = thief.clone();
                let request = jar.request(at, Method::POST, "/tokens/long", "held");
                let request = tokio::spawn(request);
                two.provider.asked().await;
                Some(request)
            }
            _ => None,
        };
        let signed_out = ada.send(one.address, Method::DELETE, "/session").await;
        assert_eq!(signed_out.body, "Stored");
        clock.advance(HOUR * 24);
        if let Some(long) = long {
            two.provider.open.notify_one();
            thief.take(&long.await.unwrap().lines);
        }
        thief.get(at, "/page").await;
        clock.advance(HOUR * 24 + HOUR / 2);
        let late = thief.get(two.address, "/tokens/graph").await;
        assert_eq!(late.body, "Absent", "{use_of_session}");
    }
}
