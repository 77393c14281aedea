//! A token counts once, whatever becomes of the request that brings it: a user who has signed in since stays signed in.

use common::proxy::{Mode, Proxy};
use common::stepping::{SteppingStore, poll_times};
use common::support::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower_token_cache::logout::BackChannelLogout;
use tower_token_cache::{EventKind, RedisStore, SignedOutBy, Timestamp, TokenCache};

use super::issuer::{CLIENT, Issuer, Key};

/// An issuer with its key, without a clock of its own.
struct Provider(Issuer, Key);

impl Provider {
    async fn start() -> Self {
        let (issuer, key) = (Issuer::start().await, Key::new("1"));
        issuer.has(&[&key]);
        Self(issuer, key)
    }

    fn handler(&self, cache: &TokenCache) -> BackChannelLogout {
        let (iss, jwks_uri) = (&self.0.url, self.0.jwks_uri());
        BackChannelLogout::new(cache.clone(), iss, CLIENT, jwks_uri).unwrap()
    }

    fn claims(&self, jti: &str, sid: &str) -> Value {
        let now = Timestamp::now().as_millis() / 1000;
        json!({
            "iss": self.0.url, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": jti, "sid": sid,
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        })
    }

    fn token(&self, jti: &str, sid: &str) -> String {
        self.1.sign(&self.claims(jti, sid))
    }

    /// Begins a session that is linked to this one of the provider.
    async fn sign_in(&self, cache: &TokenCache, id: &str, sid: &str) {
        let tokens = cache.tokens(session(id));
        tokens.insert("api", token(id)).await.unwrap();
        let linked = tokens.link_provider_session(&self.0.url, sid).await;
        linked.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
}

async fn is_alive(cache: &TokenCache, id: &str) -> bool {
    access(&cache.tokens(session(id)), "api").await.is_some()
}

/// The provider hangs up, at each step, and comes again.
#[tokio::test]
async fn a_token_whose_request_was_dropped_ends_nothing_of_later() {
    let (provider, store) = (Provider::start().await, SteppingStore::default());
    let (mut steps, mut ended) = (0, 0);
    loop {
        let here = cache(store.clone());
        let logout = provider.handler(&here);
        let (before, after) = (format!("before {steps}"), format!("after {steps}"));
        let sid = steps.to_string();
        provider.sign_in(&here, &before, &sid).await;
        let token = provider.token(&sid, &sid);
        let done = poll_times(logout.sign_out(&token), steps).await;
        // What has begun goes on.
        let report = here.shutdown(Duration::from_secs(10)).await;
        assert_eq!(report.sign_outs_abandoned, 0);
        let there = cache(store.clone());
        let logout = provider.handler(&there);
        let was_ended = !is_alive(&there, &before).await;
        ended += u32::from(was_ended);
        provider.sign_in(&there, &after, &sid).await;
        logout.sign_out(&token).await.unwrap();
        let fresh = cache(store.clone());
        assert!(!is_alive(&fresh, &before).await, "{steps}");
        // What the first request has not ended, the second one does, of that time.
        assert_eq!(is_alive(&fresh, &after).await, was_ended, "{steps}");
        if done.is_some() {
            break;
        }
        steps = (steps + 1).max(steps * 9 / 8);
    }
    assert!(ended > 1, "it was dropped after the sign-out, too");
}

/// It was overheard, and is sent to another instance at the same time, which has been told that it is new.
#[tokio::test]
async fn a_token_that_two_instances_get_together_ends_nothing_of_later() {
    let (server, provider) = (RedisServer::start(), Provider::start().await);
    let (proxy, url) = Proxy::before(&server.url()).await;
    let slow = cache(RedisStore::connect(url).await.unwrap());
    let fast = redis_cache(&server).await;
    let (at_slow, at_fast) = (provider.handler(&slow), provider.handler(&fast));
    for (n, logout) in [&at_slow, &at_fast].into_iter().enumerate() {
        let other = provider.token(&format!("other {n}"), "9");
        logout.sign_out(&other).await.unwrap();
    }
    provider.sign_in(&fast, "before", "1").await;
    let token = provider.token("a", "1");
    let fetches = provider.0.fetches();
    let asked = server.calls("hget");
    proxy.set(Mode::BlackHoleAnswers);
    let late = {
        let token = token.clone();
        tokio::spawn(async move { at_slow.sign_out(&token).await })
    };
    eventually("its first question is answered", async || {
        server.calls("hget") > asked
    })
    .await;
    at_fast.sign_out(&token).await.unwrap();
    assert!(!is_alive(&fast, "before").await);
    provider.sign_in(&fast, "after", "1").await;
    proxy.set(Mode::Pass);
    late.await.unwrap().unwrap();
    assert_eq!(provider.0.fetches(), fetches);
    let fresh = redis_cache(&server).await;
    assert!(!is_alive(&fresh, "before").await);
    assert!(is_alive(&fresh, "after").await);
    for cache in [&slow, &fast] {
        assert!(is_alive(cache, "after").await);
    }
}

#[tokio::test]
async fn a_token_that_comes_ten_times_at_once_is_told_once() {
    let provider = Provider::start().await;
    let log = Arc::<Mutex<Vec<EventKind>>>::default();
    let told = log.clone();
    let noting = builder(TestStore::default());
    let noting = noting.on_event(move |event| told.lock().unwrap().push(event.kind.clone()));
    let cache = noting.build().unwrap();
    let logout = provider.handler(&cache);
    let token = provider.token("a", "1");
    let together = futures_util::future::join_all((0..10).map(|_| logout.sign_out(&token))).await;
    assert!(together.iter().all(Result::is_ok));
    cache.shutdown(Duration::from_secs(5)).await;
    let expected = [EventKind::SignedOut(SignedOutBy::Provider)];
    assert_eq!(*log.lock().unwrap(), expected);
}

/// A login and a logout of one session at the provider, each at each step of the other: whichever is the later one, all
/// instances agree, and the same token changes nothing any more.
#[tokio::test]
async fn a_login_at_each_step_of_a_logout_is_before_it_or_after() {
    let (provider, store) = (Provider::start().await, SteppingStore::default());
    let (here, there) = (cache(store.clone()), cache(store.clone()));
    let logout = provider.handler(&here);
    let (mut before, mut after) = (0, 0);
    for (steps, logout_first) in (0..40).flat_map(|steps| [(steps, true), (steps, false)]) {
        let sid = format!("{steps} {logout_first}");
        let (old, new) = (format!("old {sid}"), format!("new {sid}"));
        provider.sign_in(&there, &old, &sid).await;
        let token = provider.token(&sid, &sid);
        let mut ends = Box::pin(logout.sign_out(&token));
        let mut begins = Box::pin(provider.sign_in(&there, &new, &sid));
        match logout_first {
            true => {
                let ended = poll_times(ends.as_mut(), steps).await;
                begins.await;
                match ended {
                    Some(ended) => ended.unwrap(),
                    None => ends.await.unwrap(),
                }
            }
            false => {
                let begun = poll_times(begins.as_mut(), steps).await;
                ends.await.unwrap();
                if begun.is_none() {
                    begins.await;
                }
            }
        }
        let fresh = cache(store.clone());
        let goes_on = is_alive(&fresh, &new).await;
        *(if goes_on { &mut after } else { &mut before }) += 1;
        eventually("all agree", async || {
            let mut agree = true;
            for cache in [&here, &there, &fresh] {
                agree &= is_alive(cache, &new).await == goes_on && !is_alive(cache, &old).await;
            }
            agree
        })
        .await;
        logout.sign_out(&token).await.unwrap();
        assert_eq!(
            is_alive(&cache(store.clone()), &new).await,
            goes_on,
            "{sid}"
        );
    }
    assert!(before > 0 && after > 0, "{before} before, {after} after");
}
