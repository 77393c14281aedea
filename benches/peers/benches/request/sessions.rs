//! tower-sessions with every user's session in its store.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::HeaderValue;
use peers::users::{USERS, UserTokens};
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionManagerLayer, SessionStore};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

pub fn cookie(id: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("sid={id}")).expect("ASCII")
}

/// Their cookies, and the layer over the filled store.
pub async fn layer<S: SessionStore + Clone>(
    store: S,
) -> (Arc<[HeaderValue]>, SessionManagerLayer<S>) {
    let mut cookies = Vec::with_capacity(USERS);
    let tokens = serde_json::to_value(UserTokens::issue()).unwrap();
    for _ in 0..USERS {
        let mut record = Record {
            id: Id::default(),
            data: HashMap::from([("graph".into(), tokens.clone())]),
            expiry_date: time::OffsetDateTime::now_utc() + time::Duration::days(14),
        };
        store.create(&mut record).await.unwrap();
        cookies.push(cookie(&record.id.to_string()));
    }
    let layer = SessionManagerLayer::new(store)
        .with_name("sid")
        .with_secure(false);
    (cookies.into(), layer)
}

pub async fn redis(url: &str) -> RedisStore<Pool> {
    let pool = Pool::new(Config::from_url(url).unwrap(), None, None, None, 6).unwrap();
    pool.connect();
    pool.wait_for_connect().await.unwrap();
    RedisStore::new(pool)
}
