//! A store that is busy is not one that is away: whoever waits for it longer than an operation may take redeems
//! nothing without a lease.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::issuer::Issuer;
use common::passes_on;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tower_token_cache::store::{Lease, LeaseState, PartitionId};
use tower_token_cache::{AcquireErrorKind, Error, StoreError, TokenStore};

use common::support::*;

use super::{acquire, keep_expired};

/// Takes so many leases at a time, and so long for each.
const AT_A_TIME: usize = 10;
const EACH: Duration = Duration::from_millis(20);

/// The default.
const LEASE_TTL: Duration = Duration::from_secs(30);

/// Has few connections, as a database does.
#[derive(Clone)]
struct Busy(TestStore, Arc<Semaphore>);

impl TokenStore for Busy {
    passes_on!(load, commit, touch, clear, raise, renew_lease);

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        let _connection = self.1.acquire().await.unwrap();
        sleep(EACH).await;
        self.0.acquire_lease(lease, ttl).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let _connection = self.1.acquire().await.unwrap();
        sleep(EACH).await;
        self.0.release_lease(lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn many_sessions_at_once_are_refreshed_once_each() {
    const SESSIONS: usize = 600;
    let store = TestStore::default();
    let writer = cache(store.clone());
    let sid = |at: usize| session(&format!("s{at}"));
    join_all((0..SESSIONS).map(async |at| keep_expired(&writer.tokens(sid(at))).await)).await;
    let issuers: Vec<_> = (0..SESSIONS).map(|_| Issuer::new()).collect();
    let fleet = [0, 1].map(|_| {
        let connections = Arc::new(Semaphore::new(AT_A_TIME));
        cache(Busy(store.clone(), connections))
    });
    let began = Instant::now();
    let requests = (0..2 * SESSIONS).map(async |at| {
        let tokens = fleet[at % 2].tokens(sid(at / 2));
        acquire(&tokens, &issuers[at / 2]).await.unwrap()
    });
    for token in join_all(requests).await {
        assert_eq!(token, "a1");
    }
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "the store was busy"
    );
    for issuer in &issuers {
        assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    }
}

/// Answers nobody who asks for the first lease that it was asked for.
#[derive(Clone)]
struct Ignores(TestStore, Arc<OnceLock<PartitionId>>);

impl TokenStore for Ignores {
    passes_on!(
        load,
        commit,
        touch,
        clear,
        raise,
        renew_lease,
        release_lease
    );

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        if *self.1.get_or_init(|| lease.partition.clone()) == lease.partition {
            std::future::pending().await
        }
        self.0.acquire_lease(lease, ttl).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_only_others_get_is_an_error_in_the_end() {
    let cache = cache(Ignores(TestStore::default(), Arc::default()));
    let [ignored, other] = ["s", "other"].map(|sid| cache.tokens(session(sid)));
    for tokens in [&ignored, &other] {
        keep_expired(tokens).await;
    }
    let [issuer, of_other] = [Issuer::new(), Issuer::new()];
    let began = Instant::now();
    let others = async {
        loop {
            sleep(Duration::from_millis(10)).await;
            let issuer = of_other.clone();
            let again = other.acquire("graph").unwrap().force_refresh();
            let acquired = again.with(move |prior| issuer.refresh(prior)).await;
            acquired.unwrap();
        }
    };
    let error = tokio::select! {
        acquired = acquire(&ignored, &issuer) => acquired.unwrap_err(),
        () = others => unreachable!("it has no end"),
    };
    let Error::Acquire(error) = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (error.kind(), issuer.calls()),
        (AcquireErrorKind::TimedOut, 0)
    );
    let longest = LEASE_TTL + Duration::from_secs(2);
    assert!(
        (LEASE_TTL..longest).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
}
