//! An application whose sessions live in cookies.

use common::{assert_stored, soon};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::sync::Notify;
use tower_token_cache::cookie::{CookieStore, CookieStoreBuilder};
use tower_token_cache::{
    Error, KeyRing, Lookup, PartitionKey, Prior, Timestamp, Token, TokenCache, TokenCacheLayer,
    TokenSet, Tokens,
};

pub struct Server {
    pub address: SocketAddr,
    pub cache: TokenCache,
    pub provider: Arc<Provider>,
}

/// Redeems a refresh token once, and keeps whoever asks until it is opened.
#[derive(Default)]
pub struct Provider {
    pub calls: AtomicUsize,
    pub asked: Notify,
    pub open: Notify,
    pub held: bool,
    /// Letters in the tokens that it gives.
    pub size: usize,
}

impl Provider {
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits for a call.
    pub async fn asked(&self) {
        soon("the provider is asked", self.asked.notified()).await;
    }

    pub async fn redeem(&self, prior: Prior) -> Result<TokenSet, Error> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let spent = prior.refresh_token().map(|token| token.expose().to_owned());
        self.asked.notify_one();
        if self.held {
            self.open.notified().await;
        }
        let token = format!("acquired-{call}-for-{}", spent.unwrap_or("nothing".into()));
        let token = Token::new(token + &text(self.size)).with_expires_in(HOUR);
        Ok(TokenSet::from(token).with_refresh_token(format!("r{call}")))
    }
}

pub const HOUR: Duration = Duration::from_secs(3600);

/// So many letters that hardly compress.
pub fn text(size: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state >> 33) as usize % 64])
    };
    (0..size).map(letter).collect()
}

pub fn builder() -> CookieStoreBuilder {
    CookieStore::builder(KeyRing::generate().unwrap())
}

impl Server {
    pub async fn new(store: CookieStoreBuilder) -> Self {
        Self::with(store, Provider::default()).await
    }

    pub async fn with(store: CookieStoreBuilder, provider: Provider) -> Self {
        let layer = store.build().unwrap().layer().unwrap();
        Self::over(layer, provider).await
    }

    pub async fn over(layer: TokenCacheLayer, provider: Provider) -> Self {
        let provider = Arc::new(provider);
        let cache = layer.cache().clone();
        let routes = Router::new()
            .route("/tokens/{name}", get(read).post(put_route).delete(remove))
            .route(
                "/values/{name}",
                get(read_value).post(put_value).delete(take_value),
            )
            .route("/session", post(sign_in).delete(sign_out))
            .route("/refresh", post(seed))
            .route("/acquire", get(acquire))
            .route("/move", post(move_to))
            .route("/late", post(late))
            .route("/page", get(page))
            .route("/cached/{name}", post(put_cached))
            .with_state(provider.clone())
            .layer(layer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            address,
            cache,
            provider,
        }
    }
}

type Answer = Result<String, (StatusCode, String)>;

fn failed(error: Error) -> (StatusCode, String) {
    (error.status(), format!("{error:?}"))
}

pub async fn shown(tokens: &Tokens, name: &str) -> Result<String, Error> {
    Ok(match tokens.get(name).await? {
        Lookup::Hit(token) => token.access_token().to_owned(),
        other => format!("{other:?}"),
    })
}

async fn read(tokens: Tokens, Path(name): Path<String>) -> Answer {
    shown(&tokens, &name).await.map_err(failed)
}

/// Changes something, and answers only when it is told to if the body says so.
async fn put_route(
    tokens: Tokens,
    name: Path<String>,
    State(provider): State<Arc<Provider>>,
    body: String,
) -> Answer {
    let held = provider.held && body == "held";
    let done = put(tokens, name, body).await;
    if held {
        provider.asked.notify_one();
        provider.open.notified().await;
    }
    done
}

async fn put(tokens: Tokens, Path(name): Path<String>, body: String) -> Answer {
    let token = Token::new(body).with_expires_in(HOUR);
    let done = tokens.insert(name.as_str(), token).await;
    done.map(|()| String::new()).map_err(failed)
}

/// A page that any cache may keep, and that has nothing to do with tokens.
async fn page() -> impl axum::response::IntoResponse {
    ([("cache-control", PUBLIC)], "a page")
}

pub const PUBLIC: &str = "public, max-age=86400, immutable";

/// A handler that changes the session, and says this of caches.
async fn put_cached(
    tokens: Tokens,
    Path(name): Path<String>,
    cache_control: String,
) -> axum::response::Response {
    put(tokens, Path(name), "t".into()).await.unwrap();
    let lines = cache_control.lines().map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        let name: axum::http::HeaderName = name.parse().unwrap();
        (name, axum::http::HeaderValue::try_from(value).unwrap())
    });
    let mut response = axum::response::Response::default();
    for (name, value) in lines {
        response.headers_mut().append(name, value);
    }
    response
}

async fn remove(tokens: Tokens, Path(name): Path<String>) -> Answer {
    let done = tokens.remove(name.as_str()).await;
    done.map(|()| String::new()).map_err(failed)
}

async fn put_value(tokens: Tokens, Path(name): Path<String>, body: String) -> Answer {
    let done = tokens.put(name, &body, HOUR).await;
    done.map(|()| String::new()).map_err(failed)
}

async fn read_value(tokens: Tokens, Path(name): Path<String>) -> Answer {
    let found = tokens.value::<String>(name).await.map_err(failed)?;
    Ok(found.hit().unwrap_or_default())
}

async fn take_value(tokens: Tokens, Path(name): Path<String>) -> Answer {
    let taken = tokens.take::<String>(name).await.map_err(failed)?;
    Ok(taken.hit().unwrap_or_default())
}

/// Ends what was before, and begins anew.
async fn sign_in(tokens: Tokens, body: String) -> Answer {
    let signed_in = async {
        assert_stored(tokens.sign_out().await?);
        let token = Token::new(body).with_expires_in(10_000 * HOUR);
        tokens.insert("graph", token).await?;
        tokens.link_user("ada").await
    };
    signed_in.await.map(|()| String::new()).map_err(failed)
}

async fn sign_out(tokens: Tokens) -> Answer {
    let done = tokens.sign_out().await;
    done.map(|durability| format!("{durability:?}"))
        .map_err(failed)
}

async fn move_to(tokens: Tokens, body: String) -> Answer {
    let moved = tokens.move_to(PartitionKey::session(&body).unwrap()).await;
    moved.map(|_| String::new()).map_err(failed)
}

/// A session with a refresh token, and an access token of this many seconds, or one that is to be
/// refreshed.
async fn seed(tokens: Tokens, body: String) -> Answer {
    let token = Token::new("first");
    let token = match body.parse() {
        Ok(seconds) => token.with_expires_in(Duration::from_secs(seconds)),
        Err(_) => {
            let due = Timestamp::now().saturating_sub(HOUR / 60);
            token.with_expires_in(HOUR).with_refresh_at(due)
        }
    };
    let set = TokenSet::from(token).with_refresh_token("r0");
    let done = tokens.insert("graph", set).await;
    done.map(|()| String::new()).map_err(failed)
}

async fn acquire(tokens: Tokens, State(provider): State<Arc<Provider>>) -> Answer {
    let token = tokens
        .get_or_acquire("graph", async move |prior| provider.redeem(prior).await)
        .await;
    let token = token.map_err(failed)?;
    Ok(token.access_token().to_owned())
}

/// Answers, and then changes something.
async fn late(tokens: Tokens, State(provider): State<Arc<Provider>>) -> axum::body::Body {
    let stream = futures_util::stream::once(async move {
        provider.asked.notify_one();
        provider.open.notified().await;
        let insert = tokens.insert("graph", Token::new("late")).await;
        let acquired = tokens.get_or_acquire("graph", async move |p| provider.redeem(p).await);
        let acquired = acquired.await.map(|_| ());
        let sign_out = tokens.sign_out().await;
        Ok::<_, std::convert::Infallible>(format!("{insert:?} {acquired:?} {sign_out:?}"))
    });
    axum::body::Body::from_stream(stream)
}
