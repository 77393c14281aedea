//! Services that take a token and want more: what can be got is got once, and what needs the user is an error that says so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use bytes::Bytes;
use common::support::{builder, cache, session, token};
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_token_cache::outgoing::{BearerLayer, CallError, Origins, ReplayBody, TokenError};
use tower_token_cache::{
    AcquireErrorKind, BoxError, Challenge, ChallengeKind, Error, EventKind, Lookup, MemoryStore,
    Prior, ProviderError, RefusedRefreshToken, TokenCache, TokenKey, TokenSet, Tokens,
};

const MFA: &str =
    r#"Bearer error="insufficient_user_authentication", acr_values="mfa", max_age=60"#;
/// For `{"a":{}}`.
const CLAIMS: &str = r#"Bearer realm="", error="insufficient_claims", claims="eyJhIjp7fX0=""#;
const SCOPE: &str = r#"Negotiate, Bearer error="insufficient_scope", scope="write""#;

type Answer = (u16, &'static str);

/// A service that answers each token as it is told, with a status and a challenge.
#[derive(Clone)]
struct Api {
    answers: Arc<dyn Fn(&str) -> Answer + Send + Sync>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn new(answers: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            answers: Arc::new(answers),
            seen: Arc::default(),
        }
    }

    /// Says this to the token `old`, and takes all others.
    fn wanting_more(status: u16, challenge: &'static str) -> Self {
        Self::new(move |token| match token {
            "old" => (status, challenge),
            _ => (200, ""),
        })
    }

    async fn start(&self) -> String {
        let api = self.clone();
        let handler = async move |headers: HeaderMap| {
            let token = headers[AUTHORIZATION].to_str().unwrap();
            let token = token.strip_prefix("Bearer ").unwrap();
            api.seen.lock().unwrap().push(token.to_owned());
            let (status, challenge) = (api.answers)(token);
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(WWW_AUTHENTICATE, challenge)]).into_response()
        };
        let app = Router::new().fallback(axum::routing::any(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        url
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// What a provider was asked for: key and claims.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn note(&self, prior: &Prior) -> usize {
        let mut asked = self.0.lock().unwrap();
        asked.push(format!("{} {}", prior.key(), prior.claims().unwrap_or("-")));
        asked.len()
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A source that gives `new-1`, `new-2` and so on; or refuses all that is demanded with this code.
fn layer(url: &str, asked: &Asked, refuses: Option<&'static str>) -> BearerLayer {
    let asked = asked.clone();
    let source = move |prior: Prior| {
        let number = asked.note(&prior);
        let is_demanded = prior.claims().is_some() || prior.key().scopes().next().is_some();
        let refused = refuses.filter(|_| is_demanded);
        async move {
            match refused {
                Some(code) => Err(BoxError::from(ProviderError::refused(code))),
                None => Ok(TokenSet::from(token(&format!("new-{number}")))),
            }
        }
    };
    let layer = BearerLayer::new("api", source, Origins::new([url]).unwrap()).unwrap();
    layer.scopes_on_demand(["write"])
}

/// A user who has the tokens `old` and `other`, and a refresh token.
async fn user(cache: &TokenCache) -> Tokens {
    let tokens = cache.tokens(session("u"));
    let set = TokenSet::from(token("old")).with_refresh_token("r");
    tokens.insert("api", set).await.unwrap();
    tokens.insert("mail", token("other")).await.unwrap();
    tokens
}

async fn call<C>(layer: &BearerLayer<C>, url: &str, tokens: &Tokens) -> Result<u16, TokenError>
where
    C: ReplayBody<Full<Bytes>> + Clone,
{
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::post(url)
        .body(Full::<Bytes>::from("hello"))
        .unwrap();
    request.extensions_mut().insert(tokens.clone());
    match layer.layer(client).oneshot(request).await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(CallError::Token(error)) => Err(error),
        Err(error) => panic!("{error:?}"),
    }
}

/// The same by the middleware of reqwest.
async fn call_by_reqwest(
    layer: &BearerLayer,
    url: &str,
    tokens: &Tokens,
    body: reqwest::Body,
) -> Result<u16, TokenError> {
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new());
    let client = client
        .with(layer.clone().for_tokens(tokens.clone()))
        .build();
    match client.post(url).body(body).send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(reqwest_middleware::Error::Middleware(error)) => {
            Err(error.downcast_ref::<TokenError>().unwrap().clone())
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn step_up(outcome: Result<u16, TokenError>) -> Challenge {
    match outcome {
        Err(TokenError::Cache(Error::StepUp(challenge))) => challenge,
        other => panic!("{other:?}"),
    }
}

async fn has(tokens: &Tokens, name: &str) -> String {
    match tokens.get(name).await.unwrap() {
        Lookup::Hit(token) => token.access_token().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn demanded_claims_are_got_once_and_the_request_is_sent_again() {
    let (api, asked) = (Api::wanting_more(401, CLAIMS), Asked::default());
    let url = api.start().await;
    let cache = cache(MemoryStore::new());
    let (tokens, layer) = (user(&cache).await, layer(&url, &asked, None));
    let calls = (0..50).map(|_| call(&layer, &url, &tokens));
    for outcome in join_all(calls).await {
        assert_eq!(outcome.unwrap(), 200);
    }
    assert_eq!(call(&layer, &url, &tokens).await.unwrap(), 200);
    assert_eq!(asked.get(), [r#"api {"a":{}}"#]);
    // It has taken the place of the one before; others stay.
    assert_eq!(has(&tokens, "api").await, "new-1");
    assert_eq!(has(&tokens, "mail").await, "other");
    assert_eq!(api.seen().last().unwrap(), "new-1");

    let fresh = cache.tokens(session("v"));
    fresh.insert("api", token("old")).await.unwrap();
    let outcome = call_by_reqwest(&layer, &url, &fresh, "hello".into()).await;
    assert_eq!(outcome.unwrap(), 200);
    assert_eq!(has(&fresh, "api").await, "new-2");
}

#[tokio::test]
async fn demanded_scopes_are_got_once_beside_the_token_that_there_is() {
    let (api, asked) = (Api::wanting_more(403, SCOPE), Asked::default());
    let url = api.start().await;
    let cache = cache(MemoryStore::new());
    let (tokens, layer) = (user(&cache).await, layer(&url, &asked, None));
    for _ in 0..3 {
        assert_eq!(call(&layer, &url, &tokens).await.unwrap(), 200);
    }
    assert_eq!(asked.get(), ["api [write] -"]);
    assert_eq!(api.seen(), ["old", "new-1"].repeat(3));
    assert_eq!(has(&tokens, "api").await, "old");
    let scoped = TokenKey::scoped("api", ["write"]).unwrap();
    assert!(tokens.contains(&scoped).await.unwrap());
}

/// The application says which scopes an API may have: by others it would get tokens for another API, or fill the session.
#[tokio::test]
async fn scopes_that_are_not_listed_need_the_user() {
    for scope in ["read", "write read", "Write", &"x".repeat(2900)] {
        let challenge = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
        let (api, asked) = (Api::wanting_more(403, challenge.leak()), Asked::default());
        let url = api.start().await;
        let cache = cache(MemoryStore::new());
        let (tokens, layer) = (user(&cache).await, layer(&url, &asked, None));
        let demanded = step_up(call(&layer, &url, &tokens).await);
        assert_eq!(Vec::from_iter(demanded.scopes()).join(" "), scope);
        let demanded = call_by_reqwest(&layer, &url, &tokens, "hello".into()).await;
        assert_eq!(step_up(demanded).kind(), ChallengeKind::Scope);
        assert!(asked.get().is_empty(), "{scope}");
        assert_eq!(api.seen(), ["old"; 2], "{scope}");
        assert_eq!(tokens.keys().await.unwrap().len(), 2, "{scope}");
    }
}

#[tokio::test]
async fn a_login_is_demanded_of_the_user_and_nothing_is_thrown_away() {
    let (api, asked) = (Api::wanting_more(401, MFA), Asked::default());
    let url = api.start().await;
    let cache = cache(MemoryStore::new());
    let (tokens, layer) = (user(&cache).await, layer(&url, &asked, None));
    let once = layer.clone().replay_body(|_: &Full<Bytes>| None);
    let streamed = reqwest::Body::wrap(Full::<Bytes>::from("hello"));
    for outcome in [
        call(&layer, &url, &tokens).await,
        call_by_reqwest(&layer, &url, &tokens, "hello".into()).await,
        // Bodies that cannot be sent twice.
        call(&once, &url, &tokens).await,
        call_by_reqwest(&layer, &url, &tokens, streamed).await,
    ] {
        let challenge = step_up(outcome);
        assert_eq!(challenge.kind(), ChallengeKind::Authentication);
        assert_eq!(Vec::from_iter(challenge.acr_values()), ["mfa"]);
        assert_eq!(challenge.max_age(), Some(Duration::from_secs(60)));
        let error = Error::StepUp(challenge);
        assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(api.seen(), ["old"; 4]);
    assert!(asked.get().is_empty());
    assert_eq!(has(&tokens, "api").await, "old");
    assert_eq!(has(&tokens, "mail").await, "other");
    assert_eq!(
        tokens
            .refresh_token()
            .await
            .unwrap()
            .hit()
            .unwrap()
            .expose(),
        "r"
    );
}

/// As another request does that was challenged for the same token, and was faster.
#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_another_token_meanwhile_nothing_is_asked_for() {
    for challenge in [MFA, CLAIMS] {
        let cache = cache(MemoryStore::new());
        let tokens = user(&cache).await;
        let (beside, runtime) = (tokens.clone(), tokio::runtime::Handle::current());
        let api = Api::new(move |known| match known {
            "old" => {
                let beside = beside.clone();
                let (sender, done) = std::sync::mpsc::channel();
                runtime.spawn(async move {
                    beside.insert("api", token("strong")).await.unwrap();
                    sender.send(()).unwrap();
                });
                tokio::task::block_in_place(|| done.recv().unwrap());
                (401, challenge)
            }
            _ => (200, ""),
        });
        let (url, asked) = (api.start().await, Asked::default());
        let layer = layer(&url, &asked, None);
        assert_eq!(call(&layer, &url, &tokens).await.unwrap(), 200);
        assert_eq!(api.seen(), ["old", "strong"], "{challenge}");
        assert!(asked.get().is_empty(), "{challenge}");
    }
}

/// What a provider refuses to a demand is no word about the refresh token.
#[tokio::test]
async fn what_the_provider_refuses_to_give_needs_the_user_and_leaves_all_else() {
    for (status, challenge, code, kind, expected) in [
        (
            401,
            CLAIMS,
            "interaction_required",
            ChallengeKind::Claims,
            401,
        ),
        (401, CLAIMS, "invalid_grant", ChallengeKind::Claims, 401),
        (403, SCOPE, "invalid_scope", ChallengeKind::Scope, 403),
        (403, SCOPE, "invalid_grant", ChallengeKind::Scope, 403),
    ] {
        let (api, asked) = (Api::wanting_more(status, challenge), Asked::default());
        let url = api.start().await;
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let cache = builder(MemoryStore::new())
            .refused_refresh_token(RefusedRefreshToken::SignOut)
            .on_event(move |event| {
                let is_it = matches!(event.kind, EventKind::ReauthenticationRequired { .. });
                seen.fetch_add(usize::from(is_it), Ordering::SeqCst);
            })
            .build()
            .unwrap();
        let (tokens, layer) = (user(&cache).await, layer(&url, &asked, Some(code)));
        for _ in 0..3 {
            let challenge = step_up(call(&layer, &url, &tokens).await);
            assert_eq!(challenge.kind(), kind, "{code}");
            assert_eq!(Error::StepUp(challenge).status(), expected, "{code}");
        }
        assert_eq!(asked.get().len(), 1, "{code}: a refusal is remembered");
        assert_eq!(has(&tokens, "api").await, "old");
        assert_eq!(has(&tokens, "mail").await, "other");
        // The refresh token still serves: this key's next token, and others'.
        for key in ["api", "files"] {
            let again = tokens.acquire(key).unwrap().force_refresh();
            let source = async |prior: Prior| {
                assert_eq!(prior.refresh_token().unwrap().expose(), "r");
                Ok::<TokenSet, BoxError>(token("refreshed").into())
            };
            again.with(source).await.unwrap();
        }
        cache.shutdown(Duration::from_secs(10)).await;
        assert_eq!(told.load(Ordering::SeqCst), 0, "{code}");
    }
}

#[tokio::test]
async fn a_provider_that_is_away_is_no_step_up() {
    let (api, asked) = (Api::wanting_more(401, CLAIMS), Asked::default());
    let url = api.start().await;
    let cache = cache(MemoryStore::new());
    let (tokens, layer) = (
        user(&cache).await,
        layer(&url, &asked, Some("server_error")),
    );
    match call(&layer, &url, &tokens).await {
        Err(TokenError::Cache(Error::Acquire(error))) => {
            assert_eq!(error.kind(), AcquireErrorKind::Failed);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(has(&tokens, "api").await, "old");
}

#[tokio::test]
async fn what_the_second_answer_demands_needs_the_user() {
    for (first, second) in [
        ((401, "Bearer error=invalid_token"), (401, MFA)),
        ((401, CLAIMS), (401, CLAIMS)),
        ((403, SCOPE), (401, MFA)),
    ] {
        let api = Api::new(move |token| if token == "old" { first } else { second });
        let (url, asked) = (api.start().await, Asked::default());
        let cache = cache(MemoryStore::new());
        let (tokens, layer) = (user(&cache).await, layer(&url, &asked, None));
        step_up(call(&layer, &url, &tokens).await);
        assert_eq!(api.seen(), ["old", "new-1"], "{first:?}");
        let by_reqwest = cache.tokens(session("v"));
        by_reqwest.insert("api", token("old")).await.unwrap();
        step_up(call_by_reqwest(&layer, &url, &by_reqwest, "hello".into()).await);
    }
}

#[tokio::test]
async fn a_body_that_is_sent_once_gets_its_answer_and_the_next_request_does_better() {
    let (api, asked) = (Api::wanting_more(401, CLAIMS), Asked::default());
    let url = api.start().await;
    let cache = cache(MemoryStore::new());
    let (tokens, layer) = (user(&cache).await, layer(&url, &asked, None));
    let streamed = || reqwest::Body::wrap(Full::<Bytes>::from("hello"));
    for status in [401, 200] {
        let outcome = call_by_reqwest(&layer, &url, &tokens, streamed()).await;
        assert_eq!(outcome.unwrap(), status);
    }
    assert_eq!(asked.get().len(), 1);
    let by_tower = cache.tokens(session("v"));
    by_tower.insert("api", token("old")).await.unwrap();
    let once = layer.replay_body(|_: &Full<Bytes>| None);
    for status in [401, 200] {
        assert_eq!(call(&once, &url, &by_tower).await.unwrap(), status);
    }
}

#[tokio::test]
async fn a_refusal_that_demands_nothing_is_the_answer() {
    for challenge in [
        "",
        "Bearer",
        r#"Bearer error="insufficient_scope""#,
        r#"DPoP error="insufficient_scope", scope="write""#,
        r#"Basic realm="x", error="insufficient_user_authentication""#,
    ] {
        let (api, asked) = (Api::wanting_more(403, challenge), Asked::default());
        let url = api.start().await;
        let cache = cache(MemoryStore::new());
        let (tokens, layer) = (user(&cache).await, layer(&url, &asked, None));
        assert_eq!(
            call(&layer, &url, &tokens).await.unwrap(),
            403,
            "{challenge}"
        );
        assert!(asked.get().is_empty(), "{challenge}");
    }
}
