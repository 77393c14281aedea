//! Session values, and moves.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use common::store::TestStore;
use common::support::*;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{
    Clock, Error, FailurePolicy, Lifetimes, Lookup, MemoryStore, Timestamp, TokenCacheLayer,
    Tokens, WriteMode, key,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn take(tokens: &Tokens) -> Lookup<String> {
    tokens.take("login").await.unwrap()
}

/// FailurePolicy::Strict: "Changes are committed before the response head, and a commit that fails turns the response
/// into 503". The change is made by the handle that `move_to` has returned.
#[tokio::test]
async fn strict_holds_for_the_handle_of_a_move() {
    let mut statuses = Vec::new();
    for moves in [false, true] {
        let store = TestStore::default();
        let cache = cache(store.clone());
        let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
        let layer = layer.failure_policy(FailurePolicy::Strict);
        let begun = cache.tokens(session("old"));
        begun.insert("api", token("t")).await.unwrap();
        assert_stored(begun.commit().await.unwrap());
        let inner = service_fn(async |request: Request<()>| {
            let mut tokens = request.extensions().get::<Tokens>().unwrap().clone();
            if moves {
                tokens = tokens.move_to(session("new")).await.unwrap();
            }
            tokens.insert("more", token("m")).await.unwrap();
            store.set_refusing_commits(true);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Request::post("/").header("cookie", "sid=old").body(());
        let response = layer.layer(inner).oneshot(request.unwrap()).await.unwrap();
        statuses.push(response.status());
    }
    let refused = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(statuses, [refused, refused], "as it came, and moved");
}

/// put: "in L2 before the response head: the browser may come back to another instance"; remove: "before the response
/// head is sent"; and WriteMode::BeforeResponse. With the handle that `move_to` has returned.
#[tokio::test]
async fn a_change_by_the_handle_of_a_move_is_in_l2_before_the_head() {
    let mut missing = Vec::new();
    for (moves, how) in [
        (false, "put"),
        (true, "put"),
        (true, "remove"),
        (true, "insert"),
    ] {
        let store = TestStore::default();
        let cache = cache(store.clone());
        let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
        let layer = layer.write_mode(WriteMode::BeforeResponse);
        let begun = cache.tokens(session("old"));
        begun.insert("api", token("t")).await.unwrap();
        assert_stored(begun.commit().await.unwrap());
        let inner = service_fn(async |request: Request<()>| {
            let mut tokens = request.extensions().get::<Tokens>().unwrap().clone();
            if moves {
                tokens = tokens.move_to(session("new")).await.unwrap();
            }
            match how {
                "put" => tokens.put("login", "state", HOUR).await.unwrap(),
                "insert" => tokens.insert("more", token("m")).await.unwrap(),
                _ => tokens.remove("api").await.unwrap(),
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Request::post("/").header("cookie", "sid=old").body(());
        let before = store.commits();
        let response = layer.layer(inner).oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        if store.commits() == before {
            missing.push((moves, how));
        }
    }
    assert!(missing.is_empty(), "not in L2 with the head: {missing:?}");
}

/// Lifetimes::absolute: "How long a partition lives after it was created, whatever happens to it"; README: `move_to`
/// "moves everything along".
#[tokio::test]
async fn a_session_that_is_moved_is_no_younger() {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone()))
        .clock(clock.clone())
        .lifetimes(Lifetimes::new().absolute(HOUR));
    let cache = cache.build().unwrap();
    let old = cache.tokens(session("old"));
    let endless = tower_token_cache::Token::new("t");
    old.insert("api", endless).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    clock.advance(HOUR / 2);
    let new = old.move_to(session("new")).await.unwrap();
    clock.advance(HOUR / 2 + Duration::from_secs(60));
    assert_eq!(access(&new, "api").await, None, "an hour and a minute old");
}

/// put: "Keeps a value under this name for this long".
#[tokio::test]
async fn a_value_is_kept_for_as_long_as_was_said() {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone())).clock(clock.clone());
    let cache = cache.build().unwrap();
    let tokens = cache.tokens(session("s"));
    tokens.put("login", "state", 24 * 30 * HOUR).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    clock.advance(24 * 15 * HOUR);
    let value = tokens.value::<String>("login").await.unwrap();
    assert!(value.is_hit(), "{value:?} after half of its time");
}

/// put: "InvalidValue where the value cannot be written as JSON"; what was written is read again.
#[tokio::test]
async fn what_was_put_is_read() {
    let cache = cache(MemoryStore::new());
    let tokens = cache.tokens(session("s"));
    let mut failed = Vec::new();
    let mut deep = serde_json::json!(1);
    for _ in 0..200 {
        deep = serde_json::json!([deep]);
    }
    if tokens.put("deep", &deep, HOUR).await.is_ok() {
        let read = tokens.value::<serde_json::Value>("deep").await;
        if !matches!(&read, Ok(Lookup::Hit(read)) if *read == deep) {
            failed.push("200 arrays in one another");
        }
    }
    if tokens.put("nan", &f64::NAN, HOUR).await.is_ok() {
        let read = tokens.value::<f64>("nan").await;
        if !matches!(read, Ok(Lookup::Hit(_))) {
            failed.push("not a number");
        }
    }
    for seed in 0..2000_u64 {
        let number = f64::from_bits(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
        if number.is_finite() {
            tokens.put("f", &number, HOUR).await.unwrap();
            let read = tokens.value::<f64>("f").await.unwrap().hit();
            if read != Some(number) {
                failed.push("a float");
                break;
            }
        }
    }
    tokens.put("max", &u64::MAX, Duration::MAX).await.unwrap();
    assert_eq!(
        tokens.take::<u64>("max").await.unwrap().hit(),
        Some(u64::MAX)
    );
    tokens.put("none", &None::<u8>, HOUR).await.unwrap();
    assert_eq!(
        tokens.take::<Option<u8>>("none").await.unwrap().hit(),
        Some(None)
    );
    tokens.put("empty", "", HOUR).await.unwrap();
    assert_eq!(
        tokens
            .take::<String>("empty")
            .await
            .unwrap()
            .hit()
            .as_deref(),
        Some("")
    );
    tokens.put("zero", "", Duration::ZERO).await.unwrap();
    assert!(!tokens.take::<String>("zero").await.unwrap().is_hit());
    let long = "n".repeat(256);
    tokens.put(&long, "x", HOUR).await.unwrap();
    assert!(tokens.take::<String>(&long).await.unwrap().is_hit());
    assert!(failed.is_empty(), "{failed:?}");
}

/// README: "A partition is read from the store whole, and takes 8 MiB at most": a typed error, and what was there goes
/// on.
#[tokio::test]
async fn too_many_values_are_an_error_that_says_so() {
    let cache = cache(MemoryStore::new());
    let tokens = cache.tokens(session("s"));
    let large = "x".repeat(60 << 10);
    let mut refused = None;
    for number in 0..200 {
        if let Err(error) = tokens.put(format!("v{number}"), &large, HOUR).await {
            refused = Some((number, error));
            break;
        }
    }
    let (number, error) = refused.expect("8 MiB");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert_stored(tokens.commit().await.unwrap());
    let last = format!("v{}", number - 1);
    assert!(tokens.take::<String>(&last).await.unwrap().is_hit());
    tokens.put(&last, &large, HOUR).await.unwrap();
    assert!(tokens.take::<String>(&last).await.unwrap().is_hit());
}

/// The same where L1 is off, or has evicted the partition.
#[tokio::test]
async fn too_many_values_are_an_error_without_l1_too() {
    let cache = builder(MemoryStore::new()).l1(tower_token_cache::L1::disabled());
    let cache = cache.build().unwrap();
    let large = "x".repeat(60 << 10);
    let mut refused = None;
    for number in 0..200 {
        let tokens = cache.tokens(session("s"));
        let put = tokens.put(format!("v{number}"), &large, HOUR).await;
        assert_stored(tokens.commit().await.unwrap());
        if let Err(error) = put {
            refused = Some((number, error));
            break;
        }
    }
    let (_, error) = refused.expect("8 MiB");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

/// The same where a move adds one partition to another.
#[tokio::test]
async fn a_move_makes_no_partition_too_large() {
    let cache = cache(MemoryStore::new());
    let large = "x".repeat(60 << 10);
    let fill = async |name: &str| {
        let tokens = cache.tokens(session(name));
        for number in 0..100 {
            let value = format!("{name}{number}");
            tokens.put(value, &large, HOUR).await.unwrap();
        }
        assert_stored(tokens.commit().await.unwrap());
        tokens
    };
    let old = fill("a").await;
    fill("b").await;
    let moved = old.move_to(session("b")).await;
    assert!(
        matches!(moved, Err(Error::TooLarge { .. })),
        "{:?}",
        moved.map(drop)
    );
}

/// README: "A session id that the store does not have … leaves nothing behind". Asked for a value, for its keys, to remove
/// what is not there.
#[tokio::test]
async fn an_invented_id_leaves_nothing_behind() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    // The namespace has a record of its own.
    assert!(
        cache
            .tokens(session("first"))
            .keys()
            .await
            .unwrap()
            .is_empty()
    );
    let before: u64 = server.query("DBSIZE");
    for number in 0..20 {
        let tokens = cache.tokens(session(&format!("invented{number}")));
        assert!(!take(&tokens).await.is_hit());
        assert!(!tokens.value::<String>("login").await.unwrap().is_hit());
        assert!(tokens.keys().await.unwrap().is_empty());
        assert!(tokens.reload().await.unwrap());
        assert_stored(tokens.commit().await.unwrap());
    }
    let read: u64 = server.query("DBSIZE");
    for number in 0..20 {
        let tokens = cache.tokens(session(&format!("invented{number}")));
        tokens.remove("api").await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    let removed: u64 = server.query("DBSIZE");
    assert_eq!((read - before, removed - read), (0, 0), "read, and removed");
}
