//! The example `login` from outside, against a real OpenID provider: two of its processes share
//! one Redis, and a browser goes from one to the other.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::browser::{Answer, Browser};
use common::oidc::OidcProvider;
use common::playground::{PLAYGROUNDS, Playground, binary};
use common::redis::RedisServer;
use common::{eventually, free_port, support};
use futures_util::future::join_all;
use oauth2::url::Url;
use reqwest::{Method, StatusCode};
use tower_token_cache::seal::RingKey;
use tower_token_cache::{KeyRing, Lookup, Tokens};

const CLIENT: (&str, &str) = ("app", "the app's secret");
const COOKIE: &str = "__Host-sid";
/// What seals the tokens.
const KEYS: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// One process of the example. Killed on drop.
struct Server {
    child: Child,
    url: Url,
}

impl Server {
    fn start(provider: &OidcProvider, redis: &RedisServer, port: u16, base: u16) -> Self {
        let mut child = Command::new(binary("login"))
            .env("ISSUER", provider.issuer())
            .env("CLIENT_ID", CLIENT.0)
            .env("CLIENT_SECRET", CLIENT.1)
            .env("BASE_URL", format!("http://127.0.0.1:{base}"))
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("REDIS_URL", redis.url())
            .env("KEYS", KEYS)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert!(line.starts_with("sign in at "), "{line}");
        let url = Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        Self { child, url }
    }

    /// The session that this browser has here.
    fn session(&self, browser: &Browser) -> Option<String> {
        let value = browser.cookie(&self.url, COOKIE)?;
        value.split('.').next().map(str::to_owned)
    }

    fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two processes that browsers see as one, and what they need.
struct Site {
    provider: OidcProvider,
    redis: RedisServer,
    /// Where browsers come back from the provider.
    first: Server,
    second: Server,
}

impl Site {
    fn start(lifetime: u64) -> Self {
        let redis = RedisServer::start();
        let (one, two) = (free_port(), free_port());
        let callback = format!("http://127.0.0.1:{one}/callback");
        let provider = OidcProvider::start(&callback, lifetime);
        Self {
            first: Server::start(&provider, &redis, one, one),
            second: Server::start(&provider, &redis, two, one),
            provider,
            redis,
        }
    }

    /// What is stored for this browser.
    async fn tokens(&self, browser: &Browser) -> Tokens {
        let session = self.first.session(browser).expect("signed in");
        let store = support::redis_store(&self.redis).await;
        let ring = KeyRing::from_keys(RingKey::from_base64(KEYS).unwrap(), []);
        let cache = support::builder(store).key_ring(ring).build().unwrap();
        cache.tokens(support::session(&session))
    }

    /// The browser takes both processes for one server.
    fn visit_second(&self, browser: &mut Browser) {
        let session = self.first.session(browser).expect("signed in");
        browser.set_cookie(&self.second.url, COOKIE, session);
    }

    /// Signs in, and is where the sign-in ends.
    async fn sign_in(&self, browser: &mut Browser) -> Answer {
        browser.go(Method::GET, self.first.at("/login")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_use_and_sign_out() {
    let site = Site::start(3600);
    let mut browser = Browser::new();
    let api = site.first.at("/api");
    assert_eq!(browser.go(Method::GET, api.clone()).await.status, 401);

    let answer = site.sign_in(&mut browser).await;
    assert_eq!((answer.status, answer.at.path()), (StatusCode::OK, "/api"));
    assert_eq!(answer.body["sub"], "alice");
    for rule in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(answer.cookie_line.contains(rule), "{}", answer.cookie_line);
    }
    // The other process knows the session, too.
    site.visit_second(&mut browser);
    let answer = browser.go(Method::GET, site.second.at("/api")).await;
    assert_eq!(
        (answer.status, &answer.body["sub"]),
        (StatusCode::OK, &"alice".into())
    );

    // Signed out is signed out, on both, and for whoever kept the cookie.
    let mut thief = browser.clone();
    let answer = browser.go(Method::POST, site.second.at("/logout")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(site.second.session(&browser), None);
    for server in [&site.first, &site.second] {
        eventually("the other process has forgotten the session", async || {
            thief.go(Method::GET, server.at("/api")).await.status == 401
        })
        .await;
    }
    assert_eq!(site.provider.count("refreshed").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_id_changes_at_sign_in() {
    let site = Site::start(3600);
    let mut browser = Browser::new();
    let (_, next) = browser.step(Method::GET, site.first.at("/login")).await;
    let before = site.first.session(&browser).unwrap();
    let answer = browser.go(Method::GET, next.unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(site.first.session(&browser).unwrap(), before);
    // Who planted the first id has nothing.
    browser.set_cookie(&site.first.url, COOKIE, before);
    let answer = browser.go(Method::GET, site.first.at("/api")).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_counts_once_and_where_it_began() {
    let site = Site::start(3600);
    let mut browser = Browser::new();
    let (_, mut next) = browser.step(Method::GET, site.first.at("/login")).await;
    while next.as_ref().is_some_and(|url| url.path() != "/callback") {
        next = browser.step(Method::GET, next.unwrap()).await.1;
    }
    let callback = next.unwrap();
    // Not in another browser: neither without a session, nor in one of its own.
    let mut other = Browser::new();
    assert_eq!(other.go(Method::GET, callback.clone()).await.status, 400);
    other.step(Method::GET, site.first.at("/login")).await;
    assert_eq!(other.go(Method::GET, callback.clone()).await.status, 400);
    // Not with another state.
    let mut forged = callback.clone();
    forged
        .query_pairs_mut()
        .clear()
        .append_pair("code", "c")
        .append_pair("state", "s");
    assert_eq!(browser.go(Method::GET, forged).await.status, 400);
    // Here it does, but not twice.
    let answer = browser.go(Method::GET, callback.clone()).await;
    assert_eq!(
        (answer.status, &answer.body["sub"]),
        (StatusCode::OK, &"alice".into())
    );
    assert_eq!(browser.go(Method::GET, callback).await.status, 400);
    assert_eq!(
        browser.go(Method::GET, site.first.at("/api")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_are_refreshed_once_for_all_requests() {
    let site = Site::start(2);
    let mut browser = Browser::new();
    assert_eq!(site.sign_in(&mut browser).await.status, StatusCode::OK);
    site.visit_second(&mut browser);
    for round in 1..=3 {
        let before = site.provider.count("refreshed").await;
        let stored = site.tokens(&browser).await;
        eventually("the token expires", async || {
            stored.reload().await.unwrap();
            stored.get("api").await.unwrap() == Lookup::Absent
        })
        .await;
        let requests = (0..50).map(|number| {
            let mut browser = browser.clone();
            let server = [&site.first, &site.second][number % 2];
            async move { browser.go(Method::GET, server.at("/api")).await }
        });
        for answer in join_all(requests).await {
            assert_eq!(answer.status, StatusCode::OK, "round {round}: {answer:?}");
            assert_eq!(answer.body["sub"], "alice");
        }
        assert!(site.provider.count("refreshed").await > before);
    }
    assert_eq!(site.provider.count("invalid_grant").await, 0);
    assert_eq!(site.provider.count("revoked").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_ends_a_session_for_a_reuse() {
    // What the other tests count on: reuse would not go unnoticed.
    let site = Site::start(3600);
    let mut browser = Browser::new();
    assert_eq!(site.sign_in(&mut browser).await.status, StatusCode::OK);
    let refresh_token = site.tokens(&browser).await.refresh_token().await;
    let spent = refresh_token.unwrap().hit().expect("it is stored");
    for (status, revoked) in [(200, 0), (400, 1)] {
        assert_eq!(site.provider.redeem(CLIENT, spent.expose()).await, status);
        assert_eq!(site.provider.count("revoked").await, revoked);
    }
    let answer = browser.go(Method::GET, site.first.at("/api")).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_credentials() {
    let provider = OidcProvider::start("http://127.0.0.1:1/callback", 3600);
    for name in PLAYGROUNDS {
        let client = ["--client-id", CLIENT.0, "--client-secret", CLIENT.1];
        let server = Playground::start(
            name,
            &[&["--issuer", provider.issuer()], &client[..]].concat(),
        );
        let answer = server.acquire("nobody", "/acquire/api").await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert_eq!(answer.body["token_source"], "identity_provider");
        let token = answer.body["access_token"].as_str().unwrap();
        assert!(provider.is_active(CLIENT, token).await);
        let again = server.acquire("nobody", "/acquire/api").await;
        assert_eq!(again.body["access_token"], token);
        assert_eq!(again.body["token_source"], "cache");
    }
}
