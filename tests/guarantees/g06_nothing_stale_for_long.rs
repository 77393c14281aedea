//! The store tells what changes, and L1 follows; while that cannot be relied on, L1 is compared with L2
//! before it is used.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tower_token_cache::{Clock, Error, FailurePolicy, L1, Lookup, Timestamp, TokenCache, TokenSet};

use common::issuer::{Issuer, set};
use common::support::*;

/// Two instances on one store, whose feed is alive.
async fn pair(store: &TestStore) -> (TokenCache, TokenCache) {
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    for cache in [&one, &other] {
        hears(cache).await;
    }
    (one, other)
}

async fn lost(cache: &TokenCache) {
    eventually("the feed is lost", async || {
        cache.stats().feed_alive == Some(false)
    })
    .await;
}

async fn put(cache: &TokenCache, text: &str) {
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token(text)).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

async fn seen(cache: &TokenCache) -> Option<String> {
    access(&cache.tokens(session("s")), "graph").await
}

#[tokio::test]
async fn a_change_is_seen_by_the_other_instance_at_once() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    put(&one, "first").await;
    assert_eq!(seen(&other).await.as_deref(), Some("first"));
    put(&one, "second").await;
    eventually("the second is seen", async || {
        seen(&other).await.as_deref() == Some("second")
    })
    .await;
    // And then it is in memory again.
    let loads = store.loads();
    assert_eq!(seen(&other).await.as_deref(), Some("second"));
    assert_eq!(seen(&one).await.as_deref(), Some("second"));
    assert_eq!(store.loads(), loads);
}

#[tokio::test]
async fn what_was_told_of_is_not_served_while_l2_is_away() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    put(&one, "t").await;
    let handle = other.tokens(session("s"));
    assert!(handle.get("graph").await.unwrap().is_hit());
    assert_stored(one.tokens(session("s")).sign_out().await.unwrap());
    store.set_down(true);
    eventually("the token is gone", async || {
        !handle.get("graph").await.unwrap().is_hit()
    })
    .await;
    store.set_down(false);
    // It has just given up on L2, which refuses this once it is told.
    let _ = handle.insert("graph", token("late")).await;
    drained(&other).await;
    assert_eq!(stored(store, "s", "graph").await, None);
}

#[tokio::test]
async fn the_same_on_redis() {
    let server = RedisServer::start();
    let mut caches = Vec::new();
    for _ in 0..2 {
        caches.push(redis_cache(&server).await);
    }
    for cache in &caches {
        hears(cache).await;
    }
    put(&caches[0], "first").await;
    assert_eq!(seen(&caches[1]).await.as_deref(), Some("first"));
    put(&caches[0], "second").await;
    eventually("the second is seen", async || {
        seen(&caches[1]).await.as_deref() == Some("second")
    })
    .await;
}

#[tokio::test]
async fn while_the_feed_is_lost_memory_is_compared_with_l2_before_use() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    put(&one, "first").await;
    assert_eq!(seen(&other).await.as_deref(), Some("first"));
    store.cut();
    lost(&other).await;
    put(&one, "second").await;
    assert_eq!(seen(&other).await.as_deref(), Some("second"));
    assert_eq!(other.stats().staleness_bound, Some(Duration::from_secs(1)));
    // Once a second is enough.
    let loads = store.loads();
    assert_eq!(seen(&other).await.as_deref(), Some("second"));
    assert_eq!(store.loads(), loads);
}

#[tokio::test]
async fn what_was_loaded_before_a_gap_is_compared_after_it() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    put(&one, "first").await;
    assert_eq!(seen(&other).await.as_deref(), Some("first"));
    store.cut();
    lost(&one).await;
    lost(&other).await;
    put(&one, "second").await;
    store.mend();
    hears(&other).await;
    assert_eq!(seen(&other).await.as_deref(), Some("second"));
}

#[tokio::test]
async fn after_a_gap_what_has_not_changed_is_compared_but_not_read() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    hears(&cache).await;
    put(&cache, "t").await;
    assert_eq!(seen(&cache).await.as_deref(), Some("t"));
    let calls = |command| server.calls(command);
    let (reads, heads) = (calls("hgetall"), calls("hget"));
    server.query::<()>("CLIENT KILL TYPE normal SKIPME yes");
    eventually("it is compared", async || {
        assert_eq!(seen(&cache).await.as_deref(), Some("t"));
        calls("hget") > heads
    })
    .await;
    assert_eq!(calls("hgetall"), reads);
}

#[tokio::test]
async fn a_load_that_a_change_overtakes_is_compared_once_more() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    put(&one, "first").await;
    store.hang_loads();
    let reader = tokio::spawn({
        let other = other.clone();
        async move { seen(&other).await }
    });
    let loads = store.loads();
    eventually("the load has its answer", async || store.loads() > loads).await;
    // The instance that commits knows the partition, and needs no load.
    put(&one, "second").await;
    assert_eq!(store.loads(), loads + 1);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    store.wake_loads();
    reader.await.unwrap();
    eventually("the second is in memory", async || {
        seen(&other).await.as_deref() == Some("second")
    })
    .await;
}

/// What another instance does to the session `s` of `ada`.
#[derive(Clone, Copy, Debug)]
enum Elsewhere {
    Replaced,
    Removed,
    Moved,
    SignedOut,
    UserSignedOut,
    EverybodySignedOut,
}

impl Elsewhere {
    async fn happen(self, cache: &TokenCache) {
        let tokens = cache.tokens(session("s"));
        match self {
            Self::Replaced => put(cache, "second").await,
            Self::Removed => {
                tokens.remove("graph").await.unwrap();
                assert_stored(tokens.commit().await.unwrap());
            }
            Self::Moved => drop(tokens.move_to(session("new")).await.unwrap()),
            Self::SignedOut => assert_stored(tokens.sign_out().await.unwrap()),
            Self::UserSignedOut => assert_stored(cache.sign_out_user("ada").await.unwrap()),
            Self::EverybodySignedOut => cache.sign_out_all().await.unwrap(),
        }
    }
}

/// The feed is lost after it was alive for a while, so that nothing else is about to look at L2.
#[tokio::test]
async fn while_the_feed_is_lost_nothing_goes_unheard_for_longer_than_the_bound() {
    use Elsewhere::*;
    let changes = [
        Replaced,
        Removed,
        Moved,
        SignedOut,
        UserSignedOut,
        EverybodySignedOut,
    ];
    let ends = [TestStore::cut, TestStore::hold_up];
    let trials = ends.map(|loses| changes.map(|change| (loses, change)));
    let trials = trials.as_flattened().iter().map(async |(loses, change)| {
        let store = TestStore::telling();
        let (one, other) = pair(&store).await;
        put(&one, "first").await;
        let tokens = one.tokens(session("s"));
        tokens.link_user("ada").await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        loses(&store);
        lost(&other).await;
        assert_eq!(seen(&other).await.as_deref(), Some("first"));
        change.happen(&one).await;
        let since = Instant::now();
        eventually("it is known", async || {
            seen(&other).await.as_deref() != Some("first")
        })
        .await;
        let (late, bound) = (since.elapsed(), other.stats().staleness_bound.unwrap());
        // Each is asked for at intervals of that length, and the machine may be busy.
        assert!(late < bound * 3, "{change:?} is known after {late:?}");
    });
    join_all(trials).await;
}

/// Nothing says that it is lost: the time alone does.
#[tokio::test]
async fn a_feed_that_proves_nothing_is_believed_no_more() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    put(&one, "first").await;
    assert_eq!(seen(&other).await.as_deref(), Some("first"));
    store.hold_up();
    lost(&other).await;
    put(&one, "second").await;
    assert_eq!(seen(&other).await.as_deref(), Some("second"));
}

#[tokio::test]
async fn with_l2_away_memory_is_served_whatever_the_feed_says() {
    let store = TestStore::telling();
    let (one, _) = pair(&store).await;
    put(&one, "t").await;
    assert_eq!(seen(&one).await.as_deref(), Some("t"));
    store.cut();
    lost(&one).await;
    store.set_down(true);
    assert_eq!(seen(&one).await.as_deref(), Some("t"));
    let strict = one.tokens(session("s"));
    strict.set_failure_policy(FailurePolicy::Strict);
    // An own change that was compared after the feed was lost counts for a second more.
    eventually("memory is to be compared again", async || {
        matches!(strict.get("graph").await, Err(Error::Unavailable(_)))
    })
    .await;
    assert_eq!(seen(&one).await.as_deref(), Some("t"));
}

#[tokio::test]
async fn without_a_feed_the_bound_is_the_l1s() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::default();
    let l1 = L1::new()
        .max_staleness(Duration::from_secs(20))
        .revalidate_every(None);
    let here = builder(store.clone())
        .clock(clock.clone())
        .l1(l1)
        .build()
        .unwrap();
    let other = builder(store).clock(clock.clone()).build().unwrap();
    put(&other, "first").await;
    assert_eq!(seen(&here).await.as_deref(), Some("first"));
    put(&other, "second").await;
    clock.advance(Duration::from_secs(19));
    assert_eq!(seen(&here).await.as_deref(), Some("first"));
    clock.advance(Duration::from_secs(1));
    assert_eq!(seen(&here).await.as_deref(), Some("second"));
    assert_eq!(here.stats().staleness_bound, Some(Duration::from_secs(20)));
    assert_eq!(here.stats().feed_alive, None);
}

#[tokio::test]
async fn a_flight_that_waits_for_another_instance_is_woken() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    let issuer = Issuer::new();
    let old = tower_token_cache::Token::new("a0").with_expires_at(Timestamp::from_millis(1));
    let old = TokenSet::from(old).with_refresh_token("r0");
    one.tokens(session("s")).insert("graph", old).await.unwrap();
    assert_stored(one.tokens(session("s")).commit().await.unwrap());
    issuer.hold();
    let requests: Vec<_> = [&one, &other]
        .map(|cache| {
            let (tokens, issuer) = (cache.tokens(session("s")), issuer.clone());
            tokio::spawn(async move {
                let call = |prior| issuer.refresh(prior);
                tokens.get_or_acquire("graph", call).await.unwrap()
            })
        })
        .into();
    issuer.arrival().await;
    issuer.release();
    for request in requests {
        assert_eq!(
            request.await.unwrap().access_token(),
            set(1).access().access_token()
        );
    }
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn what_l2_has_lost_is_written_again_by_who_has_it() {
    let mut server = RedisServer::start();
    let cache = redis_cache(&server).await;
    hears(&cache).await;
    let signed_in = TokenSet::from(token("t")).with_refresh_token("r");
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", signed_in).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let gone = cache.tokens(session("gone"));
    gone.insert("graph", token("t")).await.unwrap();
    assert_stored(gone.commit().await.unwrap());
    assert_stored(gone.sign_out().await.unwrap());
    // Compared with L2 since all of that was told, and so known to be whole.
    assert!(tokens.get("graph").await.unwrap().is_hit());
    assert!(!gone.get("graph").await.is_ok_and(|it| it.is_hit()));
    // What a server without persistence does.
    server.kill();
    server.restart();
    eventually("it is recovered", async || {
        let _ = tokens.get("graph").await.unwrap();
        let _ = cache.tokens(session("gone")).get("graph").await.unwrap();
        cache.stats().recovered_changes == 2
    })
    .await;
    drained(&cache).await;
    let fresh = redis_cache(&server).await;
    assert_eq!(seen(&fresh).await.as_deref(), Some("t"));
    let refresh_token = fresh.tokens(session("s")).refresh_token().await.unwrap();
    assert_eq!(refresh_token.hit().unwrap().expose(), "r");
    let gone = fresh.tokens(session("gone")).get("graph").await.unwrap();
    assert_eq!(gone, Lookup::Absent);
}

#[tokio::test]
async fn a_version_that_is_counted_anew_is_another_one() {
    let store = TestStore::default();
    let (here, other) = (cache(store.clone()), cache(store));
    // Nothing is left of a partition with no entry: the next commit counts from 1 again.
    let tokens = here.tokens(session("s"));
    tokens.remove("graph").await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let on_other = other.tokens(session("s"));
    on_other.insert("mail", token("m")).await.unwrap();
    assert_stored(on_other.commit().await.unwrap());
    // One version above the one that is known here, and not the one after it.
    tokens.insert("files", token("f")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    assert_eq!(access(&tokens, "mail").await.as_deref(), Some("m"));
}

/// Three instances, of which two have the session in memory, and an L2 that loses it.
async fn after_a_loss(
    server: &RedisServer,
    prepare: impl AsyncFnOnce(&TokenCache),
) -> (TokenCache, TokenCache) {
    let instance = async || {
        let cache = redis_cache(server).await;
        hears(&cache).await;
        cache
    };
    let (one, other, third) = (instance().await, instance().await, instance().await);
    prepare(&one).await;
    assert_eq!(seen(&other).await.as_deref(), Some("known"));
    server.query::<()>("FLUSHALL");
    (other, third)
}

#[tokio::test]
async fn versions_given_again_after_a_loss_are_not_taken_for_old_ones() {
    for versions in 1..=2 {
        let server = RedisServer::start();
        let (other, third) = after_a_loss(&server, async |one| {
            for _ in 0..versions {
                put(one, "known").await;
            }
        })
        .await;
        put(&third, "new").await;
        eventually("the new one is seen", async || {
            seen(&other).await.as_deref() == Some("new")
        })
        .await;
        let reads = other.stats().l2_reads;
        assert_eq!(seen(&other).await.as_deref(), Some("new"));
        assert_eq!(other.stats().l2_reads, reads, "asked once");
    }
}

#[tokio::test]
async fn a_generation_given_again_after_a_loss_ends_what_memory_has() {
    let server = RedisServer::start();
    let (other, third) = after_a_loss(&server, async |one| {
        assert_stored(one.tokens(session("s")).sign_out().await.unwrap());
        put(one, "known").await;
    })
    .await;
    assert_stored(third.tokens(session("s")).sign_out().await.unwrap());
    eventually("it is signed out", async || seen(&other).await.is_none()).await;
    drained(&other).await;
    assert_eq!(other.stats().recovered_changes, 0);
    assert_eq!(seen(&redis_cache(&server).await).await, None);
}

#[tokio::test]
async fn a_move_whose_answer_is_lost_leaves_nobody_with_what_was() {
    let store = TestStore::telling();
    let (one, other) = pair(&store).await;
    put(&one, "a").await;
    assert_eq!(seen(&other).await.as_deref(), Some("a"));
    store.set_losing_answers(true);
    let moved = one.tokens(session("s")).move_to(session("new")).await;
    assert!(matches!(moved, Err(Error::Unavailable(_))));
    store.set_losing_answers(false);
    for cache in [one, other] {
        eventually("it is gone", async || seen(&cache).await.is_none()).await;
        let new = access(&cache.tokens(session("new")), "graph").await;
        assert_eq!(new.as_deref(), Some("a"));
    }
}
