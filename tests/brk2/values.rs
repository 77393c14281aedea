//! Session values, and moves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::cas::Cells;
use common::support::*;
use tokio::sync::Notify;
use tower_token_cache::store::{CasAdapter, CasStore};
use tower_token_cache::{
    Clock, Error, Lifetimes, Lookup, MemoryStore, StoreError, Timestamp, Tokens,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Stops before the n-th `put` of a key that ends like this one, until it is let go on.
#[derive(Clone, Default)]
struct Gated {
    cells: Cells,
    gate: Arc<std::sync::Mutex<Option<u32>>>,
    reached: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gated {
    async fn pass(&self) {
        let stops = {
            let mut gate = self.gate.lock().unwrap();
            let stops = *gate == Some(0);
            *gate = gate.and_then(|left| left.checked_sub(1));
            stops
        };
        if stops {
            self.reached.notify_one();
            self.opened.notified().await;
        }
    }
}

impl CasStore for Gated {
    type Revision = u64;
    async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, StoreError> {
        self.cells.get(key).await
    }
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&u64>,
        keep: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.pass().await;
        self.cells.put(key, value, expected, keep).await
    }
    async fn delete(&self, key: &str, expected: &u64) -> Result<bool, StoreError> {
        self.cells.delete(key, expected).await
    }
}

async fn take(tokens: &Tokens) -> Lookup<String> {
    tokens.take("login").await.unwrap()
}

/// README: "`CasAdapter` makes a store of it that keeps every guarantee"; "`tokens.take`, which exactly one of any
/// number of callers gets, on any instance: the store decides". Here one instance moves a session while another takes
/// its value, or inserts a token ("Two requests that change different tokens of one user both survive, on one instance
/// or on several").
#[tokio::test]
async fn over_compare_and_set_a_move_gives_no_value_twice_and_loses_no_token() {
    let store = Gated::default();
    let (one, two) = (
        cache(CasAdapter::new(store.clone())),
        cache(CasAdapter::new(store.clone())),
    );
    let old = one.tokens(session("old"));
    old.put("login", "state", HOUR).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    // The first write of the move is the sign-out of the old session.
    *store.gate.lock().unwrap() = Some(0);
    let moving = tokio::spawn(async move { old.move_to(session("new")).await });
    store.reached.notified().await;
    let taken = take(&two.tokens(session("old"))).await;
    let other = two.tokens(session("old"));
    other
        .insert("api", token("from the other instance"))
        .await
        .unwrap();
    let stored = other.commit().await;
    store.opened.notify_one();
    let moved = moving.await.unwrap();
    let new = two.tokens(session("new"));
    let again = take(&new).await;
    let kept = access(&new, "api").await;
    let given = [&taken, &again].iter().filter(|it| it.is_hit()).count();
    assert_eq!(
        (given, kept.is_some()),
        (1, true),
        "taken {taken:?}, again {again:?}, stored {stored:?}, moved {moved:?}"
    );
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
