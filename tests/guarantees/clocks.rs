//! Wall clocks that are set, stand still or are behind a sleep of the machine: what the guarantees say
//! is about time that passes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tower_token_cache::{
    Clock, Durability, Error, Lifetimes, MemoryStore, Prior, ProviderError, Timestamp, Token,
    TokenCache, TokenSet, Tokens,
};

use common::issuer::{Issuer, set};
use common::support::*;

const STORED: Durability = Durability::Stored;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What happens to the clock of one instance. The store has another, which is right.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mishap {
    None,
    Back,
    Ahead,
    /// Back, and right again before anything else happens.
    BackAndForth,
    /// It stands still from now on.
    Frozen,
}

const ALL: [Mishap; 5] = [
    Mishap::None,
    Mishap::Back,
    Mishap::Ahead,
    Mishap::BackAndForth,
    Mishap::Frozen,
];

struct World {
    mishap: Mishap,
    store: TestStore,
    right: Clock,
    clock: Clock,
    one: TokenCache,
    other: TokenCache,
}

impl World {
    fn new(mishap: Mishap) -> Self {
        let start = Timestamp::now();
        let (right, clock) = (Clock::manual(start), Clock::manual(start));
        let store = TestStore::new(MemoryStore::new().with_clock(right.clone()));
        let instance = |clock: &Clock| {
            let instance = builder(store.clone()).clock(clock.clone());
            instance
                .lifetimes(Lifetimes::new().sliding(HOUR / 2))
                .build()
                .unwrap()
        };
        let (one, other) = (instance(&clock), instance(&right));
        Self {
            mishap,
            store,
            right,
            clock,
            one,
            other,
        }
    }

    async fn strike(&self) {
        let now = self.clock.now();
        let back = now.saturating_sub(HOUR);
        match self.mishap {
            Mishap::None | Mishap::Frozen => {}
            Mishap::Back => self.clock.set(back),
            Mishap::Ahead => self.clock.set(now.saturating_add(HOUR)),
            Mishap::BackAndForth => {
                self.clock.set(back);
                // Somebody looks at it meanwhile.
                assert_eq!(seen(&self.one, "nobody").await, None);
                self.clock.set(now);
            }
        }
    }

    fn pass(&self, time: Duration) {
        self.right.advance(time);
        match self.mishap {
            Mishap::Frozen => self.clock.advance_frozen(time),
            _ => self.clock.advance(time),
        }
    }
}

async fn put(cache: &TokenCache, id: &str, text: &str) {
    let tokens = cache.tokens(session(id));
    tokens.insert("graph", Token::new(text)).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), STORED);
}

async fn put_spent(tokens: &Tokens) {
    let spent = Token::new("spent").with_expires_at(Timestamp::from_millis(1));
    let spent = TokenSet::from(spent).with_refresh_token("r0");
    tokens.insert("graph", spent).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), STORED);
}

async fn seen(cache: &TokenCache, id: &str) -> Option<String> {
    access(&cache.tokens(session(id)), "graph").await
}

/// Lets the engine's tasks run until each of them waits; the time of the runtime is paused.
async fn idle() {
    let answers = 4 * common::far::latency();
    tokio::time::sleep(Duration::from_millis(1) + answers).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_do_is_noticed_within_the_bound() {
    for mishap in ALL {
        let world = World::new(mishap);
        put(&world.other, "ada", "ada's").await;
        assert!(seen(&world.one, "ada").await.is_some());
        assert_eq!(seen(&world.one, "bob").await, None);
        world.strike().await;
        let ended = world.other.tokens(session("ada")).sign_out().await;
        assert_eq!(ended.unwrap(), STORED);
        put(&world.other, "bob", "bob's").await;
        world.pass(MINUTE + SECOND);
        assert_eq!(seen(&world.one, "ada").await, None, "{mishap:?}");
        let bob = seen(&world.one, "bob").await;
        assert_eq!(bob.as_deref(), Some("bob's"), "{mishap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_in_use_stays_and_who_is_not_ends_although_l2_is_away() {
    for mishap in ALL {
        let world = World::new(mishap);
        for id in ["used", "idle"] {
            put(&world.one, id, "t").await;
        }
        world.strike().await;
        for _ in 0..12 {
            assert!(seen(&world.one, "used").await.is_some(), "{mishap:?}");
            idle().await;
            world.pass(5 * MINUTE);
        }
        assert_eq!(seen(&world.other, "idle").await, None, "{mishap:?}");
        assert_eq!(seen(&world.one, "idle").await, None, "{mishap:?}");
        assert!(seen(&world.one, "used").await.is_some(), "{mishap:?}");
        // Of memory alone.
        idle().await;
        world.store.set_down(true);
        world.pass(31 * MINUTE);
        assert_eq!(seen(&world.one, "used").await, None, "{mishap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_wait_for_l2_are_kept_and_in_order() {
    for mishap in ALL {
        let world = World::new(mishap);
        put(&world.one, "ada", "first").await;
        world.store.set_down(true);
        let tokens = world.one.tokens(session("ada"));
        tokens.insert("graph", Token::new("second")).await.unwrap();
        world.strike().await;
        tokens.insert("graph", Token::new("third")).await.unwrap();
        world.pass(20 * MINUTE);
        world.store.set_down(false);
        drained(&world.one).await;
        let found = seen(&world.other, "ada").await;
        assert_eq!(found.as_deref(), Some("third"), "{mishap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_end() {
    for mishap in ALL {
        let world = World::new(mishap);
        let tokens = world.one.tokens(session("ada"));
        put_spent(&tokens).await;
        let refuses = async |_: Prior| Err::<TokenSet, _>(ProviderError::refused("invalid_grant"));
        let refused = tokens.get_or_acquire("graph", refuses).await;
        assert!(matches!(refused, Err(Error::Acquire(_))), "{mishap:?}");
        world.strike().await;
        world.pass(2 * MINUTE);
        let issuer = Issuer::new();
        let asks = move |prior| issuer.refresh(prior);
        let found = tokens.get_or_acquire("graph", asks).await;
        let retried = found.is_ok();
        // All instances read from L2 when a pause ends: one whose clock stands still waits.
        assert_eq!(retried, mishap != Mishap::Frozen, "{mishap:?}");
    }
}

/// Nothing that was told has arrived meanwhile.
#[tokio::test]
async fn after_a_sleep_nothing_is_served_that_was_not_compared() {
    let shared = MemoryStore::new();
    // What the other one asks in the background is not counted.
    let store = TestStore::telling_of(shared.clone());
    let clock = Clock::manual(Timestamp::now());
    let one = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let other = cache(TestStore::telling_of(shared));
    for cache in [&one, &other] {
        hears(cache).await;
    }
    for id in ["ada", "bob"] {
        put(&other, id, "t").await;
        assert!(seen(&one, id).await.is_some());
    }
    store.hold_up();
    let _ = other.tokens(session("ada")).sign_out().await.unwrap();
    assert!(seen(&one, "ada").await.is_some(), "it has not heard");
    clock.set(clock.now().saturating_add(HOUR));
    assert_eq!(seen(&one, "ada").await, None);
    let looks = store.looks();
    assert!(seen(&one, "bob").await.is_some());
    assert!(seen(&one, "bob").await.is_some());
    assert_eq!(store.looks() - looks, 1, "compared, and once");
}

/// It has asked nobody yet, and finds out before it does.
#[tokio::test(start_paused = true)]
async fn a_machine_that_sleeps_has_lost_its_leases() {
    let world = World::new(Mishap::None);
    let tokens = world.other.tokens(session("ada"));
    put_spent(&tokens).await;
    let issuer = Issuer::new();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let sleeper = tokio::spawn({
        let (issuer, begun, go_on) = (issuer.clone(), begun.clone(), go_on.clone());
        let tokens = world.one.tokens(session("ada"));
        async move {
            let call = async move |prior: Prior| {
                begun.notify_one();
                go_on.notified().await;
                issuer.refresh(prior).await
            };
            tokens.get_or_acquire("graph", call).await
        }
    });
    begun.notified().await;
    // One stands still, and the rest of the world goes on.
    world.right.advance(MINUTE);
    let asking = issuer.clone();
    let asks = move |prior| asking.refresh(prior);
    let found = tokens.get_or_acquire("graph", asks).await.unwrap();
    assert_eq!(found.access_token(), set(1).access().access_token());
    world.clock.set(world.right.now());
    go_on.notify_one();
    let found = sleeper.await.unwrap().unwrap();
    assert_eq!(found.access_token(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}
