//! Beside tower-sessions and axum-login: the recipes of the module's documentation.

use std::convert::Infallible;
use std::fmt;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use axum_login::{AuthManagerLayerBuilder, AuthUser, AuthnBackend, UserId};
use common::assert_stored;
use common::support::*;
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};
use tower_token_cache::{KeyError, PartitionKey, TokenCache, TokenCacheLayer, Tokens, key};

use super::browser::{issuing, sign_in};

/// A browser that keeps all cookies.
#[derive(Clone, Default)]
struct Jar(Vec<(String, String)>);

impl Jar {
    async fn send(&mut self, app: &Router, method: &str, path: &str) -> (StatusCode, String) {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        let request = Request::builder().method(method).uri(path);
        let request = request.header("cookie", Vec::from_iter(pairs).join("; "));
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap());
        let response = response.await.unwrap();
        for line in response.headers().get_all("set-cookie") {
            let pair = line.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.0.retain(|(other, _)| other != name);
            if !value.is_empty() {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

type Answer<T> = Result<T, StatusCode>;

fn failed(_: impl fmt::Display) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn login(session: Session, tokens: Tokens, Path(user): Path<String>) -> Answer<()> {
    let signed_in = tokens.sign_in(sign_in(&user)).await;
    assert_stored(signed_in.map_err(failed)?);
    session.flush().await.map_err(failed)?;
    session.insert("name", user).await.map_err(failed)
}

async fn logout(session: Session, tokens: Tokens) -> Answer<()> {
    assert_stored(tokens.sign_out().await.map_err(failed)?);
    session.flush().await.map_err(failed)
}

/// What both know.
async fn me(session: Session, tokens: Tokens) -> Answer<String> {
    let token = tokens.get("api").await.map_err(|error| error.status())?;
    let token = token.hit().ok_or(StatusCode::UNAUTHORIZED)?;
    let name: Option<String> = session.get("name").await.map_err(failed)?;
    Ok(format!(
        "{} {}",
        name.unwrap_or_default(),
        token.access_token()
    ))
}

#[tokio::test]
async fn tower_sessions() {
    let cache = cache(TestStore::default());
    let app = Router::new()
        .route("/login/{user}", post(login))
        .route("/logout", post(logout))
        .route("/me", get(me))
        .layer(issuing(&cache))
        .layer(SessionManagerLayer::new(MemoryStore::default()));
    let mut jar = Jar::default();
    assert_eq!(jar.send(&app, "GET", "/me").await.0, 401);
    assert_eq!(jar.send(&app, "POST", "/login/ada").await.0, 200);
    assert_eq!(jar.0.len(), 2);
    assert_eq!(jar.send(&app, "GET", "/me").await.1, "ada ada");
    let mut ada = jar.clone();
    assert_eq!(jar.send(&app, "POST", "/login/bob").await.0, 200);
    assert_eq!(jar.send(&app, "GET", "/me").await.1, "bob bob");
    assert_eq!(ada.send(&app, "GET", "/me").await.0, 401);
    assert_eq!(jar.send(&app, "POST", "/logout").await.0, 200);
    assert!(jar.0.is_empty());
    assert_eq!(jar.send(&app, "GET", "/me").await.0, 401);
}

/// Users who prove nothing.
#[derive(Clone, Debug)]
struct Users;

#[derive(Clone, Debug)]
struct User(String);

impl AuthUser for User {
    type Id = String;

    fn id(&self) -> String {
        self.0.clone()
    }

    fn session_auth_hash(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl AuthnBackend for Users {
    type User = User;
    type Credentials = String;
    type Error = Infallible;

    async fn authenticate(&self, name: String) -> Result<Option<User>, Infallible> {
        Ok(Some(User(name)))
    }

    async fn get_user(&self, name: &UserId<Self>) -> Result<Option<User>, Infallible> {
        Ok(Some(User(name.clone())))
    }
}

type Auth = axum_login::AuthSession<Users>;

async fn login_as(
    mut auth: Auth,
    State(cache): State<TokenCache>,
    Path(user): Path<String>,
) -> Answer<()> {
    auth.login(&User(user.clone())).await.map_err(failed)?;
    let tokens = cache.tokens(PartitionKey::user(&user).map_err(failed)?);
    let signed_in = tokens.insert("api", token(&user)).await;
    signed_in.map_err(|error| error.status())
}

async fn token_of(tokens: Tokens) -> Answer<String> {
    let token = tokens.get("api").await.map_err(|error| error.status())?;
    let token = token.hit().ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(token.access_token().to_owned())
}

#[tokio::test]
async fn axum_login() {
    let cache = cache(TestStore::default());
    let of_the_user = key::extension(|auth: &Auth| match &auth.user {
        Some(user) => PartitionKey::user(user.id()),
        None => Err(KeyError::Empty),
    });
    let sessions = SessionManagerLayer::new(MemoryStore::default());
    let app = Router::new()
        .route("/login/{user}", post(login_as))
        .route("/me", get(token_of))
        .layer(TokenCacheLayer::new(cache.clone(), of_the_user))
        .layer(AuthManagerLayerBuilder::new(Users, sessions).build())
        .with_state(cache);
    let (mut jar, mut other) = (Jar::default(), Jar::default());
    assert_eq!(jar.send(&app, "GET", "/me").await.0, 401);
    assert_eq!(jar.send(&app, "POST", "/login/ada").await.0, 200);
    assert_eq!(jar.send(&app, "GET", "/me").await.1, "ada");
    assert_eq!(jar.send(&app, "POST", "/login/bob").await.0, 200);
    assert_eq!(jar.send(&app, "GET", "/me").await.1, "bob");
    // An id that the session store has not issued belongs to no user.
    other.0.push(("id".to_owned(), "A".repeat(22)));
    assert_eq!(other.send(&app, "GET", "/me").await.0, 401);
}
