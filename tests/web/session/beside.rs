//! Beside tower-sessions and axum-login: the recipes of the module's documentation. Whatever one of them does to its own
//! session, the other's is not another user's.

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
    fn cookie(&self, name: &str) -> Option<&str> {
        let mut cookies = self.0.iter();
        let found = cookies.find(|(other, _)| other == name);
        found.map(|(_, value)| &**value)
    }

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
    let token = token_of(tokens).await?;
    let name: Option<String> = session.get("name").await.map_err(failed)?;
    let name = name.ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(format!("{name} {token}"))
}

async fn renew(session: Session) -> Answer<()> {
    session.cycle_id().await.map_err(failed)
}

/// As where its lifetime is over.
async fn lose(session: Session) -> Answer<()> {
    session.delete().await.map_err(failed)
}

async fn end_ours(tokens: Tokens) -> Answer<()> {
    tokens.sign_out().await.map(drop).map_err(failed)
}

async fn token_of(tokens: Tokens) -> Answer<String> {
    let token = tokens.get("api").await.map_err(|error| error.status())?;
    let token = token.hit().ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(token.access_token().to_owned())
}

#[tokio::test]
async fn tower_sessions() {
    let cache = cache(TestStore::default());
    let app = Router::new()
        .route("/login/{user}", post(login))
        .route("/logout", post(logout))
        .route("/renew", post(renew))
        .route("/lose", post(lose))
        .route("/end-ours", post(end_ours))
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

    // A new id there, and the session here goes on.
    let before = jar.clone();
    assert_eq!(jar.send(&app, "POST", "/renew").await.0, 200);
    assert_ne!(jar.cookie("id"), before.cookie("id"));
    assert_eq!(jar.cookie("__Host-sid"), before.cookie("__Host-sid"));
    assert_eq!(jar.send(&app, "GET", "/me").await.1, "bob bob");

    // One of them has ended: the next login begins both again.
    for end in ["/lose", "/end-ours"] {
        assert_eq!(jar.send(&app, "POST", end).await.0, 200);
        assert_eq!(jar.send(&app, "GET", "/me").await.0, 401, "{end}");
        assert_eq!(jar.send(&app, "POST", "/login/eve").await.0, 200);
        assert_eq!(jar.send(&app, "GET", "/me").await.1, "eve eve", "{end}");
    }

    let mut copy = jar.clone();
    assert_eq!(jar.send(&app, "POST", "/logout").await.0, 200);
    assert!(jar.0.is_empty());
    for jar in [&mut jar, &mut copy] {
        assert_eq!(jar.send(&app, "GET", "/me").await.0, 401);
    }
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

async fn logout_as(mut auth: Auth) -> Answer<()> {
    auth.logout().await.map(drop).map_err(failed)
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
        .route("/logout", post(logout_as))
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
    // The tokens are the user's: another session of theirs goes on after a logout of this one.
    assert_eq!(other.send(&app, "POST", "/login/bob").await.0, 200);
    let mut copy = jar.clone();
    assert_eq!(jar.send(&app, "POST", "/logout").await.0, 200);
    for jar in [&mut jar, &mut copy] {
        assert_eq!(jar.send(&app, "GET", "/me").await.0, 401);
    }
    assert_eq!(other.send(&app, "GET", "/me").await.1, "bob");
}

async fn login_in_both(mut auth: Auth, tokens: Tokens, Path(user): Path<String>) -> Answer<()> {
    assert_stored(tokens.sign_in(sign_in(&user)).await.map_err(failed)?);
    auth.login(&User(user)).await.map_err(failed)
}

async fn logout_of_both(mut auth: Auth, tokens: Tokens) -> Answer<()> {
    assert_stored(tokens.sign_out().await.map_err(failed)?);
    auth.logout().await.map(drop).map_err(failed)
}

/// What both know.
async fn user_and_token(auth: Auth, tokens: Tokens) -> Answer<String> {
    let user = auth.user.ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(format!("{} {}", user.0, token_of(tokens).await?))
}

#[tokio::test]
async fn axum_login_with_a_session_for_each_sign_in() {
    let cache = cache(TestStore::default());
    let sessions = SessionManagerLayer::new(MemoryStore::default());
    let app = Router::new()
        .route("/login/{user}", post(login_in_both))
        .route("/logout", post(logout_of_both))
        .route("/me", get(user_and_token))
        .layer(issuing(&cache))
        .layer(AuthManagerLayerBuilder::new(Users, sessions).build());
    let (mut jar, mut other) = (Jar::default(), Jar::default());
    assert_eq!(jar.send(&app, "GET", "/me").await.0, 401);
    for user in ["ada", "bob"] {
        let login = format!("/login/{user}");
        assert_eq!(jar.send(&app, "POST", &login).await.0, 200);
        let both = format!("{user} {user}");
        assert_eq!(jar.send(&app, "GET", "/me").await.1, both);
    }
    assert_eq!(other.send(&app, "POST", "/login/bob").await.0, 200);
    let mut copy = jar.clone();
    assert_eq!(jar.send(&app, "POST", "/logout").await.0, 200);
    assert!(jar.0.is_empty());
    for jar in [&mut jar, &mut copy] {
        assert_eq!(jar.send(&app, "GET", "/me").await.0, 401);
    }
    assert_eq!(other.send(&app, "GET", "/me").await.1, "bob bob");
}
