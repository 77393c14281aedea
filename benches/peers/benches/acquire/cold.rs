//! A whole acquisition, one after the other, by a provider that answers at once: what the cache
//! adds to the provider's time.

use std::time::{Duration, Instant};

use peers::redis::Redis;
use peers::report::median;
use peers::users::{issue_set, session_id};
use tower_token_cache::{
    BoxError, L1, MemoryStore, PartitionKey, Prior, RedisStore, Timestamp, Token, TokenCache,
    TokenSet, Tokens,
};

const ROUNDS: usize = 21;
const CALLS: usize = 100;

#[derive(Clone, Copy)]
enum Step {
    /// One round-trip.
    Read,
    /// One round-trip, by way of the queue.
    Write,
    /// Nobody knows this user.
    Unknown,
    /// Memory has an expired token, and a refresh token.
    Expired,
}

const STEPS: [(&str, Step); 4] = [
    ("a read of L2", Step::Read),
    ("a change, committed", Step::Write),
    ("acquired, user unknown", Step::Unknown),
    ("acquired, token expired", Step::Expired),
];

pub async fn measure(redis: &Redis) {
    let l1 = || L1::new().revalidate_every(None);
    let memory = TokenCache::builder(MemoryStore::new())
        .l1(l1())
        .build()
        .unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let redis = TokenCache::builder(store).l1(l1()).build().unwrap();
    let caches = [("memory", memory), ("Redis", redis)];
    let mut cases: Vec<_> = caches
        .iter()
        .flat_map(|(l2, cache)| STEPS.map(|(name, step)| (*l2, cache, name, step, Vec::new())))
        .collect();
    for round in 0..=ROUNDS {
        for (turn, (_, cache, _, step, us)) in cases.iter_mut().enumerate() {
            let first = (round * 2 * STEPS.len() + turn) * CALLS;
            let mut times = Vec::with_capacity(CALLS);
            for user in first..first + CALLS {
                let key = PartitionKey::session(session_id(user)).unwrap();
                times.push(run(*step, &cache.tokens(key)).await.as_secs_f64() * 1e6);
            }
            if round > 0 {
                us.push(median(&mut times));
            }
        }
    }
    println!("A call one after the other, {CALLS} a round, {ROUNDS} rounds, medians\n");
    println!("{:<12} {:<28} {:>9}", "L2 in", "call", "µs");
    for (l2, _, name, _, us) in &mut cases {
        println!("{l2:<12} {name:<28} {:>9.1}", median(us));
    }
    println!();
}

async fn run(step: Step, tokens: &Tokens) -> Duration {
    match step {
        Step::Read | Step::Unknown => {}
        Step::Write => {
            let _ = tokens.get("graph").await.unwrap();
        }
        Step::Expired => {
            let old = Token::new("old").with_expires_at(Timestamp::from_millis(1));
            let old = TokenSet::from(old).with_refresh_token("spent");
            tokens.insert("graph", old).await.unwrap();
            let _ = tokens.commit().await.unwrap();
        }
    }
    let start = Instant::now();
    match step {
        Step::Read => assert!(tokens.reload().await.unwrap()),
        Step::Write => {
            tokens.insert("graph", issue_set()).await.unwrap();
            let _ = tokens.commit().await.unwrap();
        }
        Step::Unknown | Step::Expired => {
            let provider = async |_: Prior| -> Result<TokenSet, BoxError> { Ok(issue_set()) };
            tokens.get_or_acquire("graph", provider).await.unwrap();
        }
    }
    start.elapsed()
}
