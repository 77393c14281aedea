//! 100,000 sessions whose tokens expire in the same moment: an application that was rolled out in
//! the morning, or a provider that ends all tokens at midnight.
//!
//! Tokio's time is paused: a pause ends when everything that can go on has gone on. The cache's
//! clock is moved along with it.

use std::array;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::store::TestStore;
use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower_token_cache::{
    Acquisitions, Clock, L1, MemoryStore, PartitionKey, Prior, ProviderError, RefreshReason,
    Timestamp, Token, TokenCache, TokenSet, Tokens,
};

const SESSIONS: usize = 100_000;
/// So many of them use both instances, the rest only the first.
const ROAMING: usize = 10_000;
/// Sessions that come back in the midst of it with a token that has expired long ago.
const RETURNING: usize = 1_000;
const INSTANCES: usize = 2;

const REFRESH_BEFORE: Duration = Duration::from_secs(300);
/// Refreshes are due from 330 to 270 s before the end: 300 s ± 10 %.
const WINDOW: Duration = Duration::from_secs(60);

const TICK: Duration = Duration::from_millis(100);
/// Each session makes a request every 20 seconds.
const TICKS_BETWEEN_REQUESTS: usize = 200;
/// How long the provider takes.
const LATENCY: Duration = Duration::from_millis(5);

const MAX_ACQUISITIONS: usize = 64;
const MAX_AHEAD: usize = MAX_ACQUISITIONS / 4;

/// Rotates refresh tokens, and sees who calls when.
struct Provider {
    clock: Clock,
    /// Calls per session.
    calls: Vec<AtomicU8>,
    /// Calls ahead of time, by the second of the clock.
    ahead_by_second: Mutex<BTreeMap<u64, usize>>,
    instances: [Gauges; INSTANCES],
    new_end: Timestamp,
}

/// What one instance has under way.
#[derive(Default)]
struct Gauges {
    all: Gauge,
    ahead: Gauge,
}

#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Provider {
    async fn refresh(
        self: Arc<Self>,
        instance: usize,
        prior: Prior,
    ) -> Result<TokenSet, ProviderError> {
        let spent = prior.refresh_token().unwrap().expose();
        let session: usize = spent.strip_prefix("spare-").unwrap().parse().unwrap();
        self.calls[session].fetch_add(1, Ordering::SeqCst);
        let gauges = &self.instances[instance];
        let ahead = prior.reason() == RefreshReason::ProactivelyRefreshed;
        if ahead {
            let second = self.clock.now().as_millis() / 1000;
            let mut calls = self.ahead_by_second.lock().unwrap();
            *calls.entry(second).or_default() += 1;
            gauges.ahead.enter();
        }
        gauges.all.enter();
        sleep(LATENCY).await;
        gauges.all.leave();
        if ahead {
            gauges.ahead.leave();
        }
        let token = Token::new(format!("new-{session}")).with_expires_at(self.new_end);
        Ok(TokenSet::from(token).with_refresh_token("used"))
    }
}

struct World {
    clock: Clock,
    caches: [TokenCache; INSTANCES],
    provider: Arc<Provider>,
}

impl World {
    async fn tick(&self) {
        sleep(TICK).await;
        self.clock.advance(TICK);
    }

    /// The instances that a session uses.
    fn instances(session: usize) -> Range<usize> {
        match session < ROAMING {
            true => 0..INSTANCES,
            false => 0..1,
        }
    }

    fn tokens(&self, instance: usize, session: usize) -> Tokens {
        let key = PartitionKey::session(session.to_string()).unwrap();
        self.caches[instance].tokens(key)
    }

    async fn sign_in(&self, session: usize, expires_at: Timestamp) {
        let token = Token::new(format!("old-{session}")).with_expires_at(expires_at);
        let set = TokenSet::from(token).with_refresh_token(format!("spare-{session}"));
        let tokens = self.tokens(0, session);
        tokens.insert("graph", set).await.unwrap();
        if session % 1000 == 999 {
            assert_eq!(
                tokens.commit().await.unwrap(),
                tower_token_cache::Durability::Stored
            );
        }
    }

    async fn request(&self, instance: usize, session: usize) -> Token {
        let (tokens, provider) = (self.tokens(instance, session), self.provider.clone());
        let call = move |prior| provider.refresh(instance, prior);
        tokens.get_or_acquire("graph", call).await.unwrap()
    }

    /// A request that does not wait for anything.
    fn request_at_once(&self, instance: usize, session: usize) -> Token {
        let request = self.request(instance, session).now_or_never();
        request.expect("a request waits although its token is good")
    }

    /// Sessions without a usable token, all at once. None is behind the refreshes ahead of time.
    fn come_back(self: &Arc<Self>, requests: &mut JoinSet<()>) {
        for session in SESSIONS..SESSIONS + RETURNING {
            let world = self.clone();
            requests.spawn(async move {
                let began = Instant::now();
                let token = world.request(0, session).await;
                assert_eq!(token.access_token(), format!("new-{session}"));
                // Of a thousand calls at least 48 are made at a time.
                assert!(began.elapsed() < Duration::from_millis(500));
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refreshes_of_100_000_sessions_with_the_same_expiry_are_spread() {
    let clock = Clock::manual(Timestamp::now());
    let end = clock.now().saturating_add(Duration::from_secs(3600));
    // The store tells nothing, and reads in the background are off: an instance would hear of the
    // other's refresh. Here it finds out when its own is due.
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let cache = || {
        TokenCache::builder(store.clone())
            .runtime(tokio::runtime::Handle::current())
            .clock(clock.clone())
            .l1(L1::new().revalidate_every(None).max_staleness(None))
            .acquisitions(
                Acquisitions::new()
                    .refresh_before(REFRESH_BEFORE)
                    .max(MAX_ACQUISITIONS as u32),
            )
            .build()
            .unwrap()
    };
    let world = Arc::new(World {
        clock: clock.clone(),
        caches: array::from_fn(|_| cache()),
        provider: Arc::new(Provider {
            clock: clock.clone(),
            calls: (0..SESSIONS + RETURNING)
                .map(|_| AtomicU8::new(0))
                .collect(),
            ahead_by_second: Mutex::default(),
            instances: Default::default(),
            new_end: end.saturating_add(Duration::from_secs(3600)),
        }),
    });
    let provider = &world.provider;

    for session in 0..SESSIONS {
        world.sign_in(session, end).await;
    }
    let long_ago = clock.now().saturating_add(Duration::from_secs(60));
    for session in SESSIONS..SESSIONS + RETURNING {
        world.sign_in(session, long_ago).await;
    }
    world.tick().await;
    for session in 0..ROAMING {
        world.request(1, session).await;
    }

    let first_due = end.saturating_sub(REFRESH_BEFORE + WINDOW / 2);
    clock.advance(first_due.saturating_sub(TICK).since(clock.now()));
    // Until each session has made a request after its refresh is due.
    let between = TICK * TICKS_BETWEEN_REQUESTS as u32;
    let ticks = (WINDOW + between).as_millis() / TICK.as_millis() + 10;
    let ticks = ticks as usize;
    let mut returning = JoinSet::new();
    for tick in 0..ticks {
        for session in (tick % TICKS_BETWEEN_REQUESTS..SESSIONS).step_by(TICKS_BETWEEN_REQUESTS) {
            for instance in World::instances(session) {
                world.request_at_once(instance, session);
            }
        }
        if tick == ticks / 4 {
            world.come_back(&mut returning);
        }
        world.tick().await;
    }
    returning.join_all().await;

    let once = |calls: &AtomicU8| calls.load(Ordering::SeqCst) == 1;
    assert!(provider.calls.iter().all(once), "one call for each session");
    for session in 0..SESSIONS {
        for instance in World::instances(session) {
            let token = world.request_at_once(instance, session);
            assert_eq!(token.access_token(), format!("new-{session}"));
        }
    }

    let by_second = provider.ahead_by_second.lock().unwrap();
    assert_eq!(by_second.values().sum::<usize>(), SESSIONS);
    let first = *by_second.keys().next().unwrap() * 1000;
    assert!(first + 1000 > first_due.as_millis(), "nobody was early");
    let last = *by_second.keys().last().unwrap() * 1000;
    let last_due = first_due.saturating_add(WINDOW + between + TICK * 10);
    assert!(last <= last_due.as_millis(), "nobody was late");
    // Without jitter all would come within the 20 seconds in which each makes a request: three
    // times the mean.
    let mean = SESSIONS / WINDOW.as_secs() as usize;
    let most = *by_second.values().max().unwrap();
    assert!(2 * most < 3 * mean, "{most} in one second: {by_second:?}");

    let [first, other] = &provider.instances;
    assert_eq!(first.ahead.most(), MAX_AHEAD, "ahead of time");
    assert_eq!(first.all.most(), MAX_ACQUISITIONS, "in all");
    assert!(other.all.most() <= MAX_AHEAD, "all of them ahead of time");
}

/// A provider that is too slow for all of them to be refreshed ahead of time.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_refresh_that_was_ahead_of_time_does_not_queue_with_the_others() {
    let clock = Clock::manual(Timestamp::now());
    let cache = TokenCache::builder(MemoryStore::new().with_clock(clock.clone()))
        .runtime(tokio::runtime::Handle::current())
        .clock(clock.clone())
        .acquisitions(Acquisitions::new().max(4))
        .build()
        .unwrap();
    let end = clock.now().saturating_add(Duration::from_secs(60));
    let sessions: Vec<_> = (0..20)
        .map(|session| cache.tokens(PartitionKey::session(format!("s{session}")).unwrap()))
        .collect();
    for tokens in &sessions {
        let old = TokenSet::from(Token::new("old").with_expires_at(end)).with_refresh_token("r");
        tokens.insert("graph", old).await.unwrap();
        assert_eq!(
            tokens.commit().await.unwrap(),
            tower_token_cache::Durability::Stored
        );
    }
    let request = |tokens: Tokens| async move {
        let slow = async |_: Prior| -> Result<TokenSet, ProviderError> {
            sleep(Duration::from_secs(1)).await;
            Ok(Token::new("new").into())
        };
        tokens.get_or_acquire("graph", slow).await.unwrap()
    };
    for tokens in &sessions {
        assert_eq!(request(tokens.clone()).await.access_token(), "old");
    }
    sleep(Duration::from_millis(10)).await;
    clock.advance(Duration::from_secs(60));
    let began = Instant::now();
    let last = sessions.last().unwrap().clone();
    assert_eq!(request(last).await.access_token(), "new");
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
}
