//! `get_or_acquire` beside `get`, both on tokens that L1 has.

use std::hint::black_box;
use std::time::Instant;

use peers::alloc;
use peers::report::{bar, median};
use peers::users::{STRIDE, USERS, issue_set, session_id};
use tower_token_cache::{L1, MemoryStore, PartitionKey, TokenCache, Tokens};

use super::never;

const ROUNDS: usize = 41;
const CALLS: usize = 20_000;

#[derive(Clone, Copy)]
enum Call {
    Get,
    GetOrAcquire,
    /// The builder, which measures itself.
    Acquire,
}

const CALLS_OF: [(&str, Call); 3] = [
    ("get", Call::Get),
    ("get_or_acquire", Call::GetOrAcquire),
    ("acquire(…).with", Call::Acquire),
];

/// Whether the bars hold.
pub async fn measure() -> bool {
    // Reads in the background are off: rounds are far apart, so that many a hit would start one.
    let l1 = L1::new().revalidate_every(None);
    let cache = TokenCache::builder(MemoryStore::new())
        .l1(l1)
        .build()
        .unwrap();
    let mut users = Vec::with_capacity(USERS);
    for user in 0..USERS {
        let key = PartitionKey::session(session_id(user)).unwrap();
        let tokens = cache.tokens(key);
        tokens.insert("graph", issue_set()).await.unwrap();
        users.push(tokens);
    }
    for tokens in &users {
        let _ = tokens.commit().await.unwrap();
    }
    println!("L1 hits: {CALLS} calls a round, {ROUNDS} rounds, medians; the call alone\n");
    println!(
        "{:<24} {:<18} {:>9} {:>12} {:>7} {:>7}",
        "users", "call", "ns", "of get's", "allocs", "bytes"
    );
    let hot = table("one", &users[..1]).await;
    let cold = table("10,000, in no order", &users).await;
    println!();
    let holds = bar("L1 hit, one user: get_or_acquire / get", hot, 1.2, false);
    let all = "L1 hit, 10,000 users: get_or_acquire / get";
    let holds = bar(all, cold, 1.2, false) && holds;
    println!();
    holds
}

/// Prints the rows of these users. Returns what `get_or_acquire` costs of a `get`.
async fn table(name: &str, users: &[Tokens]) -> f64 {
    let mut ns = CALLS_OF.map(|_| Vec::new());
    let mut counts = CALLS_OF.map(|_| alloc::Count::default());
    for (turn, (_, call)) in CALLS_OF.iter().enumerate() {
        counts[turn] = alloc::count_per_call(CALLS, run(*call, users, CALLS)).await;
    }
    for round in 0..ROUNDS {
        for index in 0..CALLS_OF.len() {
            let turn = (index + round) % CALLS_OF.len();
            // Once untimed, so that no call pays for what the one before has left.
            run(CALLS_OF[turn].1, users, users.len()).await;
            let start = Instant::now();
            run(CALLS_OF[turn].1, users, CALLS).await;
            ns[turn].push(start.elapsed().as_nanos() as f64 / CALLS as f64);
        }
    }
    let ratios = |turn: usize| -> f64 {
        let rounds = ns[turn].iter().zip(&ns[0]);
        median(&mut rounds.map(|(a, b)| a / b).collect::<Vec<_>>())
    };
    for (turn, (call, _)) in CALLS_OF.iter().enumerate() {
        println!(
            "{name:<24} {call:<18} {:>9.0} {:>12.2} {:>7} {:>7}",
            median(&mut ns[turn].clone()),
            ratios(turn),
            counts[turn].allocations,
            counts[turn].bytes,
        );
    }
    ratios(1)
}

async fn run(call: Call, users: &[Tokens], calls: usize) {
    let mut next = 0;
    for _ in 0..calls {
        let tokens = &users[next];
        let token = match call {
            Call::Get => tokens.get("graph").await.unwrap().hit().unwrap(),
            Call::GetOrAcquire => tokens.get_or_acquire("graph", never).await.unwrap(),
            Call::Acquire => {
                let acquisition = tokens.acquire("graph").unwrap();
                acquisition.with(never).await.unwrap().token
            }
        };
        black_box(token.access_token().len());
        next = (next + STRIDE) % users.len();
    }
}
