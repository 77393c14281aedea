//! Of any number of callers that take a session value, on any instance, one gets it, whatever happens.
//! `process-wide` has the same for processes, and on each store.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tower_token_cache::mutation::{self, Mutation};
use tower_token_cache::{
    Error, FailurePolicy, Lookup, MemoryStore, RedisStore, TokenCache, TokenStore, Tokens,
};

use common::proxy::{Mode, Proxy};
use common::stepping::{SteppingStore, poll_times};
use common::support::*;

const MINUTE: Duration = Duration::from_secs(60);

async fn put(cache: &TokenCache, sid: &str) {
    let tokens = cache.tokens(session(sid));
    tokens.put("login", "v", 10 * MINUTE).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

async fn take(tokens: &Tokens) -> Result<Lookup<String>, Error> {
    tokens.take("login").await
}

async fn take_on(cache: &TokenCache, sid: &str) -> Lookup<String> {
    take(&cache.tokens(session(sid))).await.unwrap()
}

/// How many of 50 callers on these instances get the value.
async fn takers(caches: &[TokenCache], sid: &str) -> usize {
    put(&caches[0], sid).await;
    let takes = (0..50).map(|number| {
        let tokens = caches[number % caches.len()].tokens(session(sid));
        tokio::spawn(async move { take(&tokens).await.unwrap() })
    });
    let taken = join_all(takes).await.into_iter().map(Result::unwrap);
    let taken: Vec<_> = taken.collect();
    let undecided = taken.iter().any(|it| matches!(it, Lookup::Unavailable));
    assert!(!undecided, "L2 could be asked");
    taken.iter().filter(|it| it.is_hit()).count()
}

#[tokio::test]
async fn one_of_fifty_takers_gets_it() {
    let store = SteppingStore::default();
    let caches = [cache(store.clone()), cache(store)];
    for round in 0..20 {
        assert_eq!(takers(&caches, &round.to_string()).await, 1);
    }
}

/// The engine broken on purpose: the test above would notice.
#[tokio::test]
async fn without_compare_and_set_several_get_it() {
    let store = SteppingStore::default();
    let caches = [cache(store.clone()), cache(store)];
    mutation::choose(Some(Mutation::TakeWithoutCompareAndSet));
    assert!(takers(&caches, "s").await > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_fifty_takers_gets_it_from_a_store_that_is_far_away() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    proxy.delay(5);
    let store = async || RedisStore::connect(url.clone()).await.unwrap();
    let caches = [cache(store().await), cache(store().await)];
    for round in 0..10 {
        assert_eq!(takers(&caches, &round.to_string()).await, 1);
    }
}

#[tokio::test]
async fn what_is_put_while_others_take_is_taken_once_each() {
    let store = SteppingStore::default();
    let caches = [cache(store.clone()), cache(store)];
    let mut tasks = JoinSet::new();
    for taker in 0..6 {
        let tokens = caches[taker % 2].tokens(session("s"));
        tasks.spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..200 {
                taken.extend(tokens.take::<u32>("login").await.unwrap().hit());
                tokio::task::yield_now().await;
            }
            taken
        });
    }
    for number in 0..100_u32 {
        let tokens = caches[number as usize % 2].tokens(session("s"));
        tokens.put("login", &number, MINUTE).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    let mut taken: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let count = taken.len();
    assert!(count > 1);
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), count, "one is taken twice");
}

/// Once the sign-out is over, no take of the session before it gets the value.
#[tokio::test]
async fn a_take_and_a_sign_out_agree() {
    for steps in 0..40 {
        let store = SteppingStore::default();
        let (one, other) = (cache(store.clone()), cache(store));
        put(&one, "s").await;
        let tokens = one.tokens(session("s"));
        assert!(tokens.value::<String>("login").await.unwrap().is_hit());
        let taking = tokens.clone();
        let taking = tokio::spawn(async move { take(&taking).await });
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        let elsewhere = other.tokens(session("s"));
        let signs_out = if steps % 2 == 0 { &elsewhere } else { &tokens };
        assert_stored(signs_out.sign_out().await.unwrap());
        let was_over = taking.is_finished();
        match taking.await.unwrap() {
            Ok(Lookup::Hit(_)) => assert!(was_over, "{steps}: after the sign-out"),
            Ok(Lookup::Absent) | Err(Error::SignedOut) => {}
            odd => panic!("{steps}: {odd:?}"),
        }
        for cache in [&one, &other] {
            assert_eq!(take_on(cache, "s").await, Lookup::Absent, "{steps}");
        }
    }
}

/// Each taken value is given once, or never if the future was dropped.
#[tokio::test(start_paused = true)]
async fn a_value_whose_take_is_dropped_is_given_once_at_most() {
    for steps in 0..200 {
        let store = SteppingStore::default();
        let (one, other) = (cache(store.clone()), cache(store));
        put(&one, "s").await;
        let tokens = one.tokens(session("s"));
        let taken = poll_times(take(&tokens), steps).await;
        let is_done = taken.is_some();
        let given = taken.is_some_and(|taken| taken.unwrap().is_hit());
        let mut later = 0;
        for cache in [&other, &one, &other] {
            later += usize::from(take_on(cache, "s").await.is_hit());
        }
        assert!(later <= usize::from(!given), "{steps} steps");
        assert!(cache_is_idle(&one).await);
        if is_done {
            assert!(given && steps > 3);
            return;
        }
    }
    panic!("it does not end");
}

async fn cache_is_idle(cache: &TokenCache) -> bool {
    cache.shutdown(Duration::from_secs(5)).await.abandoned == 0
}

#[tokio::test(start_paused = true)]
async fn while_l2_is_away_no_value_is_taken_or_lost() {
    let store = TestStore::default();
    let (here, other) = (cache(store.clone()), cache(store.clone()));
    put(&here, "s").await;
    let tokens = here.tokens(session("s"));
    assert!(tokens.value::<String>("login").await.unwrap().is_hit());
    store.set_down(true);
    assert_eq!(take(&tokens).await.unwrap(), Lookup::Unavailable);
    let asked = store.loads();
    assert_eq!(take(&tokens).await.unwrap(), Lookup::Unavailable);
    assert_eq!(store.loads(), asked, "one handle waits for one outage once");
    let strict = here.tokens(session("s"));
    strict.set_failure_policy(FailurePolicy::Strict);
    assert!(matches!(take(&strict).await, Err(Error::Unavailable(_))));
    store.set_down(false);
    eventually("L2 is asked again", async || {
        match take(&other.tokens(session("s"))).await.unwrap() {
            Lookup::Unavailable => false,
            taken => taken.is_hit(),
        }
    })
    .await;
    let here = cache(store);
    assert_eq!(take_on(&here, "s").await, Lookup::Absent);
}

/// One that waits for L2 is put in this process only: another could not take it, nor may this one.
#[tokio::test(start_paused = true)]
async fn what_l2_does_not_have_yet_is_not_given() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let tokens = here.tokens(session("s"));
    assert_eq!(access(&tokens, "graph").await, None);
    store.set_down(true);
    tokens.put("login", "v", 10 * MINUTE).await.unwrap();
    assert_eq!(take(&tokens).await.unwrap(), Lookup::Unavailable);
    store.set_down(false);
    drained(&here).await;
    let there = cache(store);
    assert!(take_on(&there, "s").await.is_hit());
    assert_eq!(take_on(&here, "s").await, Lookup::Absent);
}

#[tokio::test]
async fn a_reply_that_is_lost_loses_no_value_and_gives_none_twice() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let (here, there) = (
        cache(RedisStore::connect(url).await.unwrap()),
        redis_cache(&server).await,
    );
    let (mut given, rounds) = (0, 10);
    for round in 0..rounds {
        let sid = round.to_string();
        put(&here, &sid).await;
        let tokens = here.tokens(session(&sid));
        proxy.set(Mode::LoseAnswer);
        let taken = take(&tokens).await.unwrap();
        proxy.set(Mode::Pass);
        let mut hits = usize::from(taken.is_hit());
        given += hits;
        for cache in [&there, &here] {
            hits += usize::from(take_on(cache, &sid).await.is_hit());
        }
        assert!(hits <= 1, "round {round}: given {hits} times");
    }
    assert!(given > 0, "the same commit is sent again");
}

/// The reply to the commit of a take is lost, and it is sent again: the store remembers it.
#[tokio::test(start_paused = true)]
async fn a_value_is_not_given_again_after_a_reply_that_is_lost_for_long() {
    let server = MemoryStore::new();
    let way = TestStore::new(server.clone());
    let (here, there) = (cache(way.clone()), cache(TestStore::new(server)));
    put(&here, "s").await;
    way.set_losing_answers(true);
    let taken = take_on(&here, "s").await;
    assert_eq!(taken, Lookup::Unavailable);
    way.set_losing_answers(false);
    assert_eq!(take_on(&there, "s").await, Lookup::Absent);
    let here = cache(way);
    assert_eq!(take_on(&here, "s").await, Lookup::Absent);
}

/// A value whose first reply was lost is taken elsewhere, and so many commits later it is written again: the
/// store does not know that commit any more.
async fn given_after_a_repeated_put() -> usize {
    let server = MemoryStore::new();
    let way = TestStore::new(server.clone());
    let (here, there) = (cache(way.clone()), cache(TestStore::new(server.clone())));
    let tokens = here.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    way.set_losing_answers(true);
    tokens.put("login", "v", 10 * MINUTE).await.unwrap();
    let _ = tokens.commit().await.unwrap();
    way.set_down(true);
    way.set_losing_answers(false);
    let mut given = usize::from(take_on(&there, "s").await.is_hit());
    assert_eq!(given, 1, "L2 has it");
    let others = there.tokens(session("s"));
    for number in 0..20 {
        others
            .insert("mail", token(&number.to_string()))
            .await
            .unwrap();
        assert_stored(others.commit().await.unwrap());
    }
    way.set_down(false);
    drained(&here).await;
    for cache in [&here, &there, &cache(TestStore::new(server))] {
        given += usize::from(take_on(cache, "s").await.is_hit());
    }
    given
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_repeated_does_not_bring_the_value_back() {
    assert_eq!(given_after_a_repeated_put().await, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_mark_a_repeated_put_brings_it_back() {
    mutation::choose(Some(Mutation::TakenWithoutMark));
    assert_eq!(given_after_a_repeated_put().await, 2);
}

/// L2 has lost everything. What instances have in memory is written again, but for the value: another may have
/// taken it.
#[tokio::test(start_paused = true)]
async fn an_l2_that_has_lost_everything_is_not_given_the_value_again() {
    let server = MemoryStore::new();
    let instance = || cache(TestStore::telling_of(server.clone()));
    let (one, other) = (instance(), instance());
    for cache in [&one, &other] {
        hears(cache).await;
    }
    let tokens = one.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    put(&one, "s").await;
    assert!(tokens.value::<String>("login").await.unwrap().is_hit());
    // What it has just written itself is compared first: until then it may be out of date.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.forget_all();
    tokens.insert("mail", token("m")).await.unwrap();
    drained(&one).await;
    for cache in [&one, &other] {
        let tokens = cache.tokens(session("s"));
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
        assert_eq!(take_on(cache, "s").await, Lookup::Absent);
    }
}

/// While L2 is away a session moves in memory, and another instance can take what it leaves behind.
#[tokio::test(start_paused = true)]
async fn a_session_that_moves_without_l2_takes_no_value_along() {
    let server = MemoryStore::new();
    let way = TestStore::new(server.clone());
    let (here, there) = (cache(way.clone()), cache(TestStore::new(server)));
    let old = here.tokens(session("old"));
    old.insert("graph", token("t")).await.unwrap();
    put(&here, "old").await;
    way.set_down(true);
    let new = old.move_to(session("new")).await.unwrap();
    assert_eq!(access(&new, "graph").await.as_deref(), Some("t"));
    let mut given = usize::from(take_on(&there, "old").await.is_hit());
    way.set_down(false);
    drained(&here).await;
    for cache in [&here, &there] {
        for sid in ["new", "old"] {
            given += usize::from(take_on(cache, sid).await.is_hit());
        }
    }
    assert_eq!(given, 1);
}

#[tokio::test]
async fn without_l1_it_is_the_same() {
    let store = SteppingStore::default();
    let caches = [no_l1(store.clone()), no_l1(store)];
    for round in 0..5 {
        assert_eq!(takers(&caches, &round.to_string()).await, 1);
    }
}

fn no_l1(store: impl TokenStore) -> TokenCache {
    let off = tower_token_cache::L1::disabled();
    builder(store).l1(off).build().unwrap()
}
