//! One cause has one kind and one status, whatever an application wraps its errors in.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{Responder, ResponseError};
use anyhow::Context as _;
use axum::response::IntoResponse;
use common::support::{TestStore, assert_stored, cache, session, token};
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use oauth2::basic::{BasicErrorResponse, BasicErrorResponseType as Code, BasicRequestTokenError};
use oauth2::{HttpClientError, RequestTokenError};
use tower_token_cache::outgoing::{CallError, TokenError};
use tower_token_cache::{
    BoxError, Challenge, Durability, Error, MemoryStore, PartitionKey, Prior, ProviderError,
    StoreError, StoreErrorKind, TokenCache, TokenSet, Tokens,
};

#[derive(Debug, thiserror::Error)]
enum Wrapped<E: StdError + 'static> {
    #[error(transparent)]
    Transparent(E),
    #[error("refreshing failed")]
    Source(#[source] E),
    #[error("refreshing failed: {0}")]
    SaidToo(#[source] E),
}

#[derive(Debug, thiserror::Error)]
enum Erased {
    #[error(transparent)]
    Anyhow(anyhow::Error),
    #[error("refreshing failed")]
    Boxed(#[source] BoxError),
}

/// An error in each wrapper.
fn wrapped<E>(make: impl Fn() -> E) -> [(&'static str, BoxError); 15]
where
    E: StdError + Send + Sync + 'static,
{
    let anyhow = || anyhow::Error::from(make());
    let context = || Err::<(), _>(make()).context("refreshing").unwrap_err();
    [
        ("bare", make().into()),
        ("Box", Box::new(Box::new(make())) as BoxError),
        ("Arc", Arc::new(make()).into()),
        ("io::Error", io::Error::other(make()).into()),
        ("anyhow", anyhow().into()),
        ("anyhow with context", context().into()),
        ("anyhow with two", context().context("more").into()),
        ("transparent", Wrapped::Transparent(make()).into()),
        ("source", Wrapped::Source(make()).into()),
        ("source, and said", Wrapped::SaidToo(make()).into()),
        (
            "two transparent",
            Wrapped::Transparent(Wrapped::Transparent(make())).into(),
        ),
        ("transparent anyhow", Erased::Anyhow(anyhow()).into()),
        (
            "transparent anyhow with context",
            Erased::Anyhow(context()).into(),
        ),
        ("boxed source", Erased::Boxed(make().into()).into()),
        ("boxed anyhow", Erased::Boxed(anyhow().into()).into()),
    ]
}

fn tokens() -> Tokens {
    let cache = TokenCache::builder(MemoryStore::new()).build().unwrap();
    cache.tokens(PartitionKey::session("s").unwrap())
}

/// The error of an acquisition whose function fails with `error`.
async fn failure(tokens: &Tokens, error: BoxError) -> Error {
    let call = async move |_: Prior| Err::<TokenSet, BoxError>(error);
    let outcome = tokens.get_or_acquire("graph", call).await;
    outcome.expect_err("no token")
}

async fn assert_status<E>(name: &str, make: impl Fn() -> E, expected: u16)
where
    E: StdError + Send + Sync + 'static,
{
    for (wrapper, error) in wrapped(make) {
        let error = failure(&tokens(), error).await;
        let expected = StatusCode::from_u16(expected).unwrap();
        assert_eq!(error.status(), expected, "{name} in {wrapper}");
    }
}

#[tokio::test]
async fn a_provider_error_has_one_status_in_each_wrapper() {
    for (code, status) in [
        ("invalid_grant", 401),
        ("login_required", 401),
        ("AADSTS700082", 401),
        ("bad_refresh_token", 401),
        ("slow_down", 503),
        ("ratelimited", 503),
        ("invalid_client", 502),
        ("server_error", 502),
    ] {
        assert_status(code, || ProviderError::refused(code), status).await;
    }
    for (answer, status) in [(429, 503), (503, 503), (500, 502), (403, 502)] {
        let answer = StatusCode::from_u16(answer).unwrap();
        assert_status(answer.as_str(), || ProviderError::status(answer), status).await;
    }
    let unreachable = || ProviderError::unreachable(io::Error::other("cut"));
    assert_status("unreachable", unreachable, 502).await;
    assert_status("another", || io::Error::other("own"), 502).await;
}

/// What an API has demanded of the user.
fn step_up() -> Error {
    let field = HeaderValue::from_static(r#"Bearer error="insufficient_user_authentication""#);
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, field)]);
    Error::StepUp(Challenge::from_headers(&headers).unwrap())
}

#[tokio::test]
async fn an_error_of_this_crate_has_its_own_status_in_each_wrapper() {
    let unavailable = || Error::Unavailable(StoreError::new(StoreErrorKind::Timeout));
    for error in [
        Error::NoPartition,
        Error::SignedOut,
        Error::Overloaded,
        Error::ShutDown,
        unavailable(),
        step_up(),
    ] {
        let (name, status) = (error.to_string(), error.status());
        assert_status(&name, || error.clone(), status.as_u16()).await;
    }
    // What is remembered of a failure has no source.
    for code in ["invalid_grant", "slow_down", "invalid_client"] {
        let tokens = tokens();
        let first = failure(&tokens, ProviderError::refused(code).into()).await;
        let remembered = failure(&tokens, io::Error::other("not asked").into()).await;
        assert_eq!(first.status(), remembered.status(), "{code}");
        for error in [first, remembered] {
            let status = error.status().as_u16();
            assert_status(code, || error.clone(), status).await;
            let Error::Acquire(error) = error else {
                panic!("{error}")
            };
            assert_status(code, || error.clone(), status).await;
        }
    }
}

#[tokio::test]
async fn what_a_provider_demands_of_the_next_login_is_kept_in_each_wrapper() {
    let demand = r#"{"access_token":{"acrs":{"value":"c1"}}}"#;
    let with = |claims: &'static str| {
        move || ProviderError::refused("interaction_required").with_claims(claims)
    };
    for (wrapper, error) in wrapped(with(demand)) {
        let store = TestStore::default();
        let [here, elsewhere] = [&store; 2].map(|store| cache(store.clone()).tokens(session("s")));
        here.insert("mail", token("t")).await.unwrap();
        let first = failure(&here, error).await;
        assert_stored(here.commit().await.unwrap());
        // It is told as long as the refusal is remembered, on each instance.
        let remembered = failure(&here, "not asked".into()).await;
        let told = failure(&elsewhere, "not asked".into()).await;
        for error in [first, remembered, told] {
            match error {
                Error::StepUp(challenge) => {
                    assert_eq!(challenge.claims(), Some(demand), "{wrapper}");
                }
                other => panic!("{wrapper}: {other:?}"),
            }
        }
    }
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(8 * 1024));
    for odd in ["", "7", "[]", "{", long.leak()] {
        let error = failure(&tokens(), with(odd)().into()).await;
        assert!(matches!(error, Error::Acquire(_)), "{odd}");
    }
    // A provider that is away demands nothing.
    let away = ProviderError::refused("server_error").with_claims(demand);
    assert_eq!(failure(&tokens(), away.into()).await.status(), 502);
}

#[tokio::test]
async fn an_error_of_oauth2_has_one_status_in_each_wrapper() {
    fn refused<RE: StdError + Send + Sync + 'static>(code: &Code) -> BasicRequestTokenError<RE> {
        let text = Some("with: a (description)".into());
        RequestTokenError::ServerResponse(BasicErrorResponse::new(code.clone(), text, None))
    }
    let later = Code::Extension("temporarily_unavailable".into());
    for (code, status) in [
        (Code::InvalidGrant, 401),
        (later, 503),
        (Code::InvalidClient, 502),
    ] {
        let name = code.as_ref();
        let by_http = || refused::<HttpClientError<reqwest::Error>>(&code);
        assert_status(name, by_http, status).await;
        assert_status(name, || refused::<io::Error>(&code), status).await;
        // Of an HTTP client that this crate has never heard of.
        assert_status(name, || refused::<std::fmt::Error>(&code), status).await;
    }
    for (answer, status) in [(429, 503), (503, 503), (500, 502), (401, 502)] {
        let make = || {
            let answer = http::Response::builder().status(answer).body("").unwrap();
            let answer = reqwest::Response::from(answer);
            answer.error_for_status().unwrap_err()
        };
        assert_status(&answer.to_string(), make, status).await;
    }
}

const PAUSE: Duration = Duration::from_secs(1000);

async fn assert_paused(wrapper: &str, error: BoxError) {
    let Error::Acquire(error) = failure(&tokens(), error).await else {
        panic!("{wrapper}")
    };
    let now = tower_token_cache::Timestamp::now();
    let left = error.retry_at().expect("a pause").since(now).as_secs();
    assert!((900..=1000).contains(&left), "{wrapper}: {left}");
}

#[tokio::test]
async fn a_pause_is_kept_in_each_wrapper() {
    let make = || ProviderError::refused("slow_down").with_retry_after(PAUSE);
    for (wrapper, error) in wrapped(make) {
        assert_paused(wrapper, error).await;
    }
}

#[tokio::test]
async fn the_pause_of_a_failure_that_is_remembered_is_kept_in_each_wrapper() {
    let cases = [
        || ProviderError::refused("slow_down").with_retry_after(PAUSE),
        || ProviderError::status(StatusCode::BAD_GATEWAY).with_retry_after(PAUSE),
    ];
    for case in cases {
        let tokens = tokens();
        failure(&tokens, case().into()).await;
        let Error::Acquire(remembered) = failure(&tokens, "not asked".into()).await else {
            panic!("it is remembered")
        };
        for (wrapper, error) in wrapped(|| remembered.clone()) {
            assert_paused(wrapper, error).await;
        }
        for (wrapper, error) in wrapped(|| Error::Acquire(remembered.clone())) {
            assert_paused(wrapper, error).await;
        }
    }
}

#[tokio::test]
async fn a_required_refresh_token_that_is_absent_is_a_sign_in() {
    let tokens = tokens();
    tokens
        .insert("other", tower_token_cache::Token::new("a"))
        .await
        .unwrap();
    let call = async |prior: Prior| -> anyhow::Result<TokenSet> {
        prior.require_refresh_token()?;
        unreachable!("there is none")
    };
    let error = tokens.get_or_acquire("graph", call).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
}

/// The status, `Retry-After` in seconds, and the body that a browser gets of an error, by both frameworks. A 401 says what it
/// asks for, and no other status does.
async fn answered(error: impl ResponseError + IntoResponse) -> (u16, Option<u64>, String) {
    use http_body_util::BodyExt;
    let asked = |header: Option<&[u8]>| header.map(|it| String::from_utf8(it.to_vec()).unwrap());
    let seconds = |value: &[u8]| std::str::from_utf8(value).unwrap().parse::<u64>().unwrap();
    let by_actix = error.error_response();
    let of_actix = by_actix.headers().get("www-authenticate");
    let asked_by_actix = asked(of_actix.map(|it| it.as_bytes()));
    let status = by_actix.status().as_u16();
    let after = by_actix.headers().get("retry-after");
    let after = after.map(|value| seconds(value.as_bytes()));
    let body = actix_web::body::to_bytes(by_actix.into_body()).await;
    let of_actix = (status, body.unwrap().to_vec());
    let after_of_actix = after;

    let response = error.into_response();
    let status = response.status().as_u16();
    let of_axum = response.headers().get("www-authenticate");
    let asked_by_axum = asked(of_axum.map(|it| it.as_bytes()));
    let session = (status == 401).then(|| "Session".to_owned());
    assert_eq!([asked_by_axum, asked_by_actix], [session.clone(), session]);
    let after = response.headers().get("retry-after");
    let after = after.map(|value| seconds(value.as_bytes()));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((status, body.to_vec()), of_actix);
    // Time has passed in between.
    assert_eq!(after.is_some(), after_of_actix.is_some());
    assert!(after <= after_of_actix, "{after:?}, {after_of_actix:?}");
    (status, after, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_answer_says_in_a_few_words_what_is_wrong_and_when_to_come_again() {
    let paused = ProviderError::refused("slow_down").with_retry_after(PAUSE);
    let (status, after, body) = answered(failure(&tokens(), paused.into()).await).await;
    assert_eq!((status, &*body), (503, "acquiring a token failed"));
    // Rounded up.
    assert!((900..=1001).contains(&after.unwrap()), "{after:?}");

    let secret = "eyJhbGciOi of the answer";
    let (status, after, body) = answered(failure(&tokens(), secret.into()).await).await;
    assert_eq!((status, &*body), (502, "acquiring a token failed"));
    // A second, or a little more.
    assert!((1..=2).contains(&after.unwrap()), "{after:?}");

    let refused = ProviderError::refused("invalid_grant");
    let (status, after, _) = answered(failure(&tokens(), refused.into()).await).await;
    assert_eq!((status, after), (401, None), "to wait does not help");

    let away = Error::Unavailable(StoreError::new(StoreErrorKind::Timeout));
    let expected = (503, Some(1), "the token store is unavailable".to_owned());
    assert_eq!(answered(away).await, expected);
    assert_eq!(answered(Error::SignedOut).await.1, None);
}

/// To come sooner would be in vain.
#[tokio::test]
async fn a_pause_is_over_when_a_client_is_told_to_come_again() {
    for seconds in [1, 2, 20] {
        let pause = Duration::from_secs(seconds);
        let busy = ProviderError::refused("slow_down").with_retry_after(pause);
        let error = failure(&tokens(), busy.into()).await;
        let after = error.retry_after().expect("a pause");
        let Error::Acquire(error) = error else {
            panic!("{error}")
        };
        let end = error.retry_at().unwrap();
        let left = end.since(tower_token_cache::Timestamp::now());
        assert!(
            after >= left && after <= pause + Duration::from_secs(1),
            "{after:?} of {left:?}"
        );
    }
}

#[tokio::test]
async fn an_error_of_an_outgoing_request_is_answered_as_its_cause() {
    type Call = CallError<io::Error>;
    for error in [Error::SignedOut, Error::NoPartition, Error::Overloaded] {
        let call = Call::Token(TokenError::Cache(error.clone()));
        assert_eq!(call.status(), error.status());
        assert_eq!(answered(call).await, answered(error).await);
    }
    let unreachable = Call::Call(io::Error::other("GET https://api.internal/ada: refused"));
    for (error, status) in [
        (Call::Token(TokenError::NoTokens), 500),
        (Call::Token(TokenError::NotBearer), 502),
        (unreachable, 502),
    ] {
        let text = error.to_string();
        assert_eq!(error.status().as_u16(), status);
        assert_eq!(answered(error).await, (status, None, text.clone()));
        assert!(!text.contains("ada"), "{text}");
    }
}

#[test]
fn what_is_pending_is_accepted_and_no_more() {
    for (durability, status) in [(Durability::Stored, 204), (Durability::Pending, 202)] {
        let request = actix_web::test::TestRequest::default().to_http_request();
        assert_eq!(durability.respond_to(&request).status().as_u16(), status);
        assert_eq!(durability.into_response().status().as_u16(), status);
    }
}
