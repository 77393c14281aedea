//! Beside actix-session: the recipe of the module's documentation.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError};
use actix_session::{Session, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::cookie::time::Duration;
use actix_web::error::{ErrorInternalServerError, ErrorUnauthorized};
use actix_web::web::{self, Path};
use actix_web::{App, HttpServer, Result};
use common::assert_stored;
use common::support::TestStore;
use reqwest::Method;
use tower_token_cache::{TokenCache, Tokens};

use super::browser::{api, issuing, sign_in};
use crate::cookie::jar::Jar;

/// The sessions of actix-session, in memory.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    last: u64,
    sessions: HashMap<String, HashMap<String, String>>,
}

impl Sessions {
    /// As where their lifetime is over.
    fn lose_all(&self) {
        self.0.lock().unwrap().sessions.clear();
    }
}

impl SessionStore for Sessions {
    async fn load(&self, key: &SessionKey) -> Result<Option<HashMap<String, String>>, LoadError> {
        let table = self.0.lock().unwrap();
        Ok(table.sessions.get(key.as_ref()).cloned())
    }

    async fn save(
        &self,
        state: HashMap<String, String>,
        _: &Duration,
    ) -> Result<SessionKey, SaveError> {
        let mut table = self.0.lock().unwrap();
        table.last += 1;
        let key = table.last.to_string();
        table.sessions.insert(key.clone(), state);
        Ok(key.try_into().expect("short"))
    }

    async fn update(
        &self,
        key: SessionKey,
        state: HashMap<String, String>,
        _: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        let mut table = self.0.lock().unwrap();
        table.sessions.insert(key.as_ref().to_owned(), state);
        Ok(key)
    }

    async fn update_ttl(&self, _: &SessionKey, _: &Duration) -> anyhow::Result<()> {
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> anyhow::Result<()> {
        self.0.lock().unwrap().sessions.remove(key.as_ref());
        Ok(())
    }
}

async fn login(session: Session, tokens: Tokens, user: Path<String>) -> Result<&'static str> {
    assert_stored(tokens.sign_in(sign_in(&user)).await?);
    session.clear();
    session.renew();
    session.insert("name", user.as_str())?;
    Ok("")
}

async fn logout(session: Session, tokens: Tokens) -> Result<&'static str> {
    assert_stored(tokens.sign_out().await?);
    session.purge();
    Ok("")
}

/// What both know.
async fn me(session: Session, tokens: Tokens) -> Result<String> {
    let name: Option<String> = session.get("name")?;
    let both = name.zip(api(&tokens).await);
    let (name, token) = both.ok_or_else(|| ErrorUnauthorized(""))?;
    Ok(format!("{name} {token}"))
}

async fn cart(session: Session) -> Result<String> {
    let cart: Option<String> = session.get("cart")?;
    Ok(cart.unwrap_or_default())
}

async fn fill_cart(session: Session) -> Result<&'static str> {
    session.insert("cart", "full")?;
    Ok("")
}

async fn renew(session: Session) -> &'static str {
    session.renew();
    ""
}

async fn end_ours(tokens: Tokens) -> Result<&'static str> {
    let _ = tokens.sign_out().await.map_err(ErrorInternalServerError)?;
    Ok("")
}

async fn start() -> (SocketAddr, Sessions) {
    let cache = TokenCache::builder(TestStore::default()).build().unwrap();
    let (layer, sessions, key) = (issuing(&cache), Sessions::default(), Key::generate());
    let theirs = sessions.clone();
    let server = HttpServer::new(move || {
        App::new()
            .route("/login/{user}", web::post().to(login))
            .route("/logout", web::post().to(logout))
            .route("/renew", web::post().to(renew))
            .route("/end-ours", web::post().to(end_ours))
            .route("/cart", web::get().to(cart))
            .route("/cart", web::post().to(fill_cart))
            .route("/me", web::get().to(me))
            .wrap(layer.clone())
            .wrap(SessionMiddleware::new(theirs.clone(), key.clone()))
    });
    let server = server.workers(2).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    (address, sessions)
}

#[actix_web::test]
async fn actix_session() {
    let (at, sessions) = start().await;
    let mut jar = Jar::default();
    assert_eq!(jar.get(at, "/me").await.status, 401);
    assert_eq!(jar.post(at, "/cart", "").await.status, 200);
    let planted = jar.clone();
    for user in ["ada", "bob"] {
        assert_eq!(
            jar.post(at, &format!("/login/{user}"), "").await.status,
            200
        );
        let both = format!("{user} {user}");
        assert_eq!(jar.get(at, "/me").await.body, both);
        // Nothing of the session before, and its id is worth nothing.
        assert_eq!(jar.get(at, "/cart").await.body, "");
        for mut other in [planted.clone(), jar.clone()] {
            other.0.insert("id".into(), planted.0["id"].clone());
            assert_eq!(other.get(at, "/me").await.status, 401);
        }
    }

    // A new id there, and the session here goes on.
    let before = jar.clone();
    assert_eq!(jar.post(at, "/renew", "").await.status, 200);
    assert_ne!(jar.0["id"], before.0["id"]);
    assert_eq!(jar.0["__Host-sid"], before.0["__Host-sid"]);
    assert_eq!(jar.get(at, "/me").await.body, "bob bob");

    // One of them has ended: the next login begins both again.
    for end in ["theirs", "ours"] {
        match end {
            "theirs" => sessions.lose_all(),
            _ => assert_eq!(jar.post(at, "/end-ours", "").await.status, 200),
        }
        assert_eq!(jar.get(at, "/me").await.status, 401, "{end}");
        assert_eq!(jar.post(at, "/login/eve", "").await.status, 200);
        assert_eq!(jar.get(at, "/me").await.body, "eve eve", "{end}");
    }

    let mut copy = jar.clone();
    assert_eq!(jar.send(at, Method::POST, "/logout").await.status, 200);
    assert!(jar.0.is_empty(), "{jar:?}");
    for jar in [&mut jar, &mut copy] {
        assert_eq!(jar.get(at, "/me").await.status, 401);
    }
}
