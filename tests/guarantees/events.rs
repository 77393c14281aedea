//! What the hook for events is told.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::support::*;
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{
    Builder, Clock, Event, EventKind, Lifetimes, MemoryStore, PartitionKey, ProviderError,
    RefusedRefreshToken, SessionEnd, SignedOutBy, Timestamp, TokenCache, TokenCacheLayer, TokenSet,
    Tokens,
};

type Log = Arc<Mutex<Vec<Event>>>;

fn noting(builder: Builder) -> (Builder, Log) {
    let log = Log::default();
    let noted = log.clone();
    let builder = builder.on_event(move |event| noted.lock().unwrap().push(event.clone()));
    (builder, log)
}

/// Waits until so many events were told; their kinds.
async fn told(log: &Log, count: usize) -> Vec<EventKind> {
    eventually("events are told", async || {
        log.lock().unwrap().len() >= count
    })
    .await;
    let events = log.lock().unwrap();
    Vec::from_iter(events.iter().map(|event| event.kind.clone()))
}

fn set(refresh_token: &str) -> TokenSet {
    TokenSet::from(token("secret-t")).with_refresh_token(refresh_token.to_owned())
}

#[tokio::test]
async fn sign_ins_and_sign_outs_are_told_with_who_did_it() {
    let (builder, log) = noting(builder(TestStore::default()));
    let cache = builder.build().unwrap();
    let layer = TokenCacheLayer::new(cache.clone(), Cookie::new("sid").unwrap());
    let handler = service_fn(async |request: Request<()>| {
        let tokens = request.extensions().get::<Tokens>().unwrap();
        for _ in 0..2 {
            let sign_in = SignIn::new("graph", set("secret-r")).user("secret-ada");
            assert_stored(tokens.sign_in(sign_in).await.unwrap());
        }
        assert_stored(tokens.sign_out().await.unwrap());
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    layer
        .layer(handler)
        .oneshot(Request::new(()))
        .await
        .unwrap();
    let out = EventKind::SignedOut;
    let expected = [
        EventKind::SignedIn,
        out(SignedOutBy::SignIn),
        EventKind::SignedIn,
        out(SignedOutBy::Session),
    ];
    assert_eq!(told(&log, 4).await, expected);
    let of = |at: usize| log.lock().unwrap()[at].partition.clone().unwrap();
    assert_eq!(of(0), of(1), "the first session");
    assert_eq!(of(2), of(3), "the second one");
    assert_ne!(of(0), of(2));

    assert_stored(cache.sign_out_user("secret-ada").await.unwrap());
    let iss = "https://secret-login.example";
    assert_stored(
        cache
            .sign_out_provider_user(iss, "secret-ada")
            .await
            .unwrap(),
    );
    assert_stored(
        cache
            .sign_out_provider_session(iss, "secret-1")
            .await
            .unwrap(),
    );
    cache.sign_out_all().await.unwrap();
    let by = [
        SignedOutBy::User,
        SignedOutBy::Provider,
        SignedOutBy::Provider,
        SignedOutBy::All,
    ];
    assert_eq!(told(&log, 8).await[4..], by.map(out));
    assert_eq!(cache.stats().dropped_events, 0);
    let shown = format!("{:?}", log.lock().unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn the_end_of_a_session_is_told_when_it_is_used_again() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let sliding: fn(Lifetimes) -> Lifetimes = |it| it.sliding(Duration::from_secs(1800));
    let absolute: fn(Lifetimes) -> Lifetimes = |it| it.absolute(Duration::from_secs(1800));
    let cases = [
        (sliding, SessionEnd::Idle),
        (absolute, SessionEnd::Lifetime),
        (|it| it, SessionEnd::Lost),
    ];
    for (lifetimes, end) in cases {
        let clock = Clock::manual(Timestamp::now());
        let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
        let settings = builder(store.clone()).clock(clock.clone());
        let (settings, log) = noting(settings.lifetimes(lifetimes(Lifetimes::new())));
        let cache = settings.build().unwrap();
        let tokens = cache.tokens(session("s"));
        let long = token("t").with_expires_in(minutes(600));
        tokens.insert("graph", long).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let id = cache.partition_id(&session("s")).await.unwrap();
        match end {
            SessionEnd::Lost => store.evict(&id),
            _ => clock.advance(minutes(31)),
        }
        clock.advance(minutes(2));
        let tokens = cache.tokens(session("s"));
        assert!(!tokens.get("graph").await.unwrap().is_hit(), "{end:?}");
        assert_eq!(told(&log, 1).await, [EventKind::SessionEnded(end)]);
        let event = log.lock().unwrap()[0].clone();
        assert_eq!(event.partition.as_deref(), Some(&*id.encoded()));
        assert_eq!(event.at, clock.now());
        // Once is enough; a session that was signed out, or never was, is none.
        let _ = tokens.get("graph").await.unwrap();
        let _ = cache.tokens(session("never")).get("graph").await.unwrap();
        cache.shutdown(minutes(1)).await;
        assert_eq!(told(&log, 1).await.len(), 1, "{end:?}");
    }
}

async fn refused(cache: &TokenCache, partition: PartitionKey) -> Tokens {
    let tokens = cache.tokens(partition);
    tokens.insert("graph", set("r")).await.unwrap();
    tokens.insert("other", token("o")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let refuse = async |_| Err::<TokenSet, _>(ProviderError::refused("invalid_grant"));
    let refused = tokens.get_or_acquire("mail", refuse).await;
    assert_eq!(refused.unwrap_err().status(), 401);
    tokens
}

#[tokio::test]
async fn a_refused_refresh_token_is_told_and_ends_the_session_where_that_is_wanted() {
    let reauthentication = EventKind::ReauthenticationRequired { client: None };
    let (builder_, log) = noting(builder(TestStore::default()));
    let cache = builder_.build().unwrap();
    let tokens = refused(&cache, session("s")).await;
    assert!(tokens.get("other").await.unwrap().is_hit(), "it goes on");
    assert_eq!(told(&log, 1).await[0], reauthentication);
    let google = tokens.client("google").unwrap();
    google.insert("graph", set("r2")).await.unwrap();
    let refuse = async |_| Err::<TokenSet, _>(ProviderError::refused("invalid_grant"));
    google.get_or_acquire("mail", refuse).await.unwrap_err();
    let client = Some("google".into());
    let expected = EventKind::ReauthenticationRequired { client };
    assert_eq!(told(&log, 2).await[1], expected);

    let store = TestStore::default();
    let (builder_, log) = noting(builder(store.clone()));
    let cache = builder_.refused_refresh_token(RefusedRefreshToken::SignOut);
    let cache = cache.build().unwrap();
    refused(&cache, session("s")).await;
    let fresh = cache.tokens(session("s"));
    assert!(!fresh.get("other").await.unwrap().is_hit());
    let ended = EventKind::SignedOut(SignedOutBy::RefusedRefreshToken);
    assert_eq!(told(&log, 2).await, [reauthentication.clone(), ended]);
    eventually("L2 knows", async || {
        stored(store.clone(), "s", "other").await.is_none()
    })
    .await;
    // What belongs to a user is no session.
    let tokens = refused(&cache, PartitionKey::user("ada").unwrap()).await;
    assert!(tokens.get("other").await.unwrap().is_hit());
    // Without a refresh token there is none to refuse.
    let tokens = cache.tokens(session("none"));
    tokens.insert("other", token("o")).await.unwrap();
    tokens.get_or_acquire("mail", refuse).await.unwrap_err();
    assert!(tokens.get("other").await.unwrap().is_hit());
    cache.shutdown(Duration::from_secs(5)).await;
    assert_eq!(told(&log, 3).await[2..], [reauthentication]);
}

/// A hook that blocks holds up no request, and what it cannot be told of is counted.
#[tokio::test]
async fn a_hook_that_blocks_holds_up_nothing() {
    let (go, gate) = channel::<()>();
    let gate: Mutex<Receiver<()>> = Mutex::new(gate);
    let builder = builder(TestStore::default()).on_event(move |_| {
        // An error once the test is over.
        let _ = gate.lock().unwrap().recv();
    });
    let cache = builder.build().unwrap();
    for _ in 0..1100 {
        assert_stored(cache.sign_out_user("ada").await.unwrap());
    }
    let dropped = cache.stats().dropped_events;
    assert!((75..=76).contains(&dropped), "{dropped}");
    let report = cache.shutdown(Duration::from_millis(200)).await;
    assert_eq!((report.abandoned, report.sign_outs_abandoned), (0, 0));
    drop(go);
}

#[tokio::test]
async fn a_hook_that_panics_is_told_of_the_next_event() {
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let builder = builder(TestStore::default()).on_event(move |_| {
        *counted.lock().unwrap_or_else(|it| it.into_inner()) += 1;
        panic!("on purpose");
    });
    let cache = builder.build().unwrap();
    for _ in 0..3 {
        assert_stored(cache.sign_out_user("ada").await.unwrap());
    }
    cache.shutdown(Duration::from_secs(5)).await;
    assert_eq!(*count.lock().unwrap(), 3);
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose, once more");
    }
}

#[tokio::test]
async fn a_hook_whose_panic_panics_is_told_of_the_next_event() {
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let builder = builder(TestStore::default()).on_event(move |_| {
        *counted.lock().unwrap_or_else(|it| it.into_inner()) += 1;
        std::panic::panic_any(Bomb);
    });
    let cache = builder.build().unwrap();
    for _ in 0..3 {
        assert_stored(cache.sign_out_user("ada").await.unwrap());
    }
    cache.shutdown(Duration::from_secs(5)).await;
    assert_eq!(*count.lock().unwrap(), 3);
}

/// Memory has not heard of it: this store has no feed.
#[tokio::test]
async fn a_session_that_has_another_refresh_token_by_then_goes_on() {
    let store = TestStore::default();
    let (builder, log) = noting(builder(store.clone()));
    let cache = builder.refused_refresh_token(RefusedRefreshToken::SignOut);
    let cache = cache.build().unwrap();
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", set("r1")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let other = cache_of(store.clone()).tokens(session("s"));
    let refuse = async move |_| {
        // The user signs in on another instance meanwhile.
        other.insert("graph", set("r2")).await.unwrap();
        assert_stored(other.commit().await.unwrap());
        Err::<TokenSet, _>(ProviderError::refused("invalid_grant"))
    };
    let refused = tokens.get_or_acquire("mail", refuse).await;
    assert_eq!(refused.unwrap_err().status(), 401);
    cache.shutdown(Duration::from_secs(5)).await;
    let required = EventKind::ReauthenticationRequired { client: None };
    assert_eq!(told(&log, 1).await, [required]);
    let there = cache_of(store).tokens(session("s"));
    let refresh_token = there.refresh_token().await.unwrap().hit();
    assert_eq!(refresh_token.unwrap().expose(), "r2");
}

/// What one API wants of the user says nothing of the refresh token: it goes on for the others.
#[tokio::test]
async fn a_provider_that_wants_proof_or_consent_has_not_refused_the_refresh_token() {
    for code in [
        "consent_required",
        "interaction_required",
        "unmet_authentication_requirements",
        "mfa_required",
        "AADSTS65001",
        "AADSTS50076",
    ] {
        let (builder, log) = noting(builder(TestStore::default()));
        let cache = builder.refused_refresh_token(RefusedRefreshToken::SignOut);
        let cache = cache.build().unwrap();
        let tokens = cache.tokens(session("s"));
        tokens.insert("graph", set("r")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let refuse = async move |_| Err::<TokenSet, _>(ProviderError::refused(code));
        let refused = tokens.get_or_acquire("mail", refuse).await;
        assert_eq!(refused.unwrap_err().status(), 401, "{code}");
        let other = async |_| Ok::<_, ProviderError>(set("r2"));
        let other = tokens.get_or_acquire("calendar", other).await;
        assert!(other.is_ok(), "{code}: {other:?}");
        // For what was asked it is remembered.
        let unasked = async |_| -> Result<TokenSet, ProviderError> { unreachable!("remembered") };
        let again = cache.tokens(session("t"));
        again.insert("graph", set("r")).await.unwrap();
        again.get_or_acquire("mail", refuse).await.unwrap_err();
        again.get_or_acquire("mail", unasked).await.unwrap_err();
        cache.shutdown(Duration::from_secs(5)).await;
        let required = EventKind::ReauthenticationRequired { client: None };
        assert_eq!(told(&log, 2).await, [required.clone(), required], "{code}");
    }
}

#[tokio::test]
async fn acquired_tokens_that_others_have_overtaken_are_told() {
    let store = TestStore::default();
    let (builder_, log) = noting(builder(store.clone()));
    let cache = builder_.build().unwrap();
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", set("r1")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let other = cache_of(store).tokens(session("s"));
    let redeem = async move |_| {
        // The user signs in on another instance meanwhile.
        other.insert("graph", set("r2")).await.unwrap();
        assert_stored(other.commit().await.unwrap());
        Ok::<_, ProviderError>(set("r3"))
    };
    let mail = tokens.get_or_acquire("mail", redeem).await;
    assert_eq!(mail.unwrap().access_token(), "secret-t");
    assert_eq!(told(&log, 1).await, [EventKind::Superseded]);
    assert_eq!(cache.stats().superseded_changes, 2);
}

fn cache_of(store: TestStore) -> TokenCache {
    builder(store).build().unwrap()
}
