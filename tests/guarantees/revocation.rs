//! After a sign-out its refresh token is revoked at the provider, a real HTTP server here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Form, Router};
use common::support::*;
use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::seal::RingKey;
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{
    BoxError, Builder, Durability, KeyRing, ProviderError, Revoke, Secret, TokenCache,
    TokenCacheLayer, TokenSet, Tokens,
};

/// A provider that notes what it is to revoke. Stops with its runtime.
#[derive(Clone)]
struct Provider {
    url: String,
    http: reqwest::Client,
    state: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    revoked: Vec<String>,
    /// What it answers before it answers 200.
    answers: VecDeque<Answer>,
}

#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    Never,
}

#[derive(serde::Deserialize)]
struct Revocation {
    token: String,
}

async fn revoke(
    State(state): State<Arc<Mutex<Script>>>,
    Form(form): Form<Revocation>,
) -> StatusCode {
    let answer = {
        let mut state = state.lock().unwrap();
        state.revoked.push(form.token);
        state.answers.pop_front()
    };
    match answer {
        None => StatusCode::OK,
        Some(Answer::Status(status)) => StatusCode::from_u16(status).unwrap(),
        Some(Answer::Never) => std::future::pending().await,
    }
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/revoke", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().route("/revoke", post(revoke));
        let router = router.with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            http: reqwest::Client::new(),
            state,
        }
    }

    fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().answers.extend(answers);
    }

    /// The tokens that were to be revoked, in order of the alphabet.
    fn revoked(&self) -> Vec<String> {
        let mut revoked = self.state.lock().unwrap().revoked.clone();
        revoked.sort();
        revoked
    }
}

impl Revoke for Provider {
    async fn revoke(&self, refresh_token: &Secret) -> Result<(), BoxError> {
        let form = [("token", refresh_token.expose())];
        let answer = self.http.post(&self.url).form(&form).send().await?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            StatusCode::BAD_REQUEST => Err(ProviderError::refused("unsupported_token_type").into()),
            status => Err(ProviderError::status(status).into()),
        }
    }
}

fn revoking(store: &TestStore, provider: &Provider) -> Builder {
    builder(store.clone()).revoke_with(None, provider.clone())
}

async fn keep(tokens: &Tokens, refresh_token: &str) {
    let set = TokenSet::from(token("t")).with_refresh_token(refresh_token.to_owned());
    tokens.insert("graph", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

/// Waits until all that is to be revoked was.
async fn settled(cache: &TokenCache, revocations: u64) {
    eventually("the provider has heard of it", async || {
        let stats = cache.stats();
        (stats.pending_revocations, stats.revocations) == (0, revocations)
    })
    .await;
}

#[tokio::test]
async fn the_refresh_token_is_revoked_once_l2_has_the_sign_out() {
    let (store, provider) = (TestStore::default(), Provider::start().await);
    let cache = revoking(&store, &provider).build().unwrap();
    let tokens = cache.tokens(session("s"));
    keep(&tokens, "r1").await;
    store.set_down(true);
    assert_eq!(tokens.sign_out().await.unwrap(), Durability::Pending);
    assert!(provider.revoked().is_empty(), "L2 has not heard of it");
    store.set_down(false);
    settled(&cache, 1).await;
    assert_eq!(provider.revoked(), ["r1"]);
    // Nothing is left to revoke.
    assert_stored(cache.tokens(session("s")).sign_out().await.unwrap());
    settled(&cache, 1).await;
    assert_eq!(provider.revoked(), ["r1"]);
}

/// Memory has an older token, or none: L2 is read before the sign-out anyway.
#[tokio::test]
async fn what_only_l2_has_is_revoked_too() {
    let (store, provider) = (TestStore::default(), Provider::start().await);
    let build = || revoking(&store, &provider).build().unwrap();
    let (here, there) = (build(), build());
    keep(&here.tokens(session("s")), "r1").await;
    keep(&there.tokens(session("s")), "r2").await;
    assert_stored(here.tokens(session("s")).sign_out().await.unwrap());
    settled(&here, 2).await;
    assert_eq!(provider.revoked(), ["r1", "r2"]);
    keep(&here.tokens(session("t")), "r3").await;
    assert_stored(build().tokens(session("t")).sign_out().await.unwrap());
    eventually("it is revoked", async || {
        provider.revoked().contains(&"r3".into())
    })
    .await;
}

#[tokio::test]
async fn what_is_sealed_in_redis_is_opened_to_be_revoked() {
    let (server, provider) = (RedisServer::start(), Provider::start().await);
    let key = RingKey::from_bytes([7; 32]);
    let build = async || {
        let ring = KeyRing::from_keys(key.clone(), []);
        let builder = builder(redis_store(&server).await).key_ring(ring);
        builder.revoke_with(None, provider.clone()).build().unwrap()
    };
    let tokens = build().await.tokens(session("s"));
    keep(&tokens, "r1").await;
    tokens.link_user("ada").await.unwrap();
    keep(&build().await.tokens(session("t")), "r2").await;
    let fresh = build().await;
    assert_stored(fresh.tokens(session("t")).sign_out().await.unwrap());
    assert_stored(fresh.sign_out_user("ada").await.unwrap());
    settled(&fresh, 2).await;
    assert_eq!(provider.revoked(), ["r1", "r2"]);
}

#[tokio::test]
async fn each_provider_is_told_of_its_own_tokens_only() {
    let store = TestStore::default();
    let (ours, google) = (Provider::start().await, Provider::start().await);
    let cache = revoking(&store, &ours).revoke_with("google", google.clone());
    let cache = cache.build().unwrap();
    let tokens = cache.tokens(session("s"));
    keep(&tokens, "ours").await;
    keep(&tokens.client("google").unwrap(), "google's").await;
    keep(&tokens.client("github").unwrap(), "github's").await;
    assert_stored(tokens.sign_out().await.unwrap());
    settled(&cache, 2).await;
    assert_eq!(
        (ours.revoked(), google.revoked()),
        (vec!["ours".into()], vec!["google's".into()])
    );
}

#[tokio::test]
async fn a_user_who_signs_out_everywhere_has_all_sessions_revoked() {
    let (store, provider) = (TestStore::default(), Provider::start().await);
    let build = || revoking(&store, &provider).build().unwrap();
    let cache = build();
    for id in ["a", "b", "c"] {
        let tokens = cache.tokens(session(id));
        keep(&tokens, id).await;
        tokens
            .link_user(if id == "c" { "bob" } else { "ada" })
            .await
            .unwrap();
    }
    let other = build();
    assert_stored(other.sign_out_user("ada").await.unwrap());
    settled(&other, 2).await;
    assert_eq!(provider.revoked(), ["a", "b"]);
    assert!(other.sessions_of("ada").await.unwrap().is_empty());
    // A provider's logout is the same.
    let tokens = cache.tokens(session("d"));
    keep(&tokens, "d").await;
    tokens
        .link_provider_session("https://login.example", "1")
        .await
        .unwrap();
    let ended = other
        .sign_out_provider_session("https://login.example", "1")
        .await;
    assert_stored(ended.unwrap());
    settled(&other, 3).await;
    assert_eq!(provider.revoked(), ["a", "b", "d"]);
}

/// The tokens of a session that was moved go on, and those that a sign-in replaces may be of the same grant.
#[tokio::test]
async fn a_move_and_a_new_sign_in_revoke_nothing() {
    let (store, provider) = (TestStore::default(), Provider::start().await);
    let cache = revoking(&store, &provider).build().unwrap();
    let tokens = cache.tokens(session("s"));
    keep(&tokens, "moved").await;
    let moved = tokens.move_to(session("t")).await.unwrap();
    let layer = TokenCacheLayer::new(cache.clone(), Cookie::new("sid").unwrap());
    let handler = service_fn(async |request: Request<()>| {
        let tokens = request.extensions().get::<Tokens>().unwrap();
        for refresh_token in ["first", "second"] {
            let set = TokenSet::from(token("t")).with_refresh_token(refresh_token);
            let signed_in = tokens.sign_in(SignIn::new("graph", set)).await;
            assert_stored(signed_in.unwrap());
        }
        assert_stored(tokens.sign_out().await.unwrap());
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    layer
        .layer(handler)
        .oneshot(Request::new(()))
        .await
        .unwrap();
    settled(&cache, 1).await;
    assert_eq!(provider.revoked(), ["second"]);
    assert_stored(moved.sign_out().await.unwrap());
    settled(&cache, 2).await;
    assert_eq!(provider.revoked(), ["moved", "second"]);
}

#[tokio::test]
async fn a_revocation_is_repeated_unless_it_is_refused() {
    let (store, provider) = (TestStore::default(), Provider::start().await);
    let cache = revoking(&store, &provider).build().unwrap();
    provider.answers([Answer::Status(500), Answer::Status(503)]);
    keep(&cache.tokens(session("s")), "r1").await;
    assert_stored(cache.tokens(session("s")).sign_out().await.unwrap());
    settled(&cache, 1).await;
    assert_eq!(provider.revoked(), ["r1", "r1", "r1"]);

    provider.answers([Answer::Status(400)]);
    keep(&cache.tokens(session("s")), "r2").await;
    assert_stored(cache.tokens(session("s")).sign_out().await.unwrap());
    eventually("it has failed", async || {
        cache.stats().failed_revocations == 1
    })
    .await;
    assert_eq!(provider.revoked(), ["r1", "r1", "r1", "r2"]);
}

struct Panics;

impl Revoke for Panics {
    async fn revoke(&self, _: &Secret) -> Result<(), BoxError> {
        panic!("on purpose");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_is_a_failure_like_any_other() {
    let store = TestStore::default();
    let cache = builder(store).revoke_with(None, Panics).build().unwrap();
    keep(&cache.tokens(session("s")), "r1").await;
    assert_stored(cache.tokens(session("s")).sign_out().await.unwrap());
    eventually("it has failed", async || {
        cache.stats().failed_revocations == 1
    })
    .await;
    assert_eq!(cache.stats().pending_revocations, 0);
}

#[tokio::test]
async fn a_shutdown_waits_for_revocations_and_reports_those_that_did_not_end() {
    let (store, provider) = (TestStore::default(), Provider::start().await);
    let cache = revoking(&store, &provider).build().unwrap();
    provider.answers([Answer::Status(503)]);
    keep(&cache.tokens(session("s")), "r1").await;
    assert_stored(cache.tokens(session("s")).sign_out().await.unwrap());
    let report = cache.shutdown(Duration::from_secs(20)).await;
    assert_eq!(report.revocations_abandoned, 0);
    assert_eq!(
        (cache.stats().revocations, provider.revoked().len()),
        (1, 2)
    );

    let cache = revoking(&store, &provider).build().unwrap();
    provider.answers([Answer::Never]);
    keep(&cache.tokens(session("s")), "r2").await;
    assert_stored(cache.tokens(session("s")).sign_out().await.unwrap());
    let report = cache.shutdown(Duration::from_millis(200)).await;
    assert_eq!(report.revocations_abandoned, 1);
}

#[tokio::test]
async fn a_client_is_named_once() {
    let provider = Provider::start().await;
    let store = TestStore::default();
    let option = |builder: Builder| builder.build().unwrap_err().option();
    let twice = revoking(&store, &provider).revoke_with(None, provider.clone());
    assert_eq!(option(twice), "revoke_with");
    let nameless = builder(store).revoke_with("", provider);
    assert_eq!(option(nameless), "revoke_with");
}
