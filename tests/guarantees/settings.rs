//! Times at their ends: each setting means what it says, or is an error of `build`.

use std::time::Duration;

use tower_token_cache::seal::DirRepository;
use tower_token_cache::{
    Acquisitions, BoxError, Builder, CookieStore, Durability, KeyRing, L1, Lifetimes, Lookup,
    MemoryStore, Prior, RedisStore, Timeouts, TokenCache, TokenSet, TokenStore,
};

use common::support::{RedisServer, access, redis_store, session, token};

type Set = fn(Builder, Duration) -> Builder;

/// Every time of the cache's own.
const SETTINGS: [(&str, Set); 11] = [
    ("Lifetimes::after_write", |it, time| {
        it.lifetimes(Lifetimes::new().after_write(time))
    }),
    ("Lifetimes::sliding", |it, time| {
        it.lifetimes(Lifetimes::new().sliding(time))
    }),
    ("Lifetimes::absolute", |it, time| {
        it.lifetimes(Lifetimes::new().absolute(time))
    }),
    ("Lifetimes::negative_entry", |it, time| {
        it.lifetimes(Lifetimes::new().negative_entry(time))
    }),
    ("Timeouts::attempt", |it, time| {
        // An attempt cannot take longer than the operation.
        let operation = time.max(Duration::from_secs(1));
        it.timeouts(Timeouts::new().attempt(time).operation(operation))
    }),
    ("Timeouts::operation", |it, time| {
        it.timeouts(Timeouts::new().operation(time))
    }),
    ("Acquisitions::refresh_before", |it, time| {
        it.acquisitions(Acquisitions::new().refresh_before(time))
    }),
    ("Acquisitions::timeout", |it, time| {
        it.acquisitions(Acquisitions::new().timeout(time))
    }),
    ("Acquisitions::lease_ttl", |it, time| {
        it.acquisitions(Acquisitions::new().lease_ttl(time))
    }),
    ("L1::revalidate_every", |it, time| {
        it.l1(L1::new().revalidate_every(time))
    }),
    ("L1::max_staleness", |it, time| {
        it.l1(L1::new().max_staleness(time))
    }),
];

const TIMES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::MAX,
];

async fn acquire(_: Prior) -> Result<TokenSet, BoxError> {
    Ok(TokenSet::from(token("acquired")).with_refresh_token("r"))
}

/// Does what requests do. With times that are long enough all of it has to work.
async fn use_it(what: &str, build: impl Fn() -> TokenCache, has_to_work: bool) {
    let cache = build();
    let tokens = cache.tokens(session(what));
    let everything = async {
        let absent = tokens.get("graph").await;
        let kept = tokens.insert("graph", token("t")).await;
        let stored = tokens.commit().await;
        let acquired = tokens.get_or_acquire("mail", acquire).await;
        let found = access(&build().tokens(session(what)), "graph").await;
        let moved = tokens.move_to(session(&format!("{what} moved"))).await;
        let signed_out = match &moved {
            Ok(moved) => moved.sign_out().await,
            Err(_) => tokens.sign_out().await,
        };
        if has_to_work {
            assert_eq!(absent.unwrap(), Lookup::Absent, "{what}");
            kept.unwrap();
            assert_eq!(stored.unwrap(), Durability::Stored, "{what}");
            assert_eq!(acquired.unwrap().access_token(), "acquired", "{what}");
            assert_eq!(found.as_deref(), Some("t"), "{what}");
            moved.unwrap();
            assert_eq!(signed_out.unwrap(), Durability::Stored, "{what}");
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), everything).await;
    assert!(in_time.is_ok(), "{what}");
    assert_eq!(cache.stats().unopenable, 0, "{what}");
}

async fn sweep<S: TokenStore + Clone>(store: S) {
    for (option, set) in SETTINGS {
        for time in TIMES {
            let what = format!("{option} {time:?}");
            let built = || set(TokenCache::builder(store.clone()), time).build();
            match built() {
                Ok(_) => use_it(&what, || built().unwrap(), time == Duration::MAX).await,
                Err(error) => {
                    assert_ne!(time, Duration::MAX, "{what}: {error}");
                    assert_eq!(error.option(), option, "{what}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_time_of_a_cache_in_memory() {
    sweep(MemoryStore::new()).await;
}

#[tokio::test]
async fn every_time_of_a_cache_over_redis() {
    let server = RedisServer::start();
    sweep(redis_store(&server).await).await;
}

#[tokio::test]
async fn the_deadline_of_a_shutdown() {
    for time in TIMES {
        let cache = TokenCache::builder(MemoryStore::new()).build().unwrap();
        let tokens = cache.tokens(session("s"));
        tokens.insert("graph", token("t")).await.unwrap();
        let shutdown = tokio::time::timeout(Duration::from_secs(10), cache.shutdown(time));
        let report = shutdown.await.unwrap();
        assert!(report.flushed + report.abandoned <= 1);
        if time == Duration::MAX {
            assert_eq!(report.abandoned, 0);
        }
    }
}

#[tokio::test]
async fn the_times_of_redis() {
    let server = RedisServer::start();
    for time in TIMES {
        let builder = RedisStore::builder(server.url()).response_timeout(time);
        match builder.build() {
            Ok(store) => {
                let build = || TokenCache::builder(store.clone()).build().unwrap();
                let what = format!("response_timeout {time:?}");
                use_it(&what, build, time == Duration::MAX).await;
            }
            Err(error) => assert_eq!((error.option(), time), ("response_timeout", Duration::ZERO)),
        }
    }
}

#[tokio::test]
async fn the_times_of_keys_and_cookies() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (at, time) in TIMES.into_iter().enumerate() {
        let ring = async |name: &str, rotate, activate, refresh| {
            let keys = DirRepository::open(path(&format!("{name}{at}"))).unwrap();
            let builder = KeyRing::builder(keys).rotate_every(rotate);
            builder
                .activation_delay(activate)
                .refresh_every(refresh)
                .open()
                .await
        };
        let hour = Duration::from_secs(3600);
        let rings = [
            ring("rotate", time, 24 * hour, hour).await,
            ring("activate", 2400 * hour, time, hour).await,
            ring("refresh", 2400 * hour, 24 * hour, time).await,
            ring("all", time, time, time).await,
        ];
        for ring in rings.into_iter().flatten() {
            let builder = TokenCache::builder(MemoryStore::new()).key_ring(ring.clone());
            let cache = builder.build().unwrap();
            let tokens = cache.tokens(session("s"));
            tokens.insert("graph", token("t")).await.unwrap();
            assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
            let cookies = CookieStore::builder(ring).max_age(time).build();
            assert_eq!(cookies.is_err(), time < Duration::from_secs(1));
        }
    }
}
