//! Calls to the provider have places, of which there are only so many (guarantees 5, 12 and 13):
//! they are held by calls under way alone, shared fairly, and what waits for one is bounded.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tower_token_cache::{
    AcquireErrorKind, Acquisitions, Error, MemoryStore, PartitionKey, Prior, ProviderError,
    Timestamp, Token, TokenCache, TokenSet, Tokens,
};

use common::dropped::dropped_after;
use common::issuer::Issuer;
use common::support::*;

type Answer = Result<TokenSet, ProviderError>;

const MOMENT: Duration = Duration::from_millis(100);

/// Counts calls, and how many were under way at a time.
#[derive(Clone, Default)]
struct Calls(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

struct UnderWay<'a>(&'a Counts);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Calls {
    /// A call that answers when `until` has ended.
    async fn make(self, until: impl Future<Output = ()>) -> Answer {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        let _under_way = UnderWay(&self.0);
        until.await;
        Ok(token("new").into())
    }

    fn begun(&self) -> usize {
        self.0.begun.load(Ordering::SeqCst)
    }

    fn now(&self) -> usize {
        self.0.now.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }
}

async fn acquire(
    tokens: Tokens,
    name: String,
    calls: Calls,
    lasts: Duration,
) -> Result<Token, Error> {
    let call = move |_: Prior| calls.make(sleep(lasts));
    tokens.get_or_acquire(name, call).await
}

/// A request whose call never ends by itself.
fn hanging(cache: &TokenCache, id: &str, calls: &Calls) -> JoinHandle<Result<Token, Error>> {
    let (tokens, calls) = (cache.tokens(session(id)), calls.clone());
    tokio::spawn(async move {
        let call = move |_: Prior| calls.make(pending());
        tokens.get_or_acquire("graph", call).await
    })
}

/// Somebody who has nothing to do with the others.
async fn somebody_else(cache: &TokenCache) {
    let tokens = cache.tokens(session("somebody-else"));
    let call = |_: Prior| ready(Answer::Ok(token("new").into()));
    let served = timeout(MOMENT, tokens.get_or_acquire("graph", call)).await;
    served.expect("without waiting for others").unwrap();
}

async fn keep_expired(cache: &TokenCache, id: &str) {
    let old = Token::new("old").with_expires_at(Timestamp::from_millis(1));
    let tokens = cache.tokens(session(id));
    let set = TokenSet::from(old).with_refresh_token("r0");
    tokens.insert("graph", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn calls_that_hang_leave_everybody_else_alone() {
    let (cache, calls) = (cache(MemoryStore::new()), Calls::default());
    for number in 0..64 {
        hanging(&cache, &format!("mallory-{number}"), &calls);
    }
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(calls.now(), 64);
    somebody_else(&cache).await;
    assert_eq!(calls.now(), 64);
}

#[tokio::test(start_paused = true)]
async fn there_is_an_end_to_calls_that_hang() {
    let (cache, calls) = (cache(MemoryStore::new()), Calls::default());
    for number in 0..1000 {
        hanging(&cache, &format!("mallory-{number}"), &calls);
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!(calls.most(), 8 * 64);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_instance_has_no_place() {
    let store = TestStore::default();
    let [here, there] = [cache(store.clone()), cache(store)];
    let (stuck, calls) = (Calls::default(), Calls::default());
    for number in 0..64 {
        keep_expired(&there, &number.to_string()).await;
        hanging(&there, &number.to_string(), &stuck);
    }
    sleep(MOMENT).await;
    assert_eq!(stuck.now(), 64, "another instance has all the leases");
    for number in 0..64 {
        hanging(&here, &number.to_string(), &calls);
    }
    sleep(MOMENT).await;
    assert_eq!(calls.begun(), 0);
    somebody_else(&here).await;
}

#[tokio::test(start_paused = true)]
async fn one_session_has_no_more_than_its_share() {
    const LASTS: Duration = Duration::from_millis(300);
    for (refreshes, share) in [(true, 1), (false, 16)] {
        let (cache, calls) = (cache(MemoryStore::new()), Calls::default());
        if refreshes {
            keep_expired(&cache, "mallory").await;
        }
        let mut requests = JoinSet::new();
        for number in 0..150 {
            let tokens = cache.tokens(session("mallory"));
            requests.spawn(acquire(
                tokens,
                format!("api-{number}"),
                calls.clone(),
                LASTS,
            ));
        }
        sleep(MOMENT).await;
        somebody_else(&cache).await;
        assert_eq!(calls.now(), share);
        for answer in requests.join_all().await {
            answer.unwrap();
        }
        assert_eq!((calls.begun(), calls.most()), (150, share));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_take_turns_by_partition() {
    let cache = builder(MemoryStore::new())
        .acquisitions(Acquisitions::new().max(1))
        .build()
        .unwrap();
    let calls = Calls::default();
    let lasts = Duration::from_millis(100);
    let mut greedy = JoinSet::new();
    for number in 0..50 {
        let tokens = cache.tokens(session("mallory"));
        greedy.spawn(acquire(
            tokens,
            format!("api-{number}"),
            calls.clone(),
            lasts,
        ));
    }
    sleep(lasts / 2).await;
    let victim = acquire(
        cache.tokens(session("victim")),
        "graph".into(),
        calls.clone(),
        lasts,
    );
    timeout(lasts * 3, victim)
        .await
        .expect("after one other call")
        .unwrap();
    assert!(calls.begun() <= 3);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_not_asked_for() {
    let cache = builder(MemoryStore::new())
        .acquisitions(Acquisitions::new().max(1))
        .build()
        .unwrap();
    let calls = Calls::default();
    let begun = hanging(&cache, "begun", &calls);
    sleep(MOMENT).await;
    let mut gone: Vec<_> = (0..100)
        .map(|it| hanging(&cache, &it.to_string(), &calls))
        .collect();
    // Two wait for one and the same, and one of them stays.
    let both = ["stays", "stays"].map(|id| hanging(&cache, id, &calls));
    sleep(MOMENT).await;
    assert_eq!(cache.stats().waiting_acquisitions, 102);
    let [leaves, stays] = both;
    gone.extend([leaves, begun]);
    for request in &gone {
        request.abort();
    }
    sleep(MOMENT).await;
    assert_eq!(
        cache.stats().waiting_acquisitions,
        2,
        "what is under way, and what is waited for"
    );
    sleep(Duration::from_secs(2)).await;
    assert_eq!(calls.begun(), 2);
    assert!(!stays.is_finished());
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_an_abandoned_one_starts_anew() {
    let cache = builder(MemoryStore::new())
        .acquisitions(Acquisitions::new().max(1))
        .build()
        .unwrap();
    let calls = Calls::default();
    hanging(&cache, "other", &calls);
    sleep(MOMENT).await;
    let abandoned = hanging(&cache, "s", &calls);
    sleep(MOMENT).await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    let tokens = cache.tokens(session("s"));
    let again = acquire(tokens, "graph".into(), calls.clone(), MOMENT);
    timeout(Duration::from_secs(2), again)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_place_has_an_end() {
    let cache = builder(MemoryStore::new())
        .acquisitions(Acquisitions::new().max(1).timeout(Duration::from_secs(5)))
        .build()
        .unwrap();
    let calls = Calls::default();
    let requests: JoinSet<_> = (0..20)
        .map(|it| hanging(&cache, &it.to_string(), &calls))
        .collect();
    let outcomes = timeout(Duration::from_secs(11), requests.join_all()).await;
    let outcomes = outcomes.expect("twice the timeout, at most");
    let mut asked = 0;
    for outcome in outcomes {
        let Err(Error::Acquire(error)) = outcome.unwrap() else {
            panic!("the provider hangs")
        };
        assert_eq!(error.kind(), AcquireErrorKind::TimedOut);
        asked += usize::from(error.retry_at().is_some());
    }
    assert_eq!(
        asked,
        calls.begun(),
        "only who was asked is left alone for a while"
    );
    assert!(asked < 10);
    assert_eq!(cache.stats().waiting_acquisitions, 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_for_one_partition_and_for_all() {
    let (cache, calls) = (cache(MemoryStore::new()), Calls::default());
    let ask = |partition: PartitionKey, name: String| {
        let (tokens, calls) = (cache.tokens(partition), calls.clone());
        async move {
            let call = move |_: Prior| calls.make(pending());
            tokens.get_or_acquire(name, call).await
        }
    };
    let mut waiting = JoinSet::new();
    for number in 0..1024 {
        waiting.spawn(ask(session("mallory"), number.to_string()));
    }
    sleep(MOMENT).await;
    let refused = ask(session("mallory"), "one-more".into()).await;
    assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    somebody_else(&cache).await;
    for number in 1024..16_384 {
        waiting.spawn(ask(session(&number.to_string()), "graph".into()));
    }
    sleep(MOMENT).await;
    assert_eq!(cache.stats().waiting_acquisitions, 16_384);
    let refused = ask(session("one-more"), "graph".into()).await;
    assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    assert_eq!(
        cache.stats().pending_changes as usize,
        3 * calls.now(),
        "room for calls only"
    );
    waiting.shutdown().await;
    sleep(MOMENT).await;
    assert_eq!(cache.stats().waiting_acquisitions as usize, calls.now());
}

/// Clients that hang up after 20 ms, in front of a provider that takes a minute.
#[tokio::test(start_paused = true)]
async fn requests_that_are_given_up_leave_nothing_behind() {
    let (cache, calls) = (cache(MemoryStore::new()), Calls::default());
    let mut clients = JoinSet::new();
    for client in 0..64 {
        let (cache, calls) = (cache.clone(), calls.clone());
        clients.spawn(async move {
            for number in 0..250 {
                let invented = PartitionKey::assertion(format!("invented-{client}-{number}"));
                let lasts = Duration::from_secs(59);
                let asked = acquire(cache.tokens(invented), "graph".into(), calls.clone(), lasts);
                assert!(timeout(Duration::from_millis(20), asked).await.is_err());
            }
        });
    }
    clients.join_all().await;
    sleep(MOMENT).await;
    let waiting = cache.stats().waiting_acquisitions as usize;
    assert_eq!(
        waiting,
        calls.now(),
        "calls under way, which run to their end"
    );
    assert!(calls.most() <= 8 * 64, "{}", calls.most());
    sleep(Duration::from_secs(60)).await;
    assert_eq!((cache.stats().waiting_acquisitions, calls.now()), (0, 0));
    somebody_else(&cache).await;
}

#[tokio::test]
async fn dropped_at_any_await_an_acquisition_strands_nobody_and_spends_nothing() {
    for polls in 0..8 {
        let cache = builder(TestStore::default())
            .acquisitions(Acquisitions::new().max(1))
            .build()
            .unwrap();
        keep_expired(&cache, "s").await;
        let (issuer, tokens) = (Issuer::new(), cache.tokens(session("s")));
        let request = || {
            let issuer = issuer.clone();
            tokens.get_or_acquire("graph", move |prior| issuer.refresh(prior))
        };
        let ended = dropped_after(polls, request()).await;
        let token = request().await.unwrap();
        assert!(ended.is_none_or(|ended| ended.unwrap() == token));
        assert_eq!((issuer.calls(), issuer.reuses()), (1, 0), "after {polls}");
        eventually("nothing is under way", async || {
            cache.stats().waiting_acquisitions == 0
        })
        .await;
    }
}
