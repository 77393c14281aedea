use std::time::Duration;

use tokio::task::JoinHandle;
use tower_token_cache::{
    Clock, Durability, Error, L1, Lookup, MemoryStore, ProviderError, Timestamp, Token, TokenCache,
    Tokens,
};

use common::issuer::Issuer;
use common::support::*;

#[tokio::test]
async fn a_request_that_began_before_cannot_bring_tokens_back() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    let slow = cache.tokens(session("s"));
    slow.insert("graph", token("old")).await.unwrap();
    assert_stored(slow.commit().await.unwrap());

    assert_eq!(
        cache.tokens(session("s")).sign_out().await.unwrap(),
        Durability::Stored
    );
    let refused = slow.insert("graph", token("refreshed")).await;
    assert!(matches!(refused, Err(Error::SignedOut)), "{refused:?}");
    assert_eq!(stored(redis_store(&server).await, "s", "graph").await, None);
    assert_eq!(access(&cache.tokens(session("s")), "graph").await, None);
}

#[tokio::test]
async fn not_on_another_instance_either() {
    let server = RedisServer::start();
    let (a, b) = (redis_cache(&server).await, redis_cache(&server).await);
    let on_a = a.tokens(session("s"));
    on_a.insert("graph", token("old")).await.unwrap();
    assert_stored(on_a.commit().await.unwrap());

    // B signs out; A has the partition in L1 and knows nothing of it.
    assert_stored(b.tokens(session("s")).sign_out().await.unwrap());
    // A may have been told by now.
    let refused = match on_a.insert("graph", token("refreshed")).await {
        Ok(()) => on_a.commit().await.map(drop),
        refused => refused,
    };
    assert!(matches!(refused, Err(Error::SignedOut)), "{refused:?}");
    assert_eq!(stored(redis_store(&server).await, "s", "graph").await, None);
    assert_eq!(
        access(&a.tokens(session("s")), "graph").await,
        None,
        "and A has learnt of it"
    );

    // A request that begins now signs in again.
    let again = a.tokens(session("s"));
    again.insert("graph", token("new")).await.unwrap();
    assert_stored(again.commit().await.unwrap());
    let store = redis_store(&server).await;
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_slow_read_does_not_bring_them_back() {
    let store = seeded().await;

    let cache = cache(store.clone());
    store.hang_loads();
    let reader = cache.tokens(session("s"));
    let loads = store.loads();
    let read = tokio::spawn(async move { access(&reader, "graph").await });
    eventually("the read has begun", async || store.loads() > loads).await;
    let signed_out = cache.tokens(session("s")).sign_out().await.unwrap();
    assert_eq!(signed_out, Durability::Stored);
    store.wake_loads();
    assert_eq!(
        read.await.unwrap(),
        None,
        "what was read is from before the sign-out"
    );
    for _ in 0..3 {
        assert_eq!(access(&cache.tokens(session("s")), "graph").await, None);
    }
}

#[tokio::test]
async fn a_slow_read_does_not_hide_a_commit_that_overtook_it() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("old")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    store.hang_loads();
    let loads = store.loads();
    let reloading = tokens.clone();
    let reload = tokio::spawn(async move { reloading.reload().await });
    eventually("the read has begun", async || store.loads() > loads).await;
    tokens.insert("graph", token("new")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    store.wake_loads();
    assert!(reload.await.unwrap().unwrap());
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_flush_that_waits_is_dropped() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("old")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    store.set_down(true);
    let other = cache.tokens(session("s"));
    other.insert("mail", token("unsent")).await.unwrap();
    let signed_out = tokens.sign_out().await.unwrap();
    assert_eq!(signed_out, Durability::Pending, "L2 could not be told yet");
    assert_eq!(
        access(&cache.tokens(session("s")), "graph").await,
        None,
        "here it holds at once"
    );
    assert!(matches!(
        other.insert("mail", token("x")).await,
        Err(Error::SignedOut)
    ));

    store.set_down(false);
    eventually("L2 is told", async || {
        store.clears() > 0 && cache.stats().pending_changes == 0
    })
    .await;
    eventually("nothing is left", async || {
        stored(store.clone(), "s", "graph").await.is_none()
    })
    .await;
    assert_eq!(stored(store.clone(), "s", "mail").await, None);
}

#[tokio::test]
async fn a_change_made_blindly_during_an_outage_is_dropped_if_the_user_signed_out_meanwhile() {
    let store = TestStore::default();
    let (cut_off, healthy) = (cache(store.clone()), cache(store.clone()));
    store.set_down(true);
    let blind = cut_off.tokens(session("s"));
    blind.insert("graph", token("blind")).await.unwrap();
    store.set_down(false);
    // The other instance signs the user out before this one can replay.
    assert_stored(healthy.tokens(session("s")).sign_out().await.unwrap());
    eventually("replayed or dropped", async || {
        cut_off.stats().pending_changes == 0
    })
    .await;
    assert_eq!(stored(store.clone(), "s", "graph").await, None);
}

#[tokio::test]
async fn the_handle_that_signed_out_can_sign_in_again() {
    for l1 in [L1::new(), L1::disabled()] {
        let server = RedisServer::start();
        let cache = builder(redis_store(&server).await).l1(l1).build().unwrap();
        let tokens = cache.tokens(session("s"));
        tokens.insert("graph", token("old")).await.unwrap();
        assert_stored(tokens.sign_out().await.unwrap());
        assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Absent);
        assert!(tokens.keys().await.unwrap().is_empty());
        tokens.insert("graph", token("new")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let store = redis_store(&server).await;
        assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("new"));
    }
}

#[tokio::test]
async fn it_ends_what_another_instance_has_begun_since() {
    let store = seeded().await;
    let (stale, other) = (cache(store.clone()), cache(store.clone()));
    let on_stale = stale.tokens(session("s"));
    assert_eq!(access(&on_stale, "graph").await.as_deref(), Some("t"));
    let on_other = other.tokens(session("s"));
    assert_stored(on_other.sign_out().await.unwrap());
    on_other.insert("graph", token("again")).await.unwrap();
    assert_stored(on_other.commit().await.unwrap());
    // It knows nothing of the generation that there is now.
    assert_eq!(on_stale.sign_out().await.unwrap(), Durability::Stored);
    assert_eq!(stored(store, "s", "graph").await, None);
}

/// A store, and an instance that has missed a sign-out there: past the bound on what is served
/// unseen.
async fn after_an_unseen_sign_out() -> (TestStore, TokenCache) {
    let clock = Clock::manual(Timestamp::now());
    let store = seeded().await;
    let stale = builder(store.clone()).clock(clock.clone()).build().unwrap();
    assert!(access(&stale.tokens(session("s")), "graph").await.is_some());
    let elsewhere = cache(store.clone()).tokens(session("s"));
    assert_stored(elsewhere.sign_out().await.unwrap());
    clock.advance(Duration::from_secs(60));
    (store, stale)
}

#[tokio::test]
async fn a_sign_in_on_an_instance_that_has_missed_it_is_kept() {
    let (store, stale) = after_an_unseen_sign_out().await;
    let again = stale.tokens(session("s"));
    again.insert("graph", token("again")).await.unwrap();
    assert_stored(again.commit().await.unwrap());
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("again"));
}

/// A request whose call to the provider stands still, and will then bring this token.
async fn held(
    tokens: Tokens,
    issuer: &Issuer,
    access: &'static str,
) -> JoinHandle<Result<Token, Error>> {
    issuer.hold();
    let request = tokio::spawn({
        let issuer = issuer.clone();
        async move {
            let call = move |_| async move {
                issuer.arrived_without_token().await;
                Ok::<_, ProviderError>(token(access).into())
            };
            tokens.get_or_acquire("graph", call).await
        }
    });
    issuer.arrival().await;
    request
}

#[tokio::test]
async fn what_is_acquired_blindly_meanwhile_is_dropped() {
    let (store, issuer) = (TestStore::default(), Issuer::new());
    let cut_off = builder(store.clone()).l1(L1::disabled()).build().unwrap();
    store.set_down(true);
    let request = held(cut_off.tokens(session("s")), &issuer, "late").await;
    store.set_down(false);
    // The breaker of the instance that is cut off need not have noticed.
    assert_stored(
        cache(store.clone())
            .tokens(session("s"))
            .sign_out()
            .await
            .unwrap(),
    );
    issuer.release();
    let _ = request.await.unwrap();
    drained(&cut_off).await;
    assert_eq!(stored(store, "s", "graph").await, None);
}

#[tokio::test]
async fn a_second_one_while_the_first_is_repeated_ends_what_came_between() {
    let memory = MemoryStore::new();
    let store = TestStore::new(memory.clone());
    let here = cache(store.clone());
    let tokens = here.tokens(session("s"));
    // L2 cannot say what is to end, ends it, and its answer is lost.
    store.hang_loads();
    store.set_losing_answers(true);
    assert_eq!(tokens.sign_out().await.unwrap(), Durability::Pending);
    eventually("L2 has it", async || store.clears() > 0).await;
    let elsewhere = cache(memory.clone()).tokens(session("s"));
    elsewhere.insert("graph", token("between")).await.unwrap();
    assert_stored(elsewhere.commit().await.unwrap());

    let loads = store.loads();
    eventually("the first is repeated", async || store.loads() > loads).await;
    let mut second = std::pin::pin!(tokens.sign_out());
    let made = tokio::time::timeout(Duration::ZERO, second.as_mut()).await;
    assert!(made.is_err(), "it waits for L2");
    store.set_losing_answers(false);
    assert_stored(second.await.unwrap());
    eventually("L2 has the second", async || {
        stored(memory.clone(), "s", "graph").await.is_none()
    })
    .await;
}

/// What is in L2, an instance over it, and its sign-out, to which L2 has yet to say which generation
/// is to end: its loads hang.
async fn asking_what_to_end() -> (MemoryStore, TestStore, TokenCache, JoinHandle<Durability>) {
    let memory = MemoryStore::new();
    let store = TestStore::new(memory.clone());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    store.hang_loads();
    let loads = store.loads();
    let sign_out = tokio::spawn(async move { tokens.sign_out().await.unwrap() });
    eventually("L2 is asked", async || store.loads() > loads).await;
    (memory, store, cache, sign_out)
}

#[tokio::test]
async fn what_another_one_ended_stays_ended_when_the_answer_to_its_repetition_is_lost() {
    let (memory, store, here, sign_out) = asking_what_to_end().await;
    let between = here.tokens(session("s"));
    between.insert("graph", token("between")).await.unwrap();
    let elsewhere = cache(memory.clone()).tokens(session("s"));
    assert_eq!(elsewhere.sign_out().await.unwrap(), Durability::Stored);

    // So the first step finds another generation, which the second one ends.
    store.lose_clear(2);
    store.wake_loads();
    assert_eq!(sign_out.await.unwrap(), Durability::Pending);
    eventually("it is repeated", async || store.clears() > 2).await;
    drained(&here).await;
    assert_eq!(stored(memory, "s", "graph").await, None);
}

#[tokio::test]
async fn it_ends_a_call_that_began_after_one_that_l2_had_yet_to_hear_of() {
    let (memory, store, cut_off, sign_out) = asking_what_to_end().await;
    let issuer = Issuer::new();
    // L2 says which generation is to end, and is gone.
    store.set_down(true);
    store.wake_loads();
    assert_eq!(sign_out.await.unwrap(), Durability::Pending);
    let request = held(cut_off.tokens(session("s")), &issuer, "between").await;
    let elsewhere = cache(memory.clone()).tokens(session("s"));
    assert_eq!(elsewhere.sign_out().await.unwrap(), Durability::Stored);
    store.set_down(false);
    eventually("L2 has heard of the first", async || {
        let fresh = cut_off.tokens(session("s"));
        fresh.commit().await.unwrap() == Durability::Stored
    })
    .await;
    issuer.release();
    let refused = request.await.unwrap();
    assert!(matches!(refused, Err(Error::SignedOut)), "{refused:?}");
    drained(&cut_off).await;
    assert_eq!(stored(memory, "s", "graph").await, None);
}

#[tokio::test]
async fn what_begins_after_it_does_not_wait_for_a_call_from_before() {
    let (store, issuer) = (TestStore::default(), Issuer::new());
    let cache = cache(store);
    let tokens = cache.tokens(session("s"));
    let set = tower_token_cache::TokenSet::from(token("mail")).with_refresh_token("r0");
    tokens.insert("mail", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let request = held(cache.tokens(session("s")), &issuer, "before").await;
    assert_stored(cache.tokens(session("s")).sign_out().await.unwrap());

    let tokens = cache.tokens(session("s"));
    tokens.insert("mail", token("again")).await.unwrap();
    let call = async |_| Ok::<_, ProviderError>(token("after").into());
    let acquired = tokens.get_or_acquire("graph", call).await.unwrap();
    assert_eq!(acquired.access_token(), "after");
    issuer.release();
    let refused = request.await.unwrap();
    assert!(matches!(refused, Err(Error::SignedOut)), "{refused:?}");
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("after"));
}

#[tokio::test]
async fn a_forced_refresh_on_an_instance_that_has_missed_it_succeeds() {
    let (_, stale) = after_an_unseen_sign_out().await;
    let tokens = stale.tokens(session("s"));
    let call = async |_| Ok::<_, ProviderError>(token("new").into());
    let forced = tokens.acquire("graph").unwrap().force_refresh();
    assert_eq!(forced.with(call).await.unwrap().token.access_token(), "new");
}

#[tokio::test]
async fn of_two_at_a_time_each_is_final() {
    let store = seeded().await;
    let (here, other) = (cache(store.clone()), cache(store.clone()));
    for cache in [&here, &other] {
        assert!(access(&cache.tokens(session("s")), "graph").await.is_some());
    }
    // Both look for the generation to end, and find the same.
    store.hang_loads();
    let loads = store.loads();
    let sign_out = |cache: &tower_token_cache::TokenCache| {
        let tokens = cache.tokens(session("s"));
        tokio::spawn(async move { tokens.sign_out().await.unwrap() })
    };
    let first = sign_out(&here);
    eventually("the first one has looked", async || store.loads() > loads).await;
    // It comes after the first one, and before the second.
    let between = here.tokens(session("s"));
    between.insert("graph", token("between")).await.unwrap();
    let second = sign_out(&other);
    eventually("both have looked", async || store.loads() > loads + 1).await;
    store.wake_loads();
    assert_eq!(first.await.unwrap(), Durability::Stored);
    assert_eq!(second.await.unwrap(), Durability::Stored);
    drained(&here).await;
    assert_eq!(stored(store, "s", "graph").await, None);
}
