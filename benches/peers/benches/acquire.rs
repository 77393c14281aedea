//! What it costs to have a token acquired: on a hit, for those who wait for one call to the
//! provider, and for that call itself when nothing is known.
//!
//! Cases take turns, so that drift of the machine cancels.

use peers::alloc::Counting;
use peers::redis::Redis;
use tower_token_cache::{BoxError, Prior, TokenSet};

#[path = "acquire/cold.rs"]
mod cold;
#[path = "acquire/hits.rs"]
mod hits;
#[path = "acquire/waiters.rs"]
mod waiters;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    // For a profiler, or when time is short: only this part.
    let only = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let runs = |part: &str| only.as_deref().is_none_or(|only| part.contains(only));
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut holds = true;
    runtime.block_on(async {
        if runs("hits") {
            holds &= hits::measure().await;
        }
        if runs("waiters") {
            waiters::measure(&redis).await;
        }
        if runs("cold") {
            cold::measure(&redis).await;
        }
    });
    drop(redis);
    std::process::exit(i32::from(!holds));
}

/// For tokens that are there.
async fn never(_: Prior) -> Result<TokenSet, BoxError> {
    unreachable!("the cache has the token")
}
