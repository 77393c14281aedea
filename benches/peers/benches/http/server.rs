//! The servers: one stack each, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use axum::routing::get;
use peers::users::{ACCESS, PAYLOAD, USERS, UserTokens, issue_set, session_id};
use redis::AsyncCommands;
use tower_sessions::Session;
use tower_token_cache::{
    Error, L1, PartitionKey, RedisStore, TokenCache, TokenCacheLayer, Tokens, key,
};

use crate::no_op::NoOpLayer;
use crate::sessions;

/// The argument of such a process; the stack and the Redis follow.
pub const SERVE: &str = "--serve";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    NoOp,
    /// One `GET` of a user's bytes in the handler, over one multiplexed connection, and nothing else.
    Bare,
    Sessions,
    OursL1Off,
    OursL1On,
}

impl Stack {
    pub const ALL: [Self; 5] = [
        Self::NoOp,
        Self::Bare,
        Self::Sessions,
        Self::OursL1Off,
        Self::OursL1On,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::NoOp => "no-op layer",
            Self::Bare => "bare GET by the redis crate",
            Self::Sessions => "tower-sessions, RedisStore",
            Self::OursL1Off => "ours, L1 off",
            Self::OursL1On => "ours, L1 on",
        }
    }
}

/// A server that runs until dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    /// One per user.
    pub cookies: Vec<String>,
}

impl Server {
    /// Returns once its users have their tokens and it listens.
    pub fn start(stack: Stack, redis: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([SERVE, stack.name(), redis])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        let port = lines.next().expect("a port").parse().unwrap();
        let cookies = lines.take(USERS).collect();
        Self {
            child,
            port,
            cookies,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn serve(stack: &str, redis: &str) {
    let stack = Stack::ALL.into_iter().find(|it| it.name() == stack);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (router, cookies) = router(stack.expect("one of ours"), redis).await;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.unwrap();
        let mut output = format!("{}\n", listener.local_addr().unwrap().port());
        for cookie in &cookies {
            output += &format!("{cookie}\n");
        }
        std::io::stdout().write_all(output.as_bytes()).unwrap();
        axum::serve(listener, router).await.unwrap();
    });
}

async fn router(stack: Stack, redis: &str) -> (Router, Vec<String>) {
    let ours_ids = || (0..USERS).map(|user| format!("sid={}", session_id(user)));
    match stack {
        Stack::NoOp => {
            let router = Router::new().route("/read", get(async || ACCESS.to_string()));
            (router.layer(NoOpLayer), ours_ids().collect())
        }
        Stack::Bare => (bare(redis).await, ours_ids().collect()),
        Stack::Sessions => {
            let store = sessions::redis(redis).await;
            let (cookies, layer) = sessions::layer(store).await;
            let text = |cookie: &axum::http::HeaderValue| cookie.to_str().unwrap().to_owned();
            let router = Router::new().route("/read", get(read_session));
            (router.layer(layer), cookies.iter().map(text).collect())
        }
        Stack::OursL1Off => (ours(redis, L1::disabled()).await, ours_ids().collect()),
        Stack::OursL1On => {
            let l1 = L1::new().revalidate_every(None);
            (ours(redis, l1).await, ours_ids().collect())
        }
    }
}

async fn bare(redis: &str) -> Router {
    let client = redis::Client::open(redis).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let bytes = vec![b'x'; PAYLOAD];
    for user in 0..USERS {
        let key = session_id(user);
        let () = connection.set(key, &bytes).await.unwrap();
    }
    let read = async move |headers: HeaderMap| {
        let cookie = headers[COOKIE].to_str().unwrap();
        let key = cookie.strip_prefix("sid=").unwrap();
        let bytes: Vec<u8> = connection.clone().get(key).await.unwrap();
        bytes.len().to_string()
    };
    Router::new().route("/read", get(read)).layer(NoOpLayer)
}

async fn ours(redis: &str, l1: L1) -> Router {
    let store = RedisStore::connect(redis).await.unwrap();
    let cache = TokenCache::builder(store).l1(l1).build().unwrap();
    for user in 0..USERS {
        let key = PartitionKey::session(session_id(user)).unwrap();
        let tokens = cache.tokens(key);
        tokens.insert("graph", issue_set()).await.unwrap();
    }
    while cache.stats().pending_changes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let layer = TokenCacheLayer::new(cache, key::cookie("sid"));
    Router::new().route("/read", get(read_token)).layer(layer)
}

async fn read_token(tokens: Tokens) -> Result<String, Error> {
    let token = tokens.get("graph").await?;
    let token = token.hit().expect("every user has one");
    Ok(token.access_token().len().to_string())
}

async fn read_session(session: Session) -> String {
    let tokens: UserTokens = session
        .get("graph")
        .await
        .unwrap()
        .expect("every user has some");
    tokens.access_token.len().to_string()
}
