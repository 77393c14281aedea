//! An OAuth provider of the tests' own that rotates refresh tokens strictly: each can be redeemed
//! once, and whoever redeems one again ends the whole family.
//!
//! It is one server with as many issuers as there are names: `issuer("p1")` is `http://…/p1`. So a
//! test knows which process asked.

mod behaviour;
mod ledger;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use self::behaviour::{Behaviour, Refusal, Step};
use self::ledger::{Family, Ledger};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use oauth2::url::form_urlencoded;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tower_token_cache::{Prior, ProviderError, TokenSet};

pub const CLIENT_ID: &str = "app";
pub const CLIENT_SECRET: &str = "the app's secret";

/// Stops on drop.
pub struct Provider {
    address: SocketAddr,
    state: Arc<State>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<(Step, String)>>,
    server: JoinHandle<()>,
}

struct State {
    behaviour: watch::Sender<Behaviour>,
    arrivals: mpsc::UnboundedSender<(Step, String)>,
    ledger: Mutex<Ledger>,
}

/// Closes the connection.
#[derive(Debug)]
struct Lost;

type Answer = Response<Full<Bytes>>;

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            behaviour: watch::Sender::new(Behaviour::default()),
            arrivals: arrived,
            ledger: Mutex::default(),
        });
        let server = tokio::spawn(serve(listener, state.clone()));
        Self {
            address,
            state,
            arrivals: arrivals.into(),
            server,
        }
    }

    /// The issuer by which a client of this name knows the provider.
    pub fn issuer(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Changes what it does.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        self.state.behaviour.send_modify(change);
    }

    /// Requests of this step wait from now on.
    pub fn hold(&self, step: Step) {
        self.set(|behaviour| behaviour.gate = Some((step, None)));
    }

    /// Only those of this issuer wait yet.
    pub fn hold_only(&self, step: Step, name: &str) {
        self.set(|behaviour| behaviour.gate = Some((step, Some(name.to_owned()))));
    }

    pub fn release(&self) {
        self.set(|behaviour| behaviour.gate = None);
    }

    /// Waits for the next request of this step, and says which issuer it came to.
    pub async fn arrived(&self, step: Step) -> String {
        let mut arrivals = self.arrivals.lock().await;
        let next = async {
            loop {
                let (at, name) = arrivals.recv().await.expect("the server runs");
                if at == step {
                    return name;
                }
            }
        };
        let next = tokio::time::timeout(Duration::from_secs(30), next).await;
        next.unwrap_or_else(|_| panic!("no request came to {step:?}"))
    }

    /// Signs this user in, and gives the refresh token of the new family.
    pub fn sign_in(&self, user: &str) -> String {
        let mut ledger = self.state.ledger();
        ledger.families.insert(user.to_owned(), Family::default());
        ledger.rotate(user).1
    }

    /// How often this user's refresh tokens were redeemed.
    pub fn redemptions(&self, user: &str) -> u64 {
        self.state.ledger().families[user].redemptions
    }

    /// How often anyone's were.
    pub fn all_redemptions(&self) -> u64 {
        let ledger = self.state.ledger();
        ledger.families.values().map(|one| one.redemptions).sum()
    }

    /// How often a spent refresh token was redeemed again. Each ended a family.
    pub fn reuses(&self) -> u64 {
        self.state.ledger().reuses
    }

    /// How often the client asked for tokens of its own.
    pub fn applications(&self) -> u64 {
        self.state.ledger().applications
    }

    /// Requests to the token endpoint, whatever came of them.
    pub fn calls(&self) -> u64 {
        self.state.ledger().calls
    }

    /// How many of them there were at the same time, at most.
    pub fn most_at_once(&self) -> u64 {
        self.state.ledger().most_under_way
    }

    /// Whether this access token is the newest of this user, whose family lives.
    pub fn is_newest(&self, user: &str, access_token: &str) -> bool {
        let ledger = self.state.ledger();
        let family = &ledger.families[user];
        !family.revoked
            && family
                .access_tokens
                .last()
                .is_some_and(|it| it == access_token)
    }

    /// Whether this refresh token is the one that this user can redeem.
    pub fn is_redeemable(&self, user: &str, refresh_token: &str) -> bool {
        let ledger = self.state.ledger();
        let family = &ledger.families[user];
        !family.revoked && family.refresh_token == refresh_token
    }

    /// Whether this access token is any of this user's, whose family lives.
    pub fn is_valid(&self, user: &str, access_token: &str) -> bool {
        let ledger = self.state.ledger();
        let family = &ledger.families[user];
        !family.revoked && family.access_tokens.iter().any(|it| it == access_token)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic while it is locked")
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Lost> {
        let path = request.uri().path().to_owned();
        let Some((name, path)) = path[1..].split_once('/') else {
            return Ok(error(StatusCode::NOT_FOUND, "not_found"));
        };
        match path {
            ".well-known/openid-configuration" => {
                self.pass(Step::Discovery, name).await;
                let host = request.headers()[header::HOST].to_str().unwrap();
                let issuer = format!("http://{host}/{name}");
                let endpoint = format!("{issuer}/token");
                let document = json!({"issuer": issuer, "token_endpoint": endpoint});
                Ok(answer(StatusCode::OK, &document))
            }
            "token" => self.token(name, request).await,
            _ => Ok(error(StatusCode::NOT_FOUND, "not_found")),
        }
    }

    async fn token(&self, name: &str, request: Request<Incoming>) -> Result<Answer, Lost> {
        let (head, body) = request.into_parts();
        let form = body.collect().await.map_err(|_| Lost)?.to_bytes();
        let form: HashMap<String, String> = form_urlencoded::parse(&form).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str);
        let _call = Call::begin(self);
        self.pass(Step::Token, name).await;

        let Behaviour {
            expires_in,
            before,
            after,
            refusal,
            loses_answers,
            gate: _,
        } = self.behaviour.borrow().clone();
        tokio::time::sleep(before).await;
        let in_body = field("client_id").zip(field("client_secret"));
        if in_body != Some((CLIENT_ID, CLIENT_SECRET))
            && !is_client(head.headers.get("authorization"))
        {
            return Ok(error(StatusCode::UNAUTHORIZED, "invalid_client"));
        }
        if let Some(refusal) = refusal {
            return Ok(refusal.answer());
        }
        let granted = match (field("grant_type"), field("refresh_token")) {
            (Some("client_credentials"), _) => {
                let mut ledger = self.ledger();
                ledger.serial += 1;
                ledger.applications += 1;
                Ok((format!("access-{}", ledger.serial), None))
            }
            (Some("refresh_token"), Some(spent)) => {
                let redeemed = self.ledger().redeem(spent);
                redeemed.map(|(access, refresh)| (access, Some(refresh)))
            }
            _ => Err("unsupported_grant_type"),
        };
        tokio::time::sleep(after).await;
        if loses_answers {
            return Err(Lost);
        }
        Ok(match granted {
            Ok((access_token, refresh_token)) => {
                let mut body = json!({
                    "access_token": access_token, "token_type": "Bearer", "expires_in": expires_in,
                });
                if let Some(refresh_token) = refresh_token {
                    body["refresh_token"] = refresh_token.into();
                }
                answer(StatusCode::OK, &body)
            }
            Err(code) => error(StatusCode::BAD_REQUEST, code),
        })
    }

    /// Tells the test, and waits while the gate is closed.
    async fn pass(&self, step: Step, name: &str) {
        let _ = self.arrivals.send((step, name.to_owned()));
        let mut behaviour = self.behaviour.subscribe();
        let open = behaviour.wait_for(|behaviour| !behaviour.holds(step, name));
        open.await.expect("the provider lives");
    }
}

/// A request to the token endpoint, until it is answered or its client has gone.
struct Call<'a>(&'a State);

impl<'a> Call<'a> {
    fn begin(state: &'a State) -> Self {
        let mut ledger = state.ledger();
        ledger.calls += 1;
        ledger.under_way += 1;
        ledger.most_under_way = ledger.most_under_way.max(ledger.under_way);
        Self(state)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.ledger().under_way -= 1;
    }
}

impl Refusal {
    fn answer(self) -> Answer {
        match self {
            Self::TooManyRequests(seconds) => {
                let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "slow_down");
                answer
                    .headers_mut()
                    .insert(header::RETRY_AFTER, seconds.into());
                answer
            }
            Self::InvalidGrant => error(StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::Broken => error(StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        }
    }
}

/// Until it is aborted, its connections with it.
async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let state = state.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| state.clone().answer(request));
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

fn is_client(authorization: Option<&header::HeaderValue>) -> bool {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let decode = |value: &header::HeaderValue| {
        let encoded = value.to_str().ok()?.strip_prefix("Basic ")?;
        String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()
    };
    let sent = authorization.and_then(decode);
    // RFC 6749 §2.3.1 wants both encoded as in a form. Not every client does it.
    let encoded = format!("{}:{}", encode(CLIENT_ID), encode(CLIENT_SECRET));
    sent.is_some_and(|sent| sent == encoded || sent == format!("{CLIENT_ID}:{CLIENT_SECRET}"))
}

fn error(status: StatusCode, code: &str) -> Answer {
    answer(status, &json!({"error": code}))
}

fn answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is lost")
    }
}

impl std::error::Error for Lost {}

/// An acquire function for caches in the test's own process: the refresh-token grant.
pub async fn redeem(issuer: String, prior: Prior) -> Result<TokenSet, ProviderError> {
    let spent = prior
        .refresh_token()
        .expect("signed in")
        .expose()
        .to_owned();
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", &spent)
        .append_pair("client_id", CLIENT_ID)
        .append_pair("client_secret", CLIENT_SECRET)
        .finish();
    let request = reqwest::Client::new()
        .post(format!("{issuer}/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let response = request.send().await.map_err(ProviderError::unreachable)?;
    let status = response.status();
    let body = response.bytes().await.map_err(ProviderError::unreachable)?;
    match status.is_success() {
        true => serde_json::from_slice(&body).map_err(ProviderError::unreachable),
        false => Err(ProviderError::status(status)),
    }
}
