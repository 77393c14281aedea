//! A thousand requests that wait for one call to the provider: how soon each goes on once the
//! answer is there.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use peers::process::cpu_time;
use peers::redis::Redis;
use peers::report::median;
use peers::users::{UserTokens, issue_set, session_id};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tower_token_cache::{
    BoxError, FailurePolicy, MemoryStore, PartitionKey, Prior, RedisStore, TokenCache, TokenSet,
};

const WAITERS: usize = 1_000;
const ROUNDS: usize = 21;

/// One call to the provider, which answers when it is told to.
#[derive(Clone, Default)]
struct Provider(Arc<State>);

#[derive(Default)]
struct State {
    gate: Notify,
    calls: AtomicUsize,
    answered: OnceLock<Instant>,
    waiting: AtomicUsize,
}

impl Provider {
    async fn answer(self) {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.gate.notified().await;
        let _ = self.0.answered.set(Instant::now());
    }

    /// When `request` goes on.
    async fn await_with(self, request: impl Future) -> Instant {
        let mut request = pin!(request);
        let mut counted = false;
        poll_fn(|context| {
            let polled = request.as_mut().poll(context).map(drop);
            if polled.is_pending() && !std::mem::replace(&mut counted, true) {
                self.0.waiting.fetch_add(1, Ordering::SeqCst);
            }
            polled
        })
        .await;
        Instant::now()
    }
}

enum Stack {
    Ours(TokenCache, FailurePolicy),
    Moka(moka::future::Cache<String, Arc<UserTokens>>),
    /// The channel that ours is made of, and nothing else.
    Watch,
}

struct Case {
    name: &'static str,
    stack: Stack,
    median: Vec<f64>,
    p99: Vec<f64>,
    last: Vec<f64>,
    cpu: Vec<f64>,
    calls: usize,
}

impl Case {
    fn new(name: &'static str, stack: Stack) -> Self {
        Self {
            name,
            stack,
            median: Vec::new(),
            p99: Vec::new(),
            last: Vec::new(),
            cpu: Vec::new(),
            calls: 0,
        }
    }

    /// A user that nobody has seen, and a thousand requests for the token.
    async fn round(&mut self, user: usize) {
        let provider = Provider::default();
        let mut requests = JoinSet::new();
        match &self.stack {
            Stack::Ours(cache, policy) => {
                for _ in 0..WAITERS {
                    let key = PartitionKey::session(session_id(user)).unwrap();
                    let tokens = cache.tokens(key);
                    tokens.set_failure_policy(*policy);
                    let provider = provider.clone();
                    let call = {
                        let provider = provider.clone();
                        async move |_: Prior| -> Result<TokenSet, BoxError> {
                            provider.answer().await;
                            Ok(issue_set())
                        }
                    };
                    requests.spawn(provider.await_with(async move {
                        tokens.get_or_acquire("graph", call).await.unwrap()
                    }));
                }
            }
            Stack::Moka(cache) => {
                for _ in 0..WAITERS {
                    let (cache, provider) = (cache.clone(), provider.clone());
                    let call = provider.clone();
                    requests.spawn(provider.await_with(async move {
                        let init = async {
                            call.answer().await;
                            Ok::<_, std::io::Error>(Arc::new(UserTokens::issue()))
                        };
                        cache.try_get_with(session_id(user), init).await.unwrap()
                    }));
                }
            }
            Stack::Watch => {
                let (sender, receiver) = watch::channel(None);
                for _ in 0..WAITERS {
                    let mut receiver: watch::Receiver<Option<Arc<UserTokens>>> = receiver.clone();
                    requests.spawn(provider.clone().await_with(async move {
                        receiver.wait_for(Option::is_some).await.unwrap().clone()
                    }));
                }
                let provider = provider.clone();
                tokio::spawn(async move {
                    provider.answer().await;
                    sender.send_replace(Some(Arc::new(UserTokens::issue())));
                });
            }
        }
        let state = &provider.0;
        while state.waiting.load(Ordering::SeqCst) < WAITERS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Those who have waited for L2 until now come to wait for the answer.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let cpu = cpu_time();
        state.gate.notify_one();
        let resumed = requests.join_all().await;
        self.cpu
            .push((cpu_time() - cpu).as_secs_f64() * 1e6 / WAITERS as f64);
        let answered = *state.answered.get().expect("everybody has the answer");
        let mut waited: Vec<f64> = resumed
            .into_iter()
            .map(|at| at.duration_since(answered).as_secs_f64() * 1e6)
            .collect();
        self.median.push(median(&mut waited));
        self.p99.push(waited[WAITERS * 99 / 100]);
        self.last.push(waited[WAITERS - 1]);
        self.calls += state.calls.load(Ordering::SeqCst);
    }
}

pub async fn measure(redis: &Redis) {
    let cache = |store| TokenCache::builder(store).build().unwrap();
    let memory = cache(MemoryStore::new());
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let redis = TokenCache::builder(store).build().unwrap();
    let mut cases = [
        Case::new(
            "ours, L2 in memory",
            Stack::Ours(memory.clone(), FailurePolicy::Degrade),
        ),
        Case::new(
            "ours, past L2 (Bypass)",
            Stack::Ours(memory, FailurePolicy::Bypass),
        ),
        Case::new(
            "ours, L2 in Redis",
            Stack::Ours(redis, FailurePolicy::Degrade),
        ),
        Case::new(
            "moka, try_get_with",
            Stack::Moka(moka::future::Cache::new(1 << 20)),
        ),
        Case::new("tokio's watch alone", Stack::Watch),
    ];
    for round in 0..=ROUNDS {
        if round == 1 {
            // The first round warms up.
            for case in &mut cases {
                *case = Case::new(case.name, std::mem::replace(&mut case.stack, Stack::Watch));
            }
        }
        for index in 0..cases.len() {
            let turn = (index + round) % cases.len();
            cases[turn].round(round * cases.len() + turn).await;
        }
    }
    println!("{WAITERS} waiters of one call, {ROUNDS} rounds, medians: from the provider's answer");
    println!("until each waiter goes on, in µs\n");
    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>15} {:>15}",
        "stack", "median", "p99", "last", "CPU per waiter", "calls a round"
    );
    for case in &mut cases {
        println!(
            "{:<24} {:>9.0} {:>9.0} {:>9.0} {:>15.2} {:>15.2}",
            case.name,
            median(&mut case.median),
            median(&mut case.p99),
            median(&mut case.last),
            median(&mut case.cpu),
            case.calls as f64 / ROUNDS as f64,
        );
        assert_eq!(case.calls.max(ROUNDS), ROUNDS, "one call a round");
    }
    println!();
}
