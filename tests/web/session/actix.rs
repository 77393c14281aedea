//! The same in actix-web.

use std::net::SocketAddr;

use actix_web::web::{self, Path};
use actix_web::{App, HttpResponse, HttpServer};
use common::support::TestStore;
use reqwest::{Client, Method};
use tower_token_cache::{Error, InvalidKey, MissingKey, TokenCache, TokenCacheLayer, Tokens};

use super::browser::{Browser, SID, api, sid, sign_in};

/// The site, under `/all`, with a layer in a layer under `/all/nested`; and two that refuse.
async fn start() -> (SocketAddr, TokenCache) {
    let cache = TokenCache::builder(TestStore::default()).build().unwrap();
    let layer = TokenCacheLayer::new(cache.clone(), sid());
    let rejecting = layer.clone().invalid_key(InvalidKey::Reject);
    let demanding = layer.clone().missing_key(MissingKey::Reject);
    let nested = layer.clone();
    let server = HttpServer::new(move || {
        let nested = web::scope("/nested")
            .route("/me", web::get().to(me))
            .route("/sign-in/{user}", web::post().to(login))
            .wrap(nested.clone());
        let apart = [("/rejecting", &rejecting), ("/demanding", &demanding)];
        let apart = apart.map(|(path, layer)| {
            let routes = web::scope(path).route("/me", web::get().to(me));
            routes.wrap(layer.clone())
        });
        let all = web::scope("/all")
            .route("/me", web::get().to(me))
            .route("/sign-in/{user}", web::post().to(login))
            .route("/sign-in-and-fail/{user}", web::post().to(login_and_fail))
            .route("/sign-out", web::post().to(logout))
            .service(nested)
            .wrap(layer.clone());
        let [rejecting, demanding] = apart;
        App::new()
            .service(rejecting)
            .service(demanding)
            .service(all)
    });
    let server = server.workers(2).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    (address, cache)
}

async fn me(tokens: Tokens) -> Result<String, Error> {
    let token = tokens.get("api").await?.hit();
    Ok(token.map_or_else(String::new, |token| token.access_token().to_owned()))
}

async fn login(tokens: Tokens, user: Path<String>) -> Result<HttpResponse, Error> {
    let _ = tokens.sign_in(sign_in(&user)).await?;
    assert_eq!(api(&tokens).await.as_ref(), Some(&*user));
    Ok(HttpResponse::NoContent().finish())
}

async fn login_and_fail(tokens: Tokens, user: Path<String>) -> Result<HttpResponse, Error> {
    let _ = tokens.sign_in(sign_in(&user)).await?;
    Err(Error::Overloaded)
}

async fn logout(tokens: Tokens) -> Result<HttpResponse, Error> {
    let _ = tokens.sign_out().await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What came back.
struct Answer {
    status: u16,
    set_cookie: Option<String>,
    cache_control: Option<String>,
    body: String,
}

impl Browser {
    /// One request. Keeps the cookie that comes back.
    async fn send(&mut self, server: SocketAddr, method: Method, path: &str) -> Answer {
        let request = Client::new().request(method, format!("http://{server}{path}"));
        let cookie = self.cookie.as_deref().unwrap_or("a=b");
        let response = request.header("cookie", cookie).send().await.unwrap();
        let header = |name| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (set_cookie, cache_control) = (header("set-cookie"), header("cache-control"));
        if let Some(line) = &set_cookie {
            let pair = line.split(';').next().unwrap();
            self.cookie = Some(pair.to_owned()).filter(|pair| !pair.ends_with('='));
        }
        Answer {
            status: response.status().as_u16(),
            set_cookie,
            cache_control,
            body: response.text().await.unwrap(),
        }
    }
}

#[actix_web::test]
async fn sign_in_sign_in_as_another_user_and_sign_out() {
    let (server, cache) = start().await;
    let mut browser = Browser::default();
    assert_eq!(
        browser.send(server, Method::GET, "/all/me").await.status,
        401
    );
    let response = browser.send(server, Method::POST, "/all/sign-in/ada").await;
    assert_eq!(response.status, 204);
    let line = response.set_cookie.unwrap();
    let rest = "; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=1209600";
    assert!(line.starts_with(SID) && line.ends_with(rest), "{line}");
    assert_eq!(response.cache_control.as_deref(), Some("private, no-store"));
    assert_eq!(
        browser.send(server, Method::GET, "/all/me").await.body,
        "ada"
    );
    let mut ada = browser.clone();

    browser.send(server, Method::POST, "/all/sign-in/bob").await;
    assert_eq!(
        browser.send(server, Method::GET, "/all/me").await.body,
        "bob"
    );
    assert_eq!(ada.send(server, Method::GET, "/all/me").await.body, "");

    let response = browser.send(server, Method::POST, "/all/sign-out").await;
    assert_eq!(response.status, 204);
    assert!(browser.cookie.is_none());
    assert_eq!(
        browser.send(server, Method::GET, "/all/me").await.status,
        401
    );
    assert_eq!(cache.stats().invalid_keys, 0);
}

#[actix_web::test]
async fn an_error_after_the_sign_in_carries_the_cookie() {
    let (server, _) = start().await;
    let mut browser = Browser::default();
    let response = browser
        .send(server, Method::POST, "/all/sign-in-and-fail/ada")
        .await;
    assert_eq!(response.status, 503);
    assert_eq!(
        browser.send(server, Method::GET, "/all/me").await.body,
        "ada"
    );
}

#[actix_web::test]
async fn a_broken_cookie_is_removed() {
    let (server, cache) = start().await;
    let mut browser = Browser::with(format!("{SID}x"));
    assert_eq!(
        browser.send(server, Method::GET, "/all/me").await.status,
        401
    );
    assert!(browser.cookie.is_none());
    assert_eq!(cache.stats().invalid_keys, 1);
    // By a refusal as well.
    for (path, status) in [("/rejecting/me", 400), ("/demanding/me", 401)] {
        let mut browser = Browser::with(format!("{SID}x"));
        let answer = browser.send(server, Method::GET, path).await;
        assert_eq!(answer.status, status);
        assert!(browser.cookie.is_none());
    }
    assert_eq!(cache.stats().invalid_keys, 3);
}

#[actix_web::test]
async fn within_a_layer_within_a_layer_the_user_can_sign_in() {
    let (server, cache) = start().await;
    let mut browser = Browser::with(format!("{SID}x"));
    browser
        .send(server, Method::POST, "/all/nested/sign-in/ada")
        .await;
    for path in ["/all/me", "/all/nested/me"] {
        assert_eq!(browser.send(server, Method::GET, path).await.body, "ada");
    }
    assert_eq!(cache.stats().invalid_keys, 1);
}
