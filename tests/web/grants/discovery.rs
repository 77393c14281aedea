//! Discovery, of documents that are as they should be and of others.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use http::{Response, StatusCode, Uri};
use serde_json::{Value, json};
use tower_token_cache::grant::DiscoveryError;

use super::*;

const OPENID: &str = "/.well-known/openid-configuration";

/// A server with documents, at most one for each path.
struct Server {
    origin: String,
    documents: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let documents = Arc::<Mutex<BTreeMap<String, (u16, String)>>>::default();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (served, log) = (documents.clone(), asked.clone());
        let app = Router::new().fallback(async move |uri: Uri| {
            log.lock().unwrap().push(uri.to_string());
            let found = served.lock().unwrap().get(uri.path()).cloned();
            let (status, text) = found.unwrap_or((404, "<html>".into()));
            let response = Response::builder().status(status);
            response
                .header("location", "/elsewhere")
                .body(Body::from(text))
                .unwrap()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        Self {
            origin,
            documents,
            asked,
        }
    }

    fn serve(&self, path: &str, status: u16, text: impl ToString) {
        let document = (status, text.to_string());
        self.documents.lock().unwrap().insert(path.into(), document);
    }

    /// A sound document.
    fn document(&self) -> Value {
        json!({
            "issuer": self.origin,
            "authorization_endpoint": format!("{}/auth?tenant=t", self.origin),
            "token_endpoint": "https://login.example/token",
            "jwks_uri": "https://login.example/jwks",
            "backchannel_logout_session_supported": true,
            "response_types_supported": ["code"],
        })
    }

    /// What comes of a document with one member that is other, or is not there.
    async fn discover(&self, name: &str, value: Value) -> Result<Provider, DiscoveryError> {
        let mut document = self.document();
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(name)),
            value => document[name] = value,
        }
        self.serve(OPENID, 200, document);
        Provider::discover(&self.origin).await
    }
}

#[tokio::test]
async fn a_document_says_where_the_endpoints_are() {
    let server = Server::start().await;
    let provider = server
        .discover("userinfo_endpoint", Value::Null)
        .await
        .unwrap();
    assert_eq!(provider.issuer(), server.origin);
    assert_eq!(provider.token_endpoint(), "https://login.example/token");
    assert_eq!(provider.jwks_uri(), Some("https://login.example/jwks"));
    assert_eq!(provider.userinfo_endpoint(), None);
    assert!(provider.backchannel_logout_session_supported());
    // What it does not have, is asked for in vain.
    let client = provider.client("app");
    assert!(client.end_session().is_err());
    assert!(client.authorize_device().await.is_err());
    assert!(client.revoke(&"r".into()).await.is_err());
    // The query of an endpoint stays (RFC 6749 §3.1).
    let tokens = common::support::cache(common::support::TestStore::default());
    let tokens = tokens.tokens(common::support::session("s"));
    let flow = AuthorizationCode::new(client, CALLBACK).unwrap();
    let url = flow.begin(&tokens, "/").await.unwrap();
    assert!(url.starts_with(&format!(
        "{}/auth?tenant=t&response_type=code&",
        server.origin
    )));
    assert!(!url.contains("scope"));
}

#[tokio::test]
async fn the_second_place_is_asked_where_the_first_has_nothing() {
    let server = Server::start().await;
    let issuer = format!("{}/tenant/one", server.origin);
    let mut document = server.document();
    document["issuer"] = json!(issuer);
    let second = "/.well-known/oauth-authorization-server/tenant/one";
    server.serve(second, 200, &document);
    assert_eq!(Provider::discover(&issuer).await.unwrap().issuer(), issuer);
    let first = format!("/tenant/one{OPENID}");
    assert_eq!(*server.asked.lock().unwrap(), [&first, second]);
    // Where the first has failed, the second is not taken for the better one.
    server.serve(&first, 503, "");
    let error = Provider::discover(&issuer).await.unwrap_err();
    assert!(matches!(
        error,
        DiscoveryError::NoDocument(StatusCode::SERVICE_UNAVAILABLE)
    ));
    // The slash at the end is a part of the issuer, and not of the place.
    document["issuer"] = json!(format!("{issuer}/"));
    server.serve(&first, 200, document);
    let error = Provider::discover(&issuer).await.unwrap_err();
    assert!(
        matches!(&error, DiscoveryError::WrongIssuer { found } if **found == format!("{issuer}/"))
    );
    Provider::discover(format!("{issuer}/")).await.unwrap();
}

#[tokio::test]
async fn documents_of_another_issuer_are_refused() {
    let server = Server::start().await;
    for (value, shown) in [
        (json!("https://evil.example"), "https://evil.example"),
        (
            json!(format!("{}/", server.origin)),
            &*format!("{}/", server.origin),
        ),
        (
            json!(server.origin.replace("http:", "HTTP:")),
            &server.origin.replace("http:", "HTTP:"),
        ),
        (json!("a\u{1b}[31mb"), ""),
        (json!("x".repeat(300)), ""),
        (json!([server.origin]), ""),
        (Value::Null, ""),
    ] {
        match server.discover("issuer", value.clone()).await.unwrap_err() {
            DiscoveryError::WrongIssuer { found } => assert_eq!(*found, *shown),
            other => panic!("{value}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn endpoints_that_would_leak_are_refused() {
    let server = Server::start().await;
    for (name, value) in [
        ("token_endpoint", json!("http://login.example/token")),
        ("token_endpoint", json!("/token")),
        ("token_endpoint", json!("ftp://login.example/token")),
        (
            "token_endpoint",
            json!("https://user:password@login.example/token"),
        ),
        (
            "token_endpoint",
            json!("https://login.example/token#fragment"),
        ),
        ("token_endpoint", json!(7)),
        ("token_endpoint", Value::Null),
        ("authorization_endpoint", json!("javascript:alert(1)")),
        ("authorization_endpoint", json!("http://login.example/auth")),
        ("revocation_endpoint", json!("http://login.example/revoke")),
        ("end_session_endpoint", json!("http://login.example/end")),
        ("device_authorization_endpoint", json!("")),
        ("userinfo_endpoint", json!("http://login.example/me")),
        ("jwks_uri", json!("http://login.example/jwks")),
    ] {
        match server.discover(name, value.clone()).await.unwrap_err() {
            DiscoveryError::Endpoint(error) => assert_eq!(error.option(), name, "{value}"),
            other => panic!("{name} {value}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_document_is_a_typed_error_that_quotes_nothing() {
    let server = Server::start().await;
    let whole = server.document().to_string();
    for text in [
        "<html>canary</html>",
        "[\"canary\"]",
        "7",
        "",
        "{\"issuer\":\"canary",
        "\"canary\"",
    ] {
        server.serve(OPENID, 200, text);
        let error = Provider::discover(&server.origin).await.unwrap_err();
        assert!(
            matches!(error, DiscoveryError::Unreadable),
            "{text}: {error:?}"
        );
        assert!(!format!("{error:?} {error} {:?}", error.source()).contains("canary"));
    }
    // At the limit, and over it by a byte.
    server.serve(
        OPENID,
        200,
        whole.clone() + &" ".repeat(65536 - whole.len()),
    );
    Provider::discover(&server.origin).await.unwrap();
    server.serve(
        OPENID,
        200,
        whole.clone() + &" ".repeat(65537 - whole.len()),
    );
    let error = Provider::discover(&server.origin).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::TooLarge), "{error:?}");
    // A redirect is not followed.
    server.serve(OPENID, 302, "");
    server.serve("/elsewhere", 200, &whole);
    let error = Provider::discover(&server.origin).await.unwrap_err();
    assert!(
        matches!(error, DiscoveryError::NoDocument(StatusCode::FOUND)),
        "{error:?}"
    );
    let asked = server.asked.lock().unwrap().clone();
    assert!(!asked.iter().any(|path| path == "/elsewhere"));
    // No server.
    let nowhere = format!("http://127.0.0.1:{}", common::free_port());
    let error = Provider::discover(nowhere).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn issuers_that_cannot_be_asked_safely_are_refused() {
    for issuer in [
        "http://login.example",
        "login.example",
        "",
        "https://login.example?tenant=t",
        "https://login.example#a",
        "https://user@login.example",
        "file:///etc/passwd",
    ] {
        let error = Provider::discover(issuer).await.unwrap_err();
        assert!(
            matches!(&error, DiscoveryError::Config(error) if error.option() == "issuer"),
            "{issuer}"
        );
        assert!(
            Provider::new(issuer, "https://login.example/token").is_err(),
            "{issuer}"
        );
    }
    let error = Provider::new("https://login.example", "http://login.example/token").unwrap_err();
    assert_eq!(error.option(), "token_endpoint");
}

#[tokio::test]
async fn a_flow_needs_a_provider_that_checks_pkce_and_a_redirect_uri_that_keeps_codes() {
    let server = Server::start().await;
    let flow = |provider: Result<Provider, DiscoveryError>| {
        AuthorizationCode::new(provider.unwrap().client("app"), CALLBACK)
    };
    let methods = "code_challenge_methods_supported";
    assert!(flow(server.discover(methods, json!(["plain", "S256"])).await).is_ok());
    for weak in [json!(["plain"]), json!([]), json!(["s256"])] {
        let error = flow(server.discover(methods, weak).await).unwrap_err();
        assert_eq!(error.option(), "client");
    }
    assert!(flow(server.discover("authorization_endpoint", Value::Null).await).is_err());
    let client = Client::new("https://login.example/token", "app").unwrap();
    assert!(AuthorizationCode::new(client, CALLBACK).is_err());
    let client = server
        .discover(methods, Value::Null)
        .await
        .unwrap()
        .client("app");
    for leaky in [
        "http://app.example/callback",
        "/callback",
        "https://app.example/#a",
        "",
    ] {
        let error = AuthorizationCode::new(client.clone(), leaky).unwrap_err();
        assert_eq!(error.option(), "redirect_uri", "{leaky}");
    }
}
