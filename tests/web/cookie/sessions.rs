//! What a session in cookies can do.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use tower_token_cache::cookie::{CookieStore, SameSite};
use tower_token_cache::seal::{DirRepository, RingKey};
use tower_token_cache::{Clock, KeyRing, Lifetimes, Timestamp};

use super::jar::Jar;
use super::server::{HOUR, Provider, Server, builder, text};
use common::eventually;

fn names(jar: &Jar) -> Vec<&str> {
    jar.0.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_session_goes_with_its_browser_to_any_instance() {
    let ring = KeyRing::generate().unwrap();
    let one = Server::new(CookieStore::builder(ring.clone())).await;
    let two = Server::new(CookieStore::builder(ring)).await;
    let (mut ada, mut bob) = (Jar::default(), Jar::default());
    let nothing = ada.get(one.address, "/tokens/graph").await;
    assert_eq!((nothing.body.as_str(), nothing.lines.len()), ("Absent", 0));
    ada.post(one.address, "/tokens/graph", "t1").await;
    bob.post(one.address, "/tokens/graph", "t2").await;
    ada.post(two.address, "/tokens/mail", "t3").await;
    for at in [two.address, one.address] {
        assert_eq!(ada.get(at, "/tokens/graph").await.body, "t1");
        let last = ada.get(at, "/tokens/mail").await;
        assert_eq!((last.body.as_str(), last.lines.len()), ("t3", 0));
        assert_eq!(bob.get(at, "/tokens/graph").await.body, "t2");
        assert_eq!(bob.get(at, "/tokens/mail").await.body, "Absent");
    }
    ada.send(one.address, Method::DELETE, "/tokens/graph").await;
    assert_eq!(ada.get(two.address, "/tokens/graph").await.body, "Absent");
    assert_eq!(ada.get(two.address, "/tokens/mail").await.body, "t3");
    // The last token goes, and the cookies with it.
    ada.send(two.address, Method::DELETE, "/tokens/mail").await;
    assert!(ada.0.is_empty(), "{ada:?}");
}

#[tokio::test]
async fn attributes_are_these() {
    let server = Server::new(builder()).await;
    let answer = Jar::default().post(server.address, "/tokens/a", "t").await;
    let [line] = &answer.lines[..] else {
        panic!("{answer:?}")
    };
    let (pair, attributes) = line.split_once("; ").unwrap();
    assert!(pair.starts_with("__Host-tokens.0=1."), "{line}");
    assert_eq!(
        attributes,
        "Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=3600"
    );
    assert_eq!(answer.cache_control.as_deref(), Some("private, no-store"));

    let other = builder().name("sid").same_site(SameSite::Strict);
    let server = Server::new(other.insecure_for_localhost()).await;
    let answer = Jar::default().post(server.address, "/refresh", "60").await;
    let (pair, attributes) = answer.lines[0].split_once("; ").unwrap();
    assert!(pair.starts_with("sid.0=1."), "{pair}");
    assert_eq!(
        attributes,
        "Path=/; HttpOnly; SameSite=Strict; Max-Age=1209600"
    );
}

#[tokio::test]
async fn large_sessions_are_cut_into_chunks_and_stale_chunks_are_removed() {
    let server = Server::new(builder().max_size(40 * 1024)).await;
    let mut jar = Jar::default();
    let all: Vec<String> = (0..5).map(|n| format!("__Host-tokens.{n}")).collect();
    for (size, chunks) in [(500, 1), (6_000, 2), (18_000, 5), (6_000, 2), (500, 1)] {
        let token = text(size);
        jar.post(server.address, "/tokens/a", &token).await;
        assert_eq!(names(&jar), all[..chunks], "for {size} letters");
        assert_eq!(jar.get(server.address, "/tokens/a").await.body, token);
    }
    jar.post(server.address, "/tokens/a", &text(18_000)).await;
    jar.send(server.address, Method::DELETE, "/session").await;
    assert_eq!(names(&jar), [""; 0]);
}

#[tokio::test]
async fn too_large_is_a_typed_error_and_keeps_the_old_cookies() {
    let server = Server::new(builder().max_size(4096)).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/tokens/a", "t1").await;
    let before = jar.clone();
    let answer = jar.post(server.address, "/tokens/b", &text(5_000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.body.starts_with("TooLarge { size: 5"), "{answer:?}");
    assert!(answer.body.ends_with("limit: 4096 }"), "{answer:?}");
    assert_eq!((answer.lines.len(), &jar.0), (0, &before.0));
    assert_eq!(jar.get(server.address, "/tokens/a").await.body, "t1");
    assert_eq!(jar.get(server.address, "/tokens/b").await.body, "Absent");
    // What fits is taken, also after that, and right up to the limit.
    jar.post(server.address, "/tokens/b", "t2").await;
    assert_eq!(jar.get(server.address, "/tokens/b").await.body, "t2");
    for size in (2_500..4_000).step_by(50) {
        let mut jar = Jar::default();
        let answer = jar.post(server.address, "/tokens/a", &text(size)).await;
        let cookies = jar
            .0
            .iter()
            .map(|(name, value)| name.len() + value.len() + 3);
        let cookies = cookies.sum::<usize>();
        let fits = answer.status.is_success();
        assert!(cookies <= 4096, "{cookies} bytes for {size} letters");
        assert_eq!(fits, cookies > 0);
        assert!(fits || size > 3_300, "{size} letters should fit");
    }
    let stats = server.cache.stats();
    assert_eq!((stats.pending_changes, stats.l2_errors), (0, 0));
}

#[tokio::test]
async fn too_large_is_the_answer_of_an_acquisition_too() {
    let provider = Provider {
        size: 5_000,
        ..Provider::default()
    };
    let server = Server::with(builder().max_size(4096), provider).await;
    let mut jar = Jar::default();
    let answer = jar.get(server.address, "/acquire").await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    assert_eq!(answer.lines.len(), 0);
    assert_eq!(server.provider.calls(), 1);
}

#[tokio::test]
async fn requests_of_one_session_share_one_refresh() {
    let provider = Provider {
        held: true,
        ..Provider::default()
    };
    let server = Server::with(builder(), provider).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/refresh", "0").await;
    let at = server.address;
    let tabs: Vec<_> = (0..20)
        .map(|_| tokio::spawn(jar.clone().request(at, Method::GET, "/acquire", "")))
        .collect();
    server.provider.asked().await;
    // Somebody else is not kept by it.
    assert_eq!(Jar::default().get(at, "/tokens/graph").await.body, "Absent");
    server.provider.open.notify_one();
    for tab in tabs {
        let answer = tab.await.unwrap();
        assert_eq!(answer.body, "acquired-1-for-r0");
        let mut jar = jar.clone();
        jar.take(&answer.lines);
        assert_eq!(jar.get(at, "/acquire").await.body, "acquired-1-for-r0");
    }
    assert_eq!(server.provider.calls(), 1);
}

#[tokio::test]
async fn what_a_lost_response_carried_is_in_the_next_one() {
    let provider = Provider {
        held: true,
        ..Provider::default()
    };
    let server = Server::with(builder(), provider).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/refresh", "0").await;
    let gone = tokio::spawn(
        jar.clone()
            .request(server.address, Method::GET, "/acquire", ""),
    );
    server.provider.asked().await;
    gone.abort();
    let _ = gone.await;
    server.provider.open.notify_one();
    // It is this instance that the refresh token was spent on.
    let answer = jar.get(server.address, "/acquire").await;
    assert_eq!(answer.body, "acquired-1-for-r0");
    assert_eq!(answer.lines.len(), 1);
    assert_eq!(server.provider.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refresh_ahead_of_time_is_in_the_same_response() {
    let ring = KeyRing::generate().unwrap();
    let one = Server::new(CookieStore::builder(ring.clone())).await;
    let two = Server::new(CookieStore::builder(ring)).await;
    let mut jar = Jar::default();
    jar.post(one.address, "/refresh", "due").await;
    let answer = jar.get(one.address, "/acquire").await;
    assert_eq!(answer.body, "acquired-1-for-r0");
    assert_eq!(jar.get(two.address, "/acquire").await.body, answer.body);
    assert_eq!((one.provider.calls(), two.provider.calls()), (1, 0));
}

#[tokio::test]
async fn a_session_cannot_be_moved_and_loses_nothing() {
    let server = Server::new(builder()).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/tokens/graph", "kept").await;
    let moved = jar.post(server.address, "/move", "another").await;
    assert_eq!((moved.status.as_u16(), &*moved.body), (500, "NoSessionId"));
    let kept = jar.get(server.address, "/tokens/graph").await;
    assert_eq!(kept.body, "kept");
}

#[tokio::test]
async fn changes_after_the_head_are_errors() {
    let server = Server::new(builder()).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/refresh", "0").await;
    let before = jar.clone();
    let late = tokio::spawn(
        jar.clone()
            .request(server.address, Method::POST, "/late", ""),
    );
    server.provider.asked().await;
    server.provider.open.notify_one();
    let late = late.await.unwrap();
    assert_eq!(
        late.body,
        "Err(ResponseSent) Err(ResponseSent) Err(ResponseSent)"
    );
    assert_eq!((late.lines.len(), server.provider.calls()), (0, 0));
    assert_eq!(jar.0, before.0);
    // The sign-out counts on this instance all the same.
    assert_eq!(
        jar.get(server.address, "/tokens/graph").await.body,
        "Absent"
    );
    assert_eq!(jar.0, BTreeMap::new());
}

#[tokio::test]
async fn cookies_are_sealed_anew_when_the_key_has_rotated() {
    let keys = [[1; 32], [2; 32]].map(RingKey::from_bytes);
    let [old, new] = keys;
    let before = Server::new(CookieStore::builder(KeyRing::from_keys(old.clone(), []))).await;
    let during = KeyRing::from_keys(new.clone(), [old]);
    let during = Server::new(CookieStore::builder(during)).await;
    let after = Server::new(CookieStore::builder(KeyRing::from_keys(new, []))).await;
    let mut jar = Jar::default();
    jar.post(before.address, "/tokens/a", "t").await;
    let mut missed = jar.clone();
    assert_eq!(missed.get(after.address, "/tokens/a").await.body, "Absent");
    // Another instance may have the key.
    assert_eq!(missed.0, jar.0);
    let answer = jar.get(during.address, "/tokens/a").await;
    assert_eq!((answer.body.as_str(), answer.lines.len()), ("t", 1));
    let answer = jar.get(after.address, "/tokens/a").await;
    assert_eq!((answer.body.as_str(), answer.lines.len()), ("t", 0));
    assert_eq!(after.cache.stats().unopenable_reasons.unknown_key, 1);
}

#[tokio::test]
async fn an_instance_with_an_old_ring_catches_up_with_the_cookies_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |clock: &Clock| {
        let keys = DirRepository::open(folder.path().join("keys")).unwrap();
        KeyRing::builder(keys).clock(clock.clone()).open().await
    };
    let clock = Clock::manual(Timestamp::now());
    let asleep = open(&clock).await.unwrap();
    let server = Server::new(CookieStore::builder(asleep.clone())).await;
    let awake = open(&clock).await.unwrap();
    awake.rotate().await.unwrap();
    clock.advance(48 * HOUR);
    let other = Server::new(CookieStore::builder(awake.clone())).await;
    let mut jar = Jar::default();
    jar.post(other.address, "/tokens/a", "t").await;
    // The first request may come too early, and costs the browser nothing.
    let had = jar.0.clone();
    eventually("it has learned the key", async || {
        let found = jar.get(server.address, "/tokens/a").await;
        assert_eq!(jar.0, had);
        found.body == "t"
    })
    .await;
    assert_eq!(asleep.active(), awake.active());
    assert!(server.cache.stats().unopenable_reasons.unknown_key >= 1);
}

#[tokio::test]
async fn cookies_that_are_too_old_are_not_taken() {
    let (ring, clock) = (
        KeyRing::generate().unwrap(),
        Clock::manual(Timestamp::now()),
    );
    let store = CookieStore::builder(ring).max_age(2 * HOUR);
    let server = Server::new(store.clone().clock(clock.clone())).await;
    let other = Server::new(store.clock(clock.clone())).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/refresh", "360000").await;
    let copied = jar.clone();
    clock.advance(2 * HOUR - Duration::from_secs(1));
    for at in [server.address, other.address] {
        assert_eq!(copied.clone().get(at, "/tokens/graph").await.body, "first");
    }
    // Those that are set anew are new.
    jar.post(server.address, "/tokens/more", "t").await;
    clock.advance(Duration::from_secs(1));
    for at in [server.address, other.address] {
        let mut copied = copied.clone();
        assert_eq!(copied.get(at, "/tokens/graph").await.body, "Absent");
        assert_eq!(copied.0, BTreeMap::new());
        assert_eq!(jar.clone().get(at, "/tokens/graph").await.body, "first");
    }
}

/// A cache that everybody shares must not hand one user's session to others, whatever the handler
/// has said of its page.
#[tokio::test]
async fn a_response_that_sets_cookies_is_kept_by_no_cache() {
    let server = Server::new(builder()).await;
    for (said, sent) in [
        (
            "cache-control: public, max-age=86400, immutable",
            "private, no-store",
        ),
        ("cache-control: private, max-age=60", "private, no-store"),
        ("cache-control: no-cache", "private, no-store"),
        (
            "cache-control: public\ncache-control: max-age=60",
            "private, no-store",
        ),
        // Words within words, and within quotes, are no such words.
        ("cache-control: x-no-store", "private, no-store"),
        (
            "cache-control: community=\"a, no-store\"",
            "private, no-store",
        ),
        // What is as strict stays.
        ("cache-control: no-store", "no-store"),
        (
            "cache-control: max-age=0\ncache-control: No-Store",
            "max-age=0, No-Store",
        ),
    ] {
        let answer = Jar::default().post(server.address, "/cached/a", said).await;
        assert_eq!(answer.lines.len(), 1);
        assert_eq!(answer.cache_control.as_deref(), Some(sent), "{said}");
    }
    // These go before it where there is a cache that they are meant for.
    for name in ["cdn-cache-control", "surrogate-control"] {
        let said = format!("{name}: max-age=600");
        let answer = Jar::default()
            .post(server.address, "/cached/a", &said)
            .await;
        assert_eq!(answer.cache_control.as_deref(), Some("private, no-store"));
        assert_eq!(answer.headers.get(name), None);
    }
}

/// After a rotation, and on an instance that has a newer state, too.
#[tokio::test]
async fn a_request_that_uses_no_token_sets_no_cookies() {
    let key = |byte| RingKey::from_bytes([byte; 32]);
    let old = KeyRing::from_keys_named_by(key(1), key(1), []);
    let new = KeyRing::from_keys_named_by(key(1), key(2), [key(1)]);
    let one = Server::new(CookieStore::builder(old)).await;
    let two = Server::new(CookieStore::builder(new)).await;
    let mut ada = Jar::default();
    ada.post(one.address, "/tokens/graph", "t").await;
    let page = ada.get(two.address, "/page").await;
    assert_eq!((page.body.as_str(), page.lines.len()), ("a page", 0));
    assert_eq!(page.cache_control.as_deref(), Some(super::server::PUBLIC));
    let mut behind = ada.clone();
    ada.post(one.address, "/tokens/mail", "t").await;
    assert_eq!(behind.get(one.address, "/page").await.lines.len(), 0);
    // The first use of a token brings them up to date.
    assert_eq!(
        behind.get(one.address, "/tokens/graph").await.lines.len(),
        1
    );
    assert_eq!(behind.get(two.address, "/tokens/mail").await.lines.len(), 1);
}

/// What a copied cookie is worth is bounded, also where nobody knows that its session was signed out.
#[tokio::test]
async fn a_session_ends_a_month_after_it_began_however_it_is_used() {
    let clock = Clock::manual(Timestamp::now());
    let cookies = builder().clock(clock.clone());
    let (one, two) = (
        Server::new(cookies.clone()).await,
        Server::new(cookies).await,
    );
    let mut ada = Jar::default();
    ada.post(one.address, "/refresh", "360000000").await;
    let mut thief = ada.clone();
    ada.send(one.address, Method::DELETE, "/session").await;
    for day in 0..30 {
        let answer = thief.get(two.address, "/tokens/graph").await;
        assert_eq!(answer.body, "first", "day {day}");
        clock.advance(HOUR * 24);
        thief.post(two.address, "/tokens/visit", "t").await;
    }
    clock.advance(HOUR);
    let answer = thief.get(two.address, "/tokens/graph").await;
    assert_eq!(answer.body, "Absent");
}

/// A group of settings is set as a whole. The month stays unless it is what is set.
#[tokio::test]
async fn other_lifetimes_leave_the_month_as_it_is() {
    let longer = Lifetimes::new().after_write(60 * 24 * HOUR);
    let endless = longer.clone().absolute(None);
    for (lifetimes, found) in [(longer, "Absent"), (endless, "first")] {
        let clock = Clock::manual(Timestamp::now());
        let store = builder().clock(clock.clone()).build().unwrap();
        let layer = store.layer_with(|builder| builder.lifetimes(lifetimes));
        let server = Server::over(layer.unwrap(), Provider::default()).await;
        let mut ada = Jar::default();
        ada.post(server.address, "/refresh", "360000000").await;
        for day in 0..30 {
            let answer = ada.get(server.address, "/tokens/graph").await;
            assert_eq!(answer.body, "first", "day {day}");
            clock.advance(HOUR * 24);
            ada.post(server.address, "/tokens/visit", "t").await;
        }
        clock.advance(HOUR);
        let answer = ada.get(server.address, "/tokens/graph").await;
        assert_eq!(answer.body, found);
    }
}

#[tokio::test]
async fn cookies_that_are_read_are_set_anew() {
    let clock = Clock::manual(Timestamp::now());
    let store = builder().clock(clock.clone()).max_age(HOUR / 3);
    let server = Server::new(store).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/tokens/a", "t").await;
    let mut set = Vec::new();
    for minute in (2..=50).step_by(2) {
        clock.advance(HOUR / 30);
        let page = jar.get(server.address, "/page").await;
        assert_eq!(page.lines.len(), 0, "it does not use the session");
        let answer = jar.get(server.address, "/tokens/a").await;
        assert_eq!(answer.body, "t", "{minute}");
        if !answer.lines.is_empty() {
            set.push(minute);
        }
    }
    assert_eq!(set, [6, 12, 18, 24, 30, 36, 42, 48], "a quarter of its age");
}

#[tokio::test]
async fn what_is_too_large_was_superseded_by_nothing() {
    let server = Server::new(builder().max_size(1024)).await;
    let answer = Jar::default()
        .post(server.address, "/tokens/a", &text(4000))
        .await;
    assert!(answer.body.contains("TooLarge"), "{answer:?}");
    assert_eq!(server.cache.stats().superseded_changes, 0);
}
