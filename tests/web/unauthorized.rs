//! A 401 says what it asks for (RFC 9110 §15.5.2), in both frameworks; and none opens a dialog in a browser.

use actix_web::http::StatusCode as ActixStatus;
use actix_web::{App, HttpResponse, test, web};
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use common::support::{TestStore, cache};
use http::header::{HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use tower::ServiceExt as _;
use tower_token_cache::{
    Challenge, Error, KeyExtractor, MissingKey, Prior, ProviderError, TokenCacheLayer, TokenSet,
    Tokens, key, session,
};

const MFA: &str =
    r#"Bearer error="insufficient_user_authentication", acr_values="mfa", max_age="60""#;
const SCOPE: &str = r#"Bearer error="insufficient_scope", scope="write""#;
const CLAIMS: &str = r#"Bearer error="insufficient_claims", claims="eyJhIjp7fX0=""#;

fn step_up(field: &'static str) -> Error {
    let mut headers = HeaderMap::new();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(field));
    Error::StepUp(Challenge::from_headers(&headers).unwrap())
}

/// What a handler does with the tokens of its request.
async fn handle(tokens: Tokens, what: &str) -> Result<(), Error> {
    match what {
        "read" => tokens.get("graph").await.map(drop),
        "refused" => {
            let refused =
                async |_: Prior| Err::<TokenSet, _>(ProviderError::refused("invalid_grant"));
            tokens.get_or_acquire("graph", refused).await.map(drop)
        }
        "demanded" => {
            let refused = async |_: Prior| {
                let refused = ProviderError::refused("interaction_required");
                Err::<TokenSet, _>(refused.with_claims(r#"{"a":{}}"#))
            };
            tokens.get_or_acquire("graph", refused).await.map(drop)
        }
        "mfa" => Err(step_up(MFA)),
        "scope" => Err(step_up(SCOPE)),
        "claims" => Err(step_up(CLAIMS)),
        other => panic!("{other}"),
    }
}

type Header = (&'static str, &'static str);
type Answer = (u16, Option<String>);

async fn by_axum(layer: TokenCacheLayer, what: &str, header: Option<Header>) -> Answer {
    let app = Router::new()
        .route("/own", get(async || StatusCode::UNAUTHORIZED))
        .route(
            "/digest",
            get(async || {
                let digest = [(WWW_AUTHENTICATE, "Digest nonce=a")];
                (StatusCode::UNAUTHORIZED, digest).into_response()
            }),
        )
        .route(
            "/{what}",
            get(async |tokens: Tokens, Path(what): Path<String>| handle(tokens, &what).await),
        )
        .layer(layer);
    let mut request = Request::get(format!("/{what}"))
        .body(Body::empty())
        .unwrap();
    if let Some((name, value)) = header {
        let name = HeaderName::from_static(name);
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let answer = app.oneshot(request).await.unwrap();
    let mut fields = answer.headers().get_all(WWW_AUTHENTICATE).iter();
    let asked = fields
        .next()
        .map(|field| field.to_str().unwrap().to_owned());
    assert!(fields.next().is_none());
    (answer.status().as_u16(), asked)
}

async fn by_actix(layer: TokenCacheLayer, what: &str, header: Option<Header>) -> Answer {
    let own = async || HttpResponse::new(ActixStatus::UNAUTHORIZED);
    let digest = async || {
        let mut response = HttpResponse::Unauthorized();
        response
            .insert_header(("www-authenticate", "Digest nonce=a"))
            .finish()
    };
    let handler = async |tokens: Tokens, what: web::Path<String>| {
        handle(tokens, &what).await.map(|()| HttpResponse::Ok())
    };
    let app = App::new()
        .wrap(layer)
        .route("/own", web::get().to(own))
        .route("/digest", web::get().to(digest))
        .route("/{what}", web::get().to(handler));
    let app = test::init_service(app).await;
    let mut request = test::TestRequest::get().uri(&format!("/{what}"));
    if let Some(header) = header {
        request = request.insert_header(header);
    }
    let answer = test::call_service(&app, request.to_request()).await;
    let mut fields = answer.headers().get_all("www-authenticate");
    let asked = fields
        .next()
        .map(|field| field.to_str().unwrap().to_owned());
    assert!(fields.next().is_none());
    (answer.status().as_u16(), asked)
}

/// A name, a layer, what the handler does, a header of the request; the status, and what it asks for.
type Case<'a> = (
    &'a str,
    &'a dyn Fn() -> TokenCacheLayer,
    &'a str,
    Option<Header>,
    u16,
    Option<&'a str>,
);

fn over(key: impl KeyExtractor) -> TokenCacheLayer {
    TokenCacheLayer::new(cache(TestStore::default()), key)
}

fn bearer() -> TokenCacheLayer {
    over(key::bearer_assertion())
}

fn either() -> TokenCacheLayer {
    over(key::bearer_assertion().or(key::cookie("sid")))
}

#[actix_web::test]
async fn each_401_says_what_it_asks_for() {
    let sessions = || over(session::Cookie::new("sid").unwrap());
    let own_cookie = || over(key::cookie("sid"));
    let assertion = Some(("authorization", "Bearer eyJ"));
    let cookie = Some(("cookie", "sid=a"));
    let session = Some("Session");
    let (no_token, bad_token) = (Some("Bearer"), Some(r#"Bearer error="invalid_token""#));
    let strict = || own_cookie().missing_key(MissingKey::Reject);
    let strict_sessions = || sessions().missing_key(MissingKey::Reject);
    let strict_bearer = || bearer().missing_key(MissingKey::Reject);
    let header = || over(key::header("x-session"));
    let cases: [Case<'_>; 21] = [
        // Of the handle, which the layer would give a session.
        ("sessions", &sessions, "read", None, 401, session),
        // Of the extractor.
        ("a cookie", &own_cookie, "read", None, 401, session),
        ("a header", &header, "read", None, 401, session),
        ("bearer", &bearer, "read", None, 401, no_token),
        ("either", &either, "read", None, 401, no_token),
        // Of the layer.
        ("a strict cookie", &strict, "read", None, 401, session),
        (
            "strict sessions",
            &strict_sessions,
            "read",
            None,
            401,
            session,
        ),
        ("strict bearer", &strict_bearer, "read", None, 401, no_token),
        // Of the handler.
        ("a cookie", &own_cookie, "refused", cookie, 401, session),
        ("bearer", &bearer, "refused", assertion, 401, bad_token),
        ("either", &either, "refused", assertion, 401, bad_token),
        ("either", &either, "refused", cookie, 401, no_token),
        // What an API has demanded is passed on.
        ("a cookie", &own_cookie, "mfa", cookie, 401, Some(MFA)),
        ("bearer", &bearer, "mfa", assertion, 401, Some(MFA)),
        ("a cookie", &own_cookie, "claims", cookie, 401, Some(CLAIMS)),
        ("a cookie", &own_cookie, "scope", cookie, 403, Some(SCOPE)),
        // So is what a provider has demanded of the user whom this is on behalf of.
        ("bearer", &bearer, "demanded", assertion, 401, Some(CLAIMS)),
        // What is not of this crate stays as it is.
        ("bearer", &bearer, "own", assertion, 401, None),
        (
            "bearer",
            &bearer,
            "digest",
            assertion,
            401,
            Some("Digest nonce=a"),
        ),
        // What is no 401 asks for nothing.
        ("a cookie", &own_cookie, "read", cookie, 200, None),
        ("bearer", &bearer, "read", assertion, 200, None),
    ];
    for (name, layer, what, header, status, expected) in cases {
        let expected = (status, expected.map(str::to_owned));
        let answer = by_axum(layer(), what, header).await;
        assert_eq!(answer, expected, "axum: {name}, {what}");
        let answer = by_actix(layer(), what, header).await;
        assert_eq!(answer, expected, "actix: {name}, {what}");
    }
}
