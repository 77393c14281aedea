//! A partition over time: use, idle ends, eviction from memory, sign-outs and clocks that step.

use std::time::Duration;

use tower_token_cache::{
    Clock, Durability, Error, L1, Lifetimes, MemoryStore, PartitionKey, Timestamp, Token,
    TokenCache, Tokens,
};

use common::support::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A store and a clock for it and for the instances.
struct World {
    clock: Clock,
    store: TestStore,
}

impl World {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::now());
        let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
        Self { clock, store }
    }

    fn builder(&self) -> tower_token_cache::Builder {
        builder(self.store.clone()).clock(self.clock.clone())
    }

    fn instance(&self) -> TokenCache {
        self.builder().build().unwrap()
    }

    /// What an instance finds that has nothing in memory.
    async fn stored(&self, name: &str) -> Option<String> {
        access(&self.instance().tokens(ada()), name).await
    }
}

fn ada() -> PartitionKey {
    PartitionKey::user("ada").unwrap()
}

/// A token without an expiry.
fn lasting(text: &str) -> Token {
    Token::new(text)
}

async fn sign_in(cache: &TokenCache, text: &str) -> Tokens {
    let tokens = cache.tokens(ada());
    tokens.insert("graph", lasting(text)).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    tokens
}

/// Lets the engine's tasks run until each of them waits; the time of the runtime is paused.
async fn idle() {
    let answers = 4 * common::far::latency();
    tokio::time::sleep(Duration::from_millis(1) + answers).await;
}

#[tokio::test(start_paused = true)]
async fn use_at_any_interval_keeps_a_session() {
    for every in [50, 61, 90, 180, 300, 600, 1200].map(Duration::from_secs) {
        let world = World::new();
        let cache = world
            .builder()
            .lifetimes(Lifetimes::new().sliding(30 * MINUTE));
        let cache = cache.build().unwrap();
        sign_in(&cache, "t").await;
        for _ in 0..12 {
            world.clock.advance(every);
            let found = access(&cache.tokens(ada()), "graph").await;
            assert_eq!(found.as_deref(), Some("t"), "used every {every:?}");
            idle().await;
        }
        for _ in 0..60 {
            world.clock.advance(every);
            let found = cache.tokens(ada()).get("graph").await.unwrap();
            idle().await;
            assert!(found.is_hit(), "used every {every:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn use_does_not_undo_an_idle_end_that_has_passed() {
    for late in [1, 30, 59, 61, 300].map(Duration::from_secs) {
        let world = World::new();
        let instance = || {
            let builder = world
                .builder()
                .lifetimes(Lifetimes::new().sliding(30 * MINUTE));
            builder.build().unwrap()
        };
        let (one, other) = (instance(), instance());
        // The tombstone keeps the record after its end.
        assert_stored(sign_in(&one, "first").await.sign_out().await.unwrap());
        sign_in(&one, "second").await;
        let _ = one.tokens(ada()).get("graph").await.unwrap();
        world.clock.advance(30 * MINUTE + late);
        for _ in 0..4 {
            for cache in [&one, &other] {
                let found = access(&cache.tokens(ada()), "graph").await;
                assert_eq!(found, None, "{late:?} after the end");
                idle().await;
            }
            world.clock.advance(10 * MINUTE);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_touch_that_l2_denies_ends_what_memory_has() {
    let world = World::new();
    let cache = world
        .builder()
        .lifetimes(Lifetimes::new().sliding(30 * MINUTE));
    let cache = cache
        .l1(L1::new().max_staleness(None).revalidate_every(None))
        .build()
        .unwrap();
    sign_in(&cache, "t").await;
    let _ = cache.tokens(ada()).get("graph").await.unwrap();
    // Ended elsewhere, of which this instance has not heard.
    assert_stored(world.instance().tokens(ada()).sign_out().await.unwrap());
    world.clock.advance(4 * MINUTE);
    let _ = cache.tokens(ada()).get("graph").await.unwrap();
    idle().await;
    let found = cache.tokens(ada()).get("graph").await.unwrap();
    assert!(!found.is_hit(), "L2 has said that there is no such session");
}

#[tokio::test]
async fn eviction_forgets_no_sign_out() {
    let world = World::new();
    for evicted in [false, true] {
        let small = L1::new().max_bytes(64 << 10);
        let cache = world.builder().l1(small).build().unwrap();
        assert_stored(sign_in(&cache, "first").await.sign_out().await.unwrap());
        let held = sign_in(&cache, "second").await;
        if evicted {
            for number in 0..200 {
                let other = cache.tokens(session(&number.to_string()));
                other
                    .insert("graph", token(&"x".repeat(1000)))
                    .await
                    .unwrap();
                assert_stored(other.commit().await.unwrap());
            }
            cache.stats();
        }
        world.store.set_down(true);
        let _ = cache.tokens(ada()).sign_out().await;
        let late = held.insert("graph", lasting("from before")).await;
        assert!(matches!(late, Err(Error::SignedOut)), "{evicted}: {late:?}");
        world.store.set_down(false);
        eventually("L2 is told", async || world.stored("graph").await.is_none()).await;
    }
}

#[tokio::test]
async fn what_expired_while_it_was_waited_for_is_not_served() {
    for secret in [false, true] {
        let world = World::new();
        let tokens = world.instance().tokens(ada());
        let end = world.clock.now().saturating_add(MINUTE);
        let short = lasting("t").with_expires_at(end);
        tokens.insert("graph", short).await.unwrap();
        tokens.insert("mail", lasting("kept")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let reader = world.instance().tokens(ada());
        let loads = world.store.loads();
        world.store.hang_loads();
        let read = tokio::spawn(async move {
            match secret {
                true => reader.keys().await.unwrap().len() - 1,
                false => usize::from(reader.get("graph").await.unwrap().is_hit()),
            }
        });
        eventually("the read has begun", async || world.store.loads() > loads).await;
        world.clock.advance(2 * MINUTE);
        world.store.wake_loads();
        assert_eq!(read.await.unwrap(), 0, "keys: {secret}");
    }
}

#[tokio::test]
async fn expired_entries_of_a_partition_in_use_give_their_memory_back() {
    let world = World::new();
    let cache = world.instance();
    let tokens = cache.tokens(ada());
    tokens.insert("lasting", lasting("x")).await.unwrap();
    let mut sizes = Vec::new();
    for round in 0..4 {
        for number in 0..200 {
            let end = world.clock.now().saturating_add(MINUTE);
            let short = Token::new("x".repeat(1500)).with_expires_at(end);
            let name = format!("{round}-{number}");
            tokens.insert(name, short).await.unwrap();
        }
        assert_stored(tokens.commit().await.unwrap());
        drained(&cache).await;
        world.clock.advance(2 * MINUTE);
        assert_eq!(tokens.keys().await.unwrap().len(), 1);
        sizes.push(cache.stats().l1_bytes);
    }
    // Until the next change, or the sweep a minute later.
    assert!(
        sizes[3] < 2 * sizes[0],
        "what has expired is counted: {sizes:?}"
    );
    assert_eq!(access(&tokens, "lasting").await.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_steps_hides_nothing_for_longer_than_the_bound() {
    let hour = 60 * MINUTE;
    for ahead in [false, true] {
        // The store has a clock of its own.
        let store = TestStore::default();
        let clock = Clock::manual(Timestamp::now());
        let one = builder(store.clone()).clock(clock.clone());
        let one = one
            .lifetimes(Lifetimes::new().sliding(30 * MINUTE))
            .build()
            .unwrap();
        let other = cache(store.clone());
        let bob = || PartitionKey::user("bob").unwrap();
        sign_in(&other, "ada's").await;
        assert!(access(&one.tokens(ada()), "graph").await.is_some());
        assert!(access(&one.tokens(bob()), "graph").await.is_none());
        clock.set(match ahead {
            true => clock.now().saturating_add(hour),
            false => clock.now().saturating_sub(hour),
        });
        // She signs out elsewhere, and he signs in.
        let _ = other.tokens(ada()).sign_out().await.unwrap();
        let tokens = other.tokens(bob());
        tokens.insert("graph", lasting("bob's")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        clock.advance(2 * MINUTE);
        let found = access(&one.tokens(ada()), "graph").await;
        assert_eq!(found, None, "ahead {ahead}");
        let found = access(&one.tokens(bob()), "graph").await;
        assert_eq!(found.as_deref(), Some("bob's"), "ahead {ahead}");
        // Whoever is in use stays so.
        for _ in 0..20 {
            clock.advance(5 * MINUTE);
            let found = access(&one.tokens(bob()), "graph").await;
            assert!(found.is_some(), "ahead {ahead}");
            idle().await;
        }
    }
}

/// The change belongs to the session as it was seen; that ends by its lifetime while the change waits. It goes
/// on, with and without L1, as it would if the store had heard of it in time.
#[tokio::test]
async fn a_change_outlives_the_end_that_comes_while_it_waits() {
    for l1 in [L1::new(), L1::disabled()] {
        let world = World::new();
        let other = world.instance().tokens(ada());
        let soon = Token::new("old").with_expires_at(world.clock.now().saturating_add(MINUTE));
        other.insert("graph", soon).await.unwrap();
        assert_stored(other.commit().await.unwrap());
        let cache = world.builder().l1(l1).build().unwrap();
        let tokens = cache.tokens(ada());
        assert!(tokens.contains("graph").await.unwrap());
        world.store.set_refusing_commits(true);
        tokens.insert("mail", lasting("new")).await.unwrap();
        let pending = tokens.commit().await.unwrap();
        assert_eq!(pending, Durability::Pending);
        world.clock.advance(2 * MINUTE);
        world.store.set_refusing_commits(false);
        drained(&cache).await;
        assert_eq!(world.stored("mail").await.as_deref(), Some("new"));
    }
}
