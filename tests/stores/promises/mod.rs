//! What the crate promises, once through on each store: two instances or more, on a real server or file.
//! The binary `guarantees` goes into each promise, on a store in memory and on Redis.

use std::time::Duration;

use common::support::{access, builder, eventually, hears, session, token};
use tower_token_cache::{Builder, Durability, Error, L1, Timeouts, TokenCache, Tokens};

use self::home::Home;

mod changes;
mod dropped;
mod home;
pub(crate) mod once;
mod outages;

/// Runs tests on each store, and some on those that outlive a crash.
macro_rules! on_each_store {
    ($($part:ident::$test:ident)*; $($with:ident::$durable:ident)*) => {
        on_each_store!(@ postgres: Postgres, $($part::$test)* $($with::$durable)*);
        on_each_store!(@ mariadb: MariaDb, $($part::$test)* $($with::$durable)*);
        on_each_store!(@ redis: Redis, $($part::$test)* $($with::$durable)*);
        on_each_store!(@ sqlite: Sqlite, $($part::$test)*);
        on_each_store!(@ memcached: Memcached, $($part::$test)*);
    };
    (@ $name:ident: $home:ident, $($part:ident::$test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$part::$test::<super::home::$home>().await;
                }
            )*
        }
    };
}

on_each_store! {
    changes::no_update_is_lost
    changes::a_sign_out_is_final
    changes::nothing_is_stale_for_long
    changes::a_session_moves_as_a_whole
    once::a_refresh_happens_once
    once::a_fleet_redeems_once
    once::a_value_is_taken_once
    dropped::what_is_dropped_at_an_await_ends_as_if_nobody_had_gone
    outages::an_outage_is_survived;
    outages::a_session_outlives_a_crash
}

const SECOND: Duration = Duration::from_secs(1);

/// An instance that waits for a busy machine.
async fn instance(home: &impl Home) -> TokenCache {
    let timeouts = Timeouts::new().attempt(5 * SECOND).operation(10 * SECOND);
    ready(builder(home.store().await).timeouts(timeouts)).await
}

async fn ready(builder: Builder) -> TokenCache {
    // What a store without a feed needs to be as up to date as the others.
    let cache = builder.l1(L1::new().max_staleness(SECOND)).build().unwrap();
    follows(&cache).await;
    cache
}

async fn instances(home: &impl Home) -> [TokenCache; 2] {
    [instance(home).await, instance(home).await]
}

/// Waits for the feed, if there is one.
async fn follows(cache: &TokenCache) {
    if cache.stats().feed_alive.is_some() {
        hears(cache).await;
    }
}

async fn put(tokens: &Tokens, key: &str, text: &str) {
    tokens.insert(key, token(text)).await.unwrap();
    eventually("it is stored", async || {
        tokens.commit().await.unwrap() == Durability::Stored
    })
    .await;
}

/// What an instance that has nothing in memory finds.
async fn stored(home: &impl Home, sid: &str, key: &str) -> Option<String> {
    let cache = builder(home.store().await).build().unwrap();
    let tokens = cache.tokens(session(sid));
    eventually("L2 can be asked", async || tokens.reload().await.unwrap()).await;
    access(&tokens, key).await
}

async fn finds(cache: &TokenCache, sid: &str, key: &str, text: Option<&str>) {
    eventually(&format!("{sid}/{key} is {text:?}"), async || {
        access(&cache.tokens(session(sid)), key).await.as_deref() == text
    })
    .await;
}

/// A change of a session that is over is refused, at once or when the store is told.
async fn is_refused(tokens: &Tokens) {
    eventually("it is refused", async || {
        let done = match tokens.insert("late", token("late")).await {
            Ok(()) => tokens.commit().await,
            Err(refused) => Err(refused),
        };
        match done {
            Err(Error::SignedOut) => true,
            Ok(Durability::Pending) => false,
            other => panic!("{other:?}"),
        }
    })
    .await;
}
