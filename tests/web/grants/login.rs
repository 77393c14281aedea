//! The authorization code with PKCE.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use common::support::{TestStore, builder, cache, session};
use futures_util::future::join_all;
use http::{Request, StatusCode};
use tower::ServiceExt as _;
use tower_token_cache::cookie::CookieStore;
use tower_token_cache::grant::IdTokenError;
use tower_token_cache::session::Cookie;
use tower_token_cache::{
    Clock, Error, FailurePolicy, KeyRing, ProviderError, Timestamp, TokenCacheLayer,
};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_login_gives_tokens_claims_and_the_return_address() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let url = site.flow.begin(&tokens, "/after?a=b").await.unwrap();
    let asked = Url::parse(&url).unwrap();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "app"),
        ("redirect_uri", CALLBACK),
        ("scope", "openid offline_access"),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ] {
        assert_eq!(param(&asked, name).as_deref(), Some(value), "{name}");
    }
    for name in ["state", "nonce", "code_challenge"] {
        assert_eq!(param(&asked, name).unwrap().len(), 43, "{name}");
    }
    let back = visit(&mut Browser::new(), &url).await;
    let login = site.flow.end(&tokens, callback(&back)).await.unwrap();
    assert_eq!(login.return_to, "/after?a=b");
    let claims = login.claims().unwrap();
    assert_eq!(
        (claims.subject(), claims.issuer()),
        ("alice", site.provider.issuer())
    );
    assert_eq!(claims.get::<String>("aud").as_deref(), Some("app"));
    assert!(login.tokens.refresh_token().is_some() && login.tokens.id_token().is_some());
    let access = login.tokens.access().access_token();
    assert!(site.provider.is_active(CLIENT, access).await);
    let shown = format!("{login:?} {:?}", callback(&back));
    for secret in [access, "alice", &*param(&back, "code").unwrap()] {
        assert!(!shown.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_one_login_reach_the_provider() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let mut browser = Browser::new();
    // The provider then has to say when the user signed in.
    let flow = site.flow.clone().max_age(Duration::from_secs(300));
    let url = flow.begin(&tokens, "/").await.unwrap();
    let login = flow
        .end(&tokens, callback(&visit(&mut browser, &url).await))
        .await
        .unwrap();
    assert!(login.claims().unwrap().get::<u64>("auth_time").is_some());
    // Nobody is asked, and nobody is signed in.
    let flow = AuthorizationCode::new(site.client.clone(), CALLBACK).unwrap();
    let flow = flow.param("prompt", "none").unwrap();
    let url = flow.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut Browser::new(), &url).await;
    let refused = flow.end(&tokens, callback(&back)).await.unwrap_err();
    assert_eq!(code(&refused), "login_required");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    for own in [
        "state",
        "redirect_uri",
        "code_challenge",
        "response_mode",
        "max_age",
        "scope",
    ] {
        let flow = AuthorizationCode::new(site.client.clone(), CALLBACK).unwrap();
        assert_eq!(flow.param(own, "x").unwrap_err().option(), "param", "{own}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_counts_once() {
    let site = Site::start().await;
    let store = TestStore::default();
    let instances = [cache(store.clone()), cache(store)];
    let tokens = instances[0].tokens(session("s"));
    let url = site.flow.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut Browser::new(), &url).await;
    let ends = (0..20).map(|n| {
        let (tokens, flow) = (instances[n % 2].tokens(session("s")), site.flow.clone());
        let back = callback(&back);
        async move { flow.end(&tokens, back).await }
    });
    let ends = join_all(ends).await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    for refused in ends.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, LoginError::UnknownState), "{refused:?}");
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
    // The provider saw the code once: it would have ended the grant.
    assert_eq!(site.provider.count("invalid_grant").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_can_sign_in() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let mut browser = Browser::new();
    let mut tabs = Vec::new();
    for page in ["/one", "/two"] {
        let url = site.flow.begin(&tokens, page).await.unwrap();
        tabs.push((page, visit(&mut browser, &url).await));
    }
    for (page, back) in tabs {
        let login = site.flow.end(&tokens, callback(&back)).await.unwrap();
        assert_eq!(login.return_to, page);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_counts_where_it_began() {
    let site = Site::start().await;
    let cache = cache(TestStore::default());
    let tokens = cache.tokens(session("s"));
    let url = site.flow.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut Browser::new(), &url).await;
    let end = async |tokens: &Tokens, url: Url| site.flow.end(tokens, callback(&url)).await;
    let another = cache.tokens(session("another browser's"));
    let invented = "x".repeat(43);
    let long = "x".repeat(5000);
    for (tokens, state) in [
        (&another, param(&back, "state")),
        (&tokens, Some(invented)),
        (&tokens, Some("x".into())),
        (&tokens, Some(long)),
        (&tokens, Some("\u{1f}\r\n".into())),
    ] {
        let refused = end(tokens, with(&back, "state", state.as_deref()))
            .await
            .unwrap_err();
        assert!(matches!(refused, LoginError::UnknownState), "{refused:?}");
    }
    for missing in ["state", "code"] {
        let refused = end(&tokens, with(&back, missing, None)).await.unwrap_err();
        assert!(
            matches!(refused, LoginError::Malformed),
            "{missing}: {refused:?}"
        );
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
    // None of it has spent the login.
    end(&tokens, back).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_within_ten_minutes_and_with_the_session() {
    let site = Site::start().await;
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(TestStore::default())
        .clock(clock.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let url = site.flow.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut Browser::new(), &url).await;
    clock.advance(Duration::from_secs(600));
    let refused = site.flow.end(&tokens, callback(&back)).await.unwrap_err();
    assert!(matches!(refused, LoginError::UnknownState), "{refused:?}");

    let tokens = cache.tokens(session("t"));
    let url = site.flow.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut Browser::new(), &url).await;
    // Another tab signs out, before the callback or while it is on its way.
    let on_its_way = cache.tokens(session("t"));
    assert_eq!(on_its_way.keys().await.unwrap(), []);
    common::assert_stored(tokens.sign_out().await.unwrap());
    for tokens in [cache.tokens(session("t")), on_its_way] {
        let refused = site.flow.end(&tokens, callback(&back)).await.unwrap_err();
        assert!(matches!(refused, LoginError::UnknownState), "{refused:?}");
    }
}

/// As that of a victim who is sent a link to the callback.
#[tokio::test]
async fn in_a_browser_without_a_session_no_callback_counts() {
    let flow = AuthorizationCode::new(nowhere().client("app"), CALLBACK).unwrap();
    let end = async move |tokens: Tokens, Query(callback): Query<Callback>| {
        let refused = flow.end(&tokens, callback).await.unwrap_err();
        assert!(matches!(refused, LoginError::UnknownState), "{refused:?}");
        refused
    };
    let layer = TokenCacheLayer::new(cache(TestStore::default()), Cookie::new("sid").unwrap());
    let app = Router::new().route("/callback", get(end)).layer(layer);
    let path = format!("/callback?code=c&state={}", "x".repeat(43));
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = app.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_cannot_be_mixed_up_with_another() {
    let (honest, evil) = (Site::start().await, Site::start().await);
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let mut browser = Browser::new();
    let mut begun = Vec::new();
    for site in [&honest, &evil] {
        let url = site.flow.begin(&tokens, "/").await.unwrap();
        begun.push(visit(&mut browser, &url).await);
    }
    let (from_honest, from_evil) = (&begun[0], &begun[1]);
    let (honest_issuer, evil_issuer) = (honest.provider.issuer(), evil.provider.issuer());
    assert_eq!(param(from_honest, "iss").as_deref(), Some(honest_issuer));
    // The honest provider's code in the login that began at the evil one: it would be sent there.
    let stolen = with(from_evil, "code", param(from_honest, "code").as_deref());
    for (flow, back) in [
        (&evil.flow, with(&stolen, "iss", Some(honest_issuer))),
        (&evil.flow, with(&stolen, "iss", None)),
        (&honest.flow, stolen.clone()),
        (
            &evil.flow,
            with(&stolen, "iss", Some(&format!("{evil_issuer}/"))),
        ),
    ] {
        let refused = flow.end(&tokens, callback(&back)).await.unwrap_err();
        assert!(matches!(refused, LoginError::WrongIssuer), "{refused:?}");
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
    // Whatever the callback says, the login remembers where it began.
    let back = with(&stolen, "iss", Some(honest_issuer));
    let refused = honest.flow.end(&tokens, callback(&back)).await.unwrap_err();
    assert!(matches!(refused, LoginError::WrongIssuer), "{refused:?}");
    // The other login is untouched.
    honest
        .flow
        .end(&tokens, callback(from_honest))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_says_no_is_told_apart() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let flow = site.flow.clone().param("login_hint", "denied").unwrap();
    let url = flow.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut Browser::new(), &url).await;
    let denied = flow.end(&tokens, callback(&back)).await.unwrap_err();
    assert!(matches!(denied, LoginError::Denied), "{denied:?}");
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    // An error is an answer: it is taken once, too.
    let again = flow.end(&tokens, callback(&back)).await.unwrap_err();
    assert!(matches!(again, LoginError::UnknownState), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pkce_cannot_be_taken_out() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    // The challenge is taken out on the way.
    let url = Url::parse(&site.flow.begin(&tokens, "/").await.unwrap()).unwrap();
    let url = with(
        &with(&url, "code_challenge", None),
        "code_challenge_method",
        None,
    );
    let back = visit(&mut Browser::new(), url.as_str()).await;
    let refused = site.flow.end(&tokens, callback(&back)).await.unwrap_err();
    assert_eq!(
        (code(&refused), refused.status()),
        ("invalid_request", StatusCode::BAD_GATEWAY)
    );
    // A stolen code in a login of the thief's own: the provider compares the verifier.
    let mut codes = Vec::new();
    for browser in [&mut Browser::new(), &mut Browser::new()] {
        let url = site.flow.begin(&tokens, "/").await.unwrap();
        codes.push(visit(browser, &url).await);
    }
    let injected = with(&codes[0], "code", param(&codes[1], "code").as_deref());
    let refused = site
        .flow
        .end(&tokens, callback(&injected))
        .await
        .unwrap_err();
    assert_eq!(
        (code(&refused), refused.status()),
        ("invalid_grant", StatusCode::UNAUTHORIZED)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_nothing_is_signed_in() {
    let site = Site::start().await;
    let store = TestStore::default();
    let cache = builder(store.clone())
        .failure_policy(FailurePolicy::Degrade)
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let url = site.flow.begin(&tokens, "/").await.unwrap();
    common::assert_stored(tokens.commit().await.unwrap());
    let back = visit(&mut Browser::new(), &url).await;
    store.set_down(true);
    let fresh = builder(store.clone()).build().unwrap().tokens(session("s"));
    let refused = site.flow.end(&fresh, callback(&back)).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        matches!(refused, LoginError::Session(Error::Unavailable(_))),
        "{refused:?}"
    );
}

/// A provider that is not asked.
fn nowhere() -> Provider {
    let provider = Provider::new("https://login.example", "https://login.example/token").unwrap();
    let at = "https://login.example/auth";
    provider.with_authorization_endpoint(at).unwrap()
}

#[tokio::test]
async fn in_cookies_no_login_begins_that_could_end_twice() {
    let flow = AuthorizationCode::new(nowhere().client("app"), CALLBACK).unwrap();
    let store = CookieStore::builder(KeyRing::generate().unwrap()).build();
    let begin = async move |tokens: Tokens| flow.begin(&tokens, "/").await;
    let app = Router::new().route("/login", get(begin));
    let app = app.layer(store.unwrap().layer().unwrap());
    let request = Request::get("/login").body(Body::empty()).unwrap();
    let answer = app.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.headers().contains_key("set-cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_page_of_this_site_is_returned_to() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    for evil in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/\t/evil.example",
        "",
    ] {
        let refused = site.flow.begin(&tokens, evil).await.unwrap_err();
        assert!(matches!(refused, LoginError::ReturnAddress), "{refused:?}");
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!(tokens.keys().await.unwrap(), []);
}

#[test]
fn errors_answer_in_both_frameworks() {
    use actix_web::ResponseError;
    use axum::response::IntoResponse;
    let errors: [(fn() -> LoginError, u16); 7] = [
        (|| LoginError::UnknownState, 400),
        (|| LoginError::Denied, 403),
        (|| Error::NoPartition.into(), 401),
        (|| ProviderError::refused("invalid_grant").into(), 401),
        (
            || ProviderError::refused("temporarily_unavailable").into(),
            503,
        ),
        (|| ProviderError::refused("invalid_client").into(), 502),
        (|| IdTokenError::Nonce.into(), 502),
    ];
    for (error, status) in errors {
        let (by_axum, by_actix) = (error().into_response(), error().error_response());
        assert_eq!(by_axum.status(), status);
        assert_eq!(by_actix.status().as_u16(), status);
        let session = (status == 401).then_some(&b"Session"[..]);
        let asked = by_axum.headers().get("www-authenticate");
        assert_eq!(asked.map(|field| field.as_bytes()), session);
        let asked = by_actix.headers().get("www-authenticate");
        assert_eq!(asked.map(|field| field.as_bytes()), session);
    }
    let busy = || ProviderError::status(StatusCode::SERVICE_UNAVAILABLE);
    let waits: [(LoginError, Option<u64>); 4] = [
        (Error::Overloaded.into(), Some(1)),
        (
            busy()
                .with_retry_after(Duration::from_millis(19_001))
                .into(),
            Some(20),
        ),
        (busy().into(), None),
        (LoginError::UnknownState, None),
    ];
    for (error, seconds) in waits {
        let text = seconds.map(|seconds| seconds.to_string());
        let by_actix = error.error_response();
        let by_actix = by_actix.headers().get("retry-after");
        assert_eq!(by_actix.map(|it| it.to_str().unwrap()), text.as_deref());
        assert_eq!(error.retry_after(), seconds.map(Duration::from_secs));
        let by_axum = error.into_response();
        let by_axum = by_axum.headers().get("retry-after");
        assert_eq!(by_axum.map(|it| it.to_str().unwrap()), text.as_deref());
    }
}

/// The provider's code in an error.
fn code(error: &LoginError) -> &str {
    match error {
        LoginError::Provider(error) => error.code(),
        other => panic!("no error of the provider: {other:?}"),
    }
}
