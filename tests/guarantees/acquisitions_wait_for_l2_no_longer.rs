//! An acquisition waits for L2 no longer than an operation may take, at whichever of its steps L2 hangs, and however many
//! of them it has: only the provider's call comes on top.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::passes_on;
use tokio::time::{Instant, sleep};
use tower_token_cache::store::{Lease, LeaseState};
use tower_token_cache::{
    Acquired, Durability, Error, FailurePolicy, Prior, ProviderError, StoreError, Timeouts,
    Timestamp, Token, TokenCache, TokenSet, TokenStore, Tokens,
};

use common::support::*;

/// The default, and what a caller waits beyond it.
const LONGEST: Duration = Duration::from_millis(1000 + 50);

/// A store with an expired token and the refresh token for it.
async fn expired() -> TestStore {
    let store = TestStore::default();
    let tokens = cache(store.clone()).tokens(session("s"));
    let token = Token::new("a0").with_expires_at(Timestamp::from_millis(1));
    let set = TokenSet::from(token).with_refresh_token("r0");
    tokens.insert("api", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    store
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Plain,
    Forced,
    Rejected,
    /// The provider fails.
    Failing,
}

const ASKS: [Ask; 4] = [Ask::Plain, Ask::Forced, Ask::Rejected, Ask::Failing];
const POLICIES: [FailurePolicy; 2] = [FailurePolicy::Degrade, FailurePolicy::Strict];

impl Ask {
    fn may_fail(self, policy: FailurePolicy, error: &Error) -> bool {
        match error {
            Error::Acquire(_) => matches!(self, Self::Failing),
            Error::Unavailable(_) => policy == FailurePolicy::Strict,
            _ => false,
        }
    }

    /// With a call that takes so long.
    async fn of(self, tokens: &Tokens, call: Duration) -> Result<Acquired, Error> {
        let acquisition = tokens.acquire("api")?;
        let acquisition = match self {
            Self::Plain | Self::Failing => acquisition,
            Self::Forced => acquisition.force_refresh(),
            Self::Rejected => acquisition.rejected(&Token::new("a0")),
        };
        let fails = matches!(self, Self::Failing);
        let source = async move |_: Prior| {
            sleep(call).await;
            match fails {
                true => Err(ProviderError::status(http::StatusCode::BAD_GATEWAY)),
                false => Ok(TokenSet::from(token("a1")).with_refresh_token("r1")),
            }
        };
        acquisition.with(source).await
    }
}

/// Has L2 hang after each number of operations, and `ask`, until that needs no more of them. How many it needs.
async fn at_each_step(
    what: &str,
    policy: FailurePolicy,
    ask: impl AsyncFn(TokenCache, &str),
) -> u64 {
    for answered in 0.. {
        let store = expired().await;
        let cache = builder(store.clone()).failure_policy(policy);
        let cache = cache.build().unwrap();
        store.hang_after(answered);
        ask(
            cache.clone(),
            &format!("{what}, L2 hangs after {answered} operations"),
        )
        .await;
        if cache.stats().l2_errors == 0 {
            return answered;
        }
    }
    unreachable!("an acquisition has an end")
}

/// It waits for no longer than that besides the call.
async fn in_time<T>(what: &str, call: Duration, ask: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let output = ask.await;
    let waited = began.elapsed().saturating_sub(call);
    assert!(waited <= LONGEST, "{what}: {waited:?}");
    output
}

#[tokio::test(start_paused = true)]
async fn at_whichever_step_l2_hangs() {
    // The lease is lost in the midst of the longer one.
    for call in [5_000, 30_200].map(Duration::from_millis) {
        for (ask, policy) in ASKS
            .iter()
            .flat_map(|ask| POLICIES.map(|policy| (*ask, policy)))
        {
            let what = format!("{ask:?} under {policy:?}, a call of {call:?}");
            let steps = at_each_step(&what, policy, async |cache, what| {
                let tokens = cache.tokens(session("s"));
                match in_time(what, call, ask.of(&tokens, call)).await {
                    Ok(acquired) => assert_eq!(acquired.token.access_token(), "a1", "{what}"),
                    Err(error) => assert!(ask.may_fail(policy, &error), "{what}: {error}"),
                }
            });
            // The load, the lease, the look, and the commit.
            let steps = steps.await;
            assert!(steps >= 4, "{what}: {steps} steps");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn also_where_requests_share_a_flight() {
    let call = Duration::from_secs(5);
    at_each_step("two", FailurePolicy::Degrade, async |cache, what| {
        let later = async {
            sleep(Duration::from_millis(200)).await;
            let tokens = cache.tokens(session("s"));
            in_time(what, call, Ask::Plain.of(&tokens, call)).await
        };
        let tokens = cache.tokens(session("s"));
        let first = in_time(what, call, Ask::Plain.of(&tokens, call));
        for acquired in <[_; 2]>::from(tokio::join!(first, later)) {
            assert_eq!(acquired.unwrap().token.access_token(), "a1", "{what}");
        }
    })
    .await;
}

/// While a lease is asked for, the process stands still once, for longer than it would wait for L2.
#[derive(Clone)]
struct StandsStill(TestStore, Arc<AtomicBool>);

const SHORT: Duration = Duration::from_millis(200);

impl TokenStore for StandsStill {
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
        if !self.1.swap(true, Ordering::SeqCst) {
            std::thread::sleep(2 * SHORT);
            std::future::pending().await
        }
        self.0.acquire_lease(lease, ttl).await
    }
}

#[tokio::test]
async fn the_time_in_which_a_process_stands_still_is_not_l2s() {
    let store = StandsStill(expired().await, Arc::default());
    let timeouts = Timeouts::new().attempt(SHORT / 4).operation(SHORT);
    let cache = builder(store).timeouts(timeouts).build().unwrap();
    let tokens = cache.tokens(session("s"));
    let acquired = Ask::Plain.of(&tokens, Duration::ZERO).await.unwrap();
    assert!(acquired.metadata.exclusive, "it has the lease");
    assert_eq!(acquired.metadata.durability, Some(Durability::Stored));
}
