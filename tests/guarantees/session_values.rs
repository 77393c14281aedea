//! Session values: what they are, how long they live, and where they show.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_token_cache::{
    Clock, Error, FailurePolicy, Lookup, MemoryStore, Timestamp, TokenSet, Tokens,
};

use common::support::*;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Login {
    state: String,
    pkce_verifier: String,
    return_to: Option<String>,
}

fn login() -> Login {
    Login {
        state: "s".into(),
        pkce_verifier: "v".into(),
        return_to: None,
    }
}

async fn put(tokens: &Tokens, name: &str) {
    tokens.put(name, name, 10 * MINUTE).await.unwrap();
}

async fn value(tokens: &Tokens, name: &str) -> Lookup<String> {
    tokens.value(name).await.unwrap()
}

async fn take(tokens: &Tokens, name: &str) -> Lookup<String> {
    tokens.take(name).await.unwrap()
}

fn hit(text: &str) -> Lookup<String> {
    Lookup::Hit(text.into())
}

#[tokio::test]
async fn a_value_is_kept_read_taken_and_gone() {
    let store = TestStore::default();
    let here = cache(store.clone()).tokens(session("s"));
    here.put("login", &login(), 10 * MINUTE).await.unwrap();
    assert_eq!(here.value("login").await.unwrap(), Lookup::Hit(login()));
    assert_stored(here.commit().await.unwrap());
    let there = cache(store.clone()).tokens(session("s"));
    assert_eq!(there.value("login").await.unwrap(), Lookup::Hit(login()));
    assert_eq!(there.take("login").await.unwrap(), Lookup::Hit(login()));
    let fresh = cache(store.clone()).tokens(session("s"));
    for tokens in [&there, &here, &fresh] {
        assert_eq!(take(tokens, "login").await, Lookup::Absent);
        assert_eq!(value(tokens, "login").await, Lookup::Absent);
    }
    put(&here, "login").await;
    assert_eq!(take(&here, "login").await, hit("login"), "it was pending");
    assert_eq!(take(&fresh, "login").await, Lookup::Absent);
}

#[tokio::test]
async fn a_value_is_no_token_and_belongs_to_no_client() {
    let tokens = cache(TestStore::default()).tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    put(&tokens, "login").await;
    put(&tokens, "graph").await;
    let google = tokens.client("google").unwrap();
    for tokens in [&tokens, &google] {
        assert_eq!(access(tokens, "login").await, None);
        assert!(tokens.refresh_token().await.unwrap().hit().is_none());
        assert_eq!(value(tokens, "login").await, hit("login"));
    }
    assert_eq!(tokens.keys().await.unwrap(), ["graph".try_into().unwrap()]);
    assert!(google.keys().await.unwrap().is_empty());
    assert_eq!(take(&google, "graph").await, hit("graph"));
    assert_eq!(take(&tokens, "graph").await, Lookup::Absent);
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
}

#[tokio::test]
async fn a_value_ends_after_its_lifetime() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let instance = || builder(store.clone()).clock(clock.clone()).build().unwrap();
    let here = instance().tokens(session("s"));
    here.insert("graph", token("t")).await.unwrap();
    put(&here, "read").await;
    put(&here, "taken").await;
    assert_stored(here.commit().await.unwrap());
    clock.advance(10 * MINUTE);
    for tokens in [&here, &instance().tokens(session("s"))] {
        assert_eq!(value(tokens, "read").await, Lookup::Absent);
        assert_eq!(take(tokens, "taken").await, Lookup::Absent);
    }
    put(&here, "read").await;
    assert_eq!(take(&here, "read").await, hit("read"), "it is put again");
}

#[tokio::test]
async fn values_move_with_the_session_and_end_with_it() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let old = here.tokens(session("old"));
    put(&old, "login").await;
    put(&old, "taken").await;
    assert_eq!(take(&old, "taken").await, hit("taken"));
    let late = here.tokens(session("old"));
    assert_eq!(value(&late, "login").await, hit("login"));
    let new = old.move_to(session("new")).await.unwrap();
    let left = cache(store.clone()).tokens(session("old"));
    assert_eq!(take(&left, "login").await, Lookup::Absent);
    assert!(matches!(
        late.take::<String>("login").await,
        Err(Error::SignedOut) | Ok(Lookup::Absent)
    ));
    assert_eq!(take(&new, "taken").await, Lookup::Absent);
    assert_eq!(take(&new, "login").await, hit("login"));
    put(&new, "next").await;
    assert_stored(new.commit().await.unwrap());
    let other = cache(store.clone()).tokens(session("new"));
    assert_eq!(value(&other, "next").await, hit("next"));
    assert_stored(new.sign_out().await.unwrap());
    let late = other.take::<String>("next").await;
    assert!(matches!(late, Err(Error::SignedOut)), "{late:?}");
    for tokens in [here, cache(store)].map(|cache| cache.tokens(session("new"))) {
        assert_eq!(take(&tokens, "next").await, Lookup::Absent);
        assert_eq!(value(&tokens, "next").await, Lookup::Absent);
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong_and_quote_nothing() {
    let tokens = cache(TestStore::default()).tokens(session("s"));
    put(&tokens, "secret").await;
    for read in [
        tokens.value::<u32>("secret").await,
        tokens.take::<u32>("secret").await,
    ] {
        let error = read.unwrap_err();
        assert!(matches!(error, Error::InvalidValue));
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert!(std::error::Error::source(&error).is_none());
    }
    assert_eq!(take(&tokens, "secret").await, Lookup::Absent, "it is gone");
    let no_json = std::collections::BTreeMap::from([((1, 2), 3)]);
    let put = tokens.put("map", &no_json, MINUTE).await;
    assert!(matches!(put, Err(Error::InvalidValue)));
    let large = "x".repeat(65 << 10);
    let put = tokens.put("large", &large, MINUTE).await;
    assert!(matches!(put, Err(Error::TooLarge { .. })));
    for name in ["", "\u{1}refresh_token"] {
        let put = tokens.put(name, "x", MINUTE).await;
        assert!(matches!(put, Err(Error::InvalidKey(_))));
        let taken = tokens.take::<String>(name).await;
        assert!(matches!(taken, Err(Error::InvalidKey(_))));
    }
}

/// The browser that is sent to the provider may come back to another instance.
#[tokio::test]
async fn a_value_is_in_l2_before_the_response_head() {
    use axum::{Router, routing::get};
    let store = TestStore::default();
    let here = cache(store.clone());
    let begin = async |tokens: Tokens| put(&tokens, "login").await;
    let app = app(&here, Router::new().route("/login", get(begin)));
    let response = send(&app, "s", "/login").await;
    assert_eq!(store.commits(), 1, "before anything else can happen");
    assert!(response.status().is_success());
    let there = cache(store).tokens(session("s"));
    assert_eq!(take(&there, "login").await, hit("login"));
}

#[tokio::test]
async fn under_bypass_a_value_is_of_this_process_alone() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let shared = here.tokens(session("s"));
    put(&shared, "shared").await;
    assert_stored(shared.commit().await.unwrap());
    let tokens = here.tokens(session("s"));
    tokens.set_failure_policy(FailurePolicy::Bypass);
    put(&tokens, "own").await;
    let asked = (store.loads(), store.commits());
    assert_eq!(value(&tokens, "own").await, hit("own"));
    assert_eq!(take(&tokens, "own").await, hit("own"));
    assert_eq!(take(&tokens, "own").await, Lookup::Absent);
    assert_eq!(take(&tokens, "shared").await, Lookup::Unavailable);
    assert_eq!((store.loads(), store.commits()), asked);
    assert_eq!(take(&shared, "shared").await, hit("shared"));
    assert_eq!(take(&tokens, "shared").await, Lookup::Absent);
}

#[tokio::test]
async fn an_anonymous_request_has_no_values() {
    let here = cache(TestStore::default());
    let app = {
        use axum::{Router, routing::get};
        let routes = Router::new().route(
            "/",
            get(async |request: axum::extract::Request| {
                let tokens = request.extensions().get::<Tokens>().unwrap();
                let put = tokens.put("login", "x", MINUTE).await;
                assert!(matches!(put, Err(Error::NoPartition)));
                let taken = tokens.take::<String>("login").await;
                assert!(matches!(taken, Err(Error::NoPartition)));
            }),
        );
        let layer =
            tower_token_cache::TokenCacheLayer::new(here, tower_token_cache::key::cookie("sid"));
        routes.layer(layer)
    };
    use tower::ServiceExt;
    let request = axum::http::Request::get("/").body(axum::body::Body::empty());
    let response = app.oneshot(request.unwrap()).await.unwrap();
    assert!(response.status().is_success());
}

#[tokio::test]
async fn tokens_beside_a_value_that_is_taken_stay_in_memory() {
    let store = TestStore::default();
    let here = cache(store.clone()).tokens(session("s"));
    let set = TokenSet::from(token("t")).with_refresh_token("r");
    here.insert("graph", set).await.unwrap();
    put(&here, "login").await;
    assert_stored(here.commit().await.unwrap());
    assert_eq!(take(&here, "login").await, hit("login"));
    let asked = (store.loads(), store.looks());
    assert_eq!(access(&here, "graph").await.as_deref(), Some("t"));
    assert_eq!(value(&here, "login").await, Lookup::Absent);
    assert_eq!((store.loads(), store.looks()), asked);
}

#[tokio::test]
async fn what_was_put_is_read() {
    let tokens = cache(MemoryStore::new()).tokens(session("s"));
    let nested = |depth| (0..depth).fold(serde_json::json!("[{"), |it, _| serde_json::json!([it]));
    tokens.put("deep", &nested(127), MINUTE).await.unwrap();
    let deep = tokens.take::<serde_json::Value>("deep").await.unwrap();
    assert_eq!(deep.hit(), Some(nested(127)));
    let put = tokens.put("deep", &nested(128), MINUTE).await;
    assert!(matches!(put, Err(Error::InvalidValue)), "{put:?}");
    // JSON has no word for it.
    tokens.put("nan", &f64::NAN, MINUTE).await.unwrap();
    assert_eq!(
        tokens.value::<Option<f64>>("nan").await.unwrap().hit(),
        Some(None)
    );
    for seed in 0..2000_u64 {
        let number = f64::from_bits(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
        if number.is_finite() {
            tokens.put("f", &number, 60 * MINUTE).await.unwrap();
            let read = tokens.value::<f64>("f").await.unwrap().hit();
            assert_eq!(read, Some(number));
        }
    }
    tokens.put("max", &u64::MAX, Duration::MAX).await.unwrap();
    assert_eq!(
        tokens.take::<u64>("max").await.unwrap().hit(),
        Some(u64::MAX)
    );
    tokens.put("none", &None::<u8>, 60 * MINUTE).await.unwrap();
    assert_eq!(
        tokens.take::<Option<u8>>("none").await.unwrap().hit(),
        Some(None)
    );
    tokens.put("empty", "", 60 * MINUTE).await.unwrap();
    assert_eq!(
        tokens
            .take::<String>("empty")
            .await
            .unwrap()
            .hit()
            .as_deref(),
        Some("")
    );
    tokens.put("zero", "", Duration::ZERO).await.unwrap();
    assert!(!tokens.take::<String>("zero").await.unwrap().is_hit());
    let long = "n".repeat(256);
    tokens.put(&long, "x", 60 * MINUTE).await.unwrap();
    assert!(tokens.take::<String>(&long).await.unwrap().is_hit());
}

#[tokio::test]
async fn a_value_ends_with_its_session() {
    let day = 24 * 60 * MINUTE;
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone())).clock(clock.clone());
    let cache = cache.build().unwrap();
    let tokens = cache.tokens(session("s"));
    tokens.put("login", "state", 30 * day).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    clock.advance(15 * day);
    assert_eq!(value(&tokens, "login").await, Lookup::Absent);
}
