//! Acquisitions of one partition that have nothing to do with each other, and answers whose way to L2 is disturbed.

use std::sync::atomic::AtomicBool;

use common::passes_on;
use tokio::sync::Semaphore;
use tower_token_cache::store::{Commit, Lease, LeaseState, Loaded, Outcome, PartitionId};
use tower_token_cache::{PartitionKey, StoreError, StoreErrorKind, Timeouts, TokenStore};

use super::*;

/// An acquisition of the application's own token `name`, whose call stands still.
async fn own_token(
    cache: &TokenCache,
    name: &'static str,
) -> (Issuer, JoinHandle<Result<String, Error>>) {
    let issuer = Issuer::new();
    issuer.hold();
    let application = PartitionKey::application("client", "tenant").unwrap();
    let request = tokio::spawn({
        let (tokens, issuer) = (cache.tokens(application), issuer.clone());
        async move {
            let call = move |_: Prior| async move {
                issuer.arrived_without_token().await;
                Ok::<_, ProviderError>(TokenSet::from(token(name)))
            };
            let token = tokens.get_or_acquire(name, call).await?;
            Ok(token.access_token().to_owned())
        }
    });
    issuer.arrival().await;
    (issuer, request)
}

/// Each group of commits takes nearly half of the time that an answer may take to L2.
#[derive(Clone)]
struct SlowCommits(TestStore);

impl TokenStore for SlowCommits {
    passes_on!(load, touch, clear, raise, relocate, leases);

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        tokio::time::sleep(Duration::from_millis(400)).await;
        self.0.commit(group).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_l2_does_not_take_in_time_fails_no_other_acquisition() {
    let store = TestStore::default();
    let timeouts = Timeouts::new().attempt(Duration::from_millis(900));
    let slow = builder(SlowCommits(store.clone())).timeouts(timeouts);
    let slow = slow.build().unwrap();
    let names = ["one", "two", "three", "four", "five"];
    let mut requests = Vec::new();
    for name in names {
        requests.push(own_token(&slow, name).await);
    }
    for (at, (issuer, _)) in requests.iter().enumerate() {
        if at > 2 {
            // These come later, so that one before them is out of time first.
            tokio::time::advance(Duration::from_millis(250)).await;
        }
        issuer.release();
    }
    for (name, (_, request)) in names.into_iter().zip(requests) {
        assert_eq!(request.await.unwrap().unwrap(), name);
    }
    drained(&slow).await;
    let application = || PartitionKey::application("client", "tenant").unwrap();
    for name in names {
        let found = access(&cache(store.clone()).tokens(application()), name).await;
        assert_eq!(found.as_deref(), Some(name));
    }
}

/// After a conflict it answers no load until another commit has come.
#[derive(Clone)]
struct SilentAfterConflict(TestStore, Arc<AtomicBool>);

impl TokenStore for SilentAfterConflict {
    passes_on!(touch, clear, raise, relocate, leases);

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        match self.1.load(Ordering::SeqCst) {
            true => group
                .iter()
                .map(|_| Err(StoreError::new(StoreErrorKind::Refused)))
                .collect(),
            false => self.0.load(group).await,
        }
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let outcomes = self.0.commit(group).await;
        let conflict = |it: &Result<Outcome, _>| matches!(it, Ok(Outcome::Conflict));
        self.1
            .store(outcomes.iter().any(conflict), Ordering::SeqCst);
        outcomes
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_cannot_be_looked_into_overwrites_nothing() {
    let (store, issuer) = (expired().await, Issuer::new());
    let silent = SilentAfterConflict(store.clone(), Arc::default());
    let tokens = cache(silent).tokens(session("s"));
    let request = held(&tokens, &issuer).await;
    let other = cache(store.clone()).tokens(session("s"));
    other.insert("graph", set(70)).await.unwrap();
    assert_stored(other.commit().await.unwrap());
    issuer.release();
    request.await.unwrap().unwrap();
    let refresh_token = cache(store).tokens(session("s")).refresh_token().await;
    assert_eq!(refresh_token.unwrap().hit().unwrap().expose(), "r70");
}

/// Has lost each lease that is to be renewed. Who asks for one from then on waits.
#[derive(Clone)]
struct LosesLeases(TestStore, Arc<Losing>);

struct Losing {
    lost: AtomicBool,
    asked: Semaphore,
    answers: Semaphore,
}

impl TokenStore for LosesLeases {
    passes_on!(load, commit, touch, clear, raise, release_lease);

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        if self.1.lost.load(Ordering::SeqCst) {
            self.1.asked.add_permits(1);
            self.1.answers.acquire().await.unwrap().forget();
        }
        self.0.acquire_lease(lease, ttl).await
    }

    async fn renew_lease(&self, _: &Lease, _: Duration) -> Result<bool, StoreError> {
        self.1.lost.store(true, Ordering::SeqCst);
        Ok(false)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_lease_l2_has_lost_stands_still_until_it_has_one_again() {
    let losing = Arc::new(Losing {
        lost: AtomicBool::new(false),
        asked: Semaphore::new(0),
        answers: Semaphore::new(0),
    });
    let store = LosesLeases(expired().await, losing.clone());
    let tokens = cache(store).tokens(session("s"));
    let go_on = Arc::new(Semaphore::new(0));
    let went_on = Arc::new(AtomicBool::new(false));
    let request = tokio::spawn({
        let (go_on, went_on) = (go_on.clone(), went_on.clone());
        async move {
            let call = move |_: Prior| async move {
                go_on.acquire().await.unwrap().forget();
                went_on.store(true, Ordering::SeqCst);
                Ok::<_, ProviderError>(set(1))
            };
            tokens.get_or_acquire("graph", call).await
        }
    });
    losing.asked.acquire().await.unwrap().forget();
    go_on.add_permits(1);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!went_on.load(Ordering::SeqCst));
    losing.answers.add_permits(1);
    let token = request.await.unwrap().unwrap();
    assert_eq!(token.access_token(), "a1");
}

/// Lets the clock of a store go on with the paused time of a test.
fn on_paused_time(clock: Clock) {
    tokio::spawn(async move {
        let step = Duration::from_millis(10);
        loop {
            tokio::time::sleep(step).await;
            clock.advance(step);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_until_l2_has_the_answer() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    keep_expired(&cache(store.clone()).tokens(session("s"))).await;
    on_paused_time(clock);
    let issuer = Issuer::new();
    let timeouts = || Timeouts::new().attempt(Duration::from_millis(900));
    let leases = || Acquisitions::new().lease_ttl(Duration::from_millis(150));
    let slow = builder(SlowCommits(store.clone())).timeouts(timeouts());
    let slow = slow.acquisitions(leases()).build().unwrap();
    let request = held(&slow.tokens(session("s")), &issuer).await;
    issuer.release();
    let other = builder(store).acquisitions(leases()).build().unwrap();
    let found = acquire(&other.tokens(session("s")), &issuer).await.unwrap();
    assert_eq!(found, "a1");
    assert_eq!(request.await.unwrap().unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

/// Under `Strict` a call must not begin without a lease: what waits for its turn while L2 and the lease are lost is
/// refused.
#[tokio::test(start_paused = true)]
async fn what_loses_its_lease_before_its_call_is_refused_under_strict() {
    for policy in [FailurePolicy::Strict, FailurePolicy::Degrade] {
        let store = expired().await;
        let settings = Acquisitions::new()
            .max(1)
            .lease_ttl(Duration::from_millis(500));
        let cache = builder(store.clone()).acquisitions(settings);
        let cache = cache.build().unwrap();
        let (other, first) = own_token(&cache, "first").await;
        let (tokens, issuer) = (cache.tokens(session("s")), Issuer::new());
        tokens.set_failure_policy(policy);
        let request = tokio::spawn({
            let issuer = issuer.clone();
            async move { acquire(&tokens, &issuer).await }
        });
        let renewals = store.renewals();
        eventually("it has its lease", async || store.renewals() > renewals + 1).await;
        store.set_down(true);
        tokio::time::sleep(Duration::from_secs(5)).await;
        other.release();
        first.await.unwrap().unwrap();
        let outcome = request.await.unwrap();
        match policy {
            FailurePolicy::Strict => assert!(matches!(outcome, Err(Error::Unavailable(_)))),
            _ => assert_eq!(outcome.unwrap(), "a1"),
        }
        assert_eq!(issuer.calls(), u64::from(policy != FailurePolicy::Strict));
    }
}
