//! Keys rotate while requests run, and all users stay signed in.
//!
//! Two instances keep their tokens in one store, sealed with keys that are in the same store.
//! Ninety days pass in a moment, again and again: each time a new key takes over.
//!
//! ```sh
//! cargo run -p key_rotation
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::{io, time::Duration};

use tower_token_cache::{
    Clock, KeyRing, L1, PartitionKey, SqliteStore, Timeouts, Timestamp, Token, TokenCache,
    seal::RingKey,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;
const USERS: u64 = 20;
const ROTATIONS: usize = 5;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A service has the system's clock, and no line about it.
static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::manual(Timestamp::now()));

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    misses: AtomicU64,
    done: AtomicBool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tokens.db");
    // What wraps the keys in the store comes from a secret store of yours.
    let wrapping = RingKey::generate()?;
    let first = Instance::start(&file, &wrapping).await?;
    let second = Instance::start(&file, &wrapping).await?;
    for user in 0..USERS {
        first.write(user).await?;
    }

    let tally = Arc::new(Tally::default());
    let instances = [&first, &second, &first, &second];
    let requests = instances.map(|one| tokio::spawn(serve(one.clone(), tally.clone())));
    for _ in 0..ROTATIONS {
        let before = tally.requests.load(Ordering::Relaxed);
        // A day ahead of its use one instance makes the next key; the other reads it from the
        // store. A cache does both by itself, every five minutes.
        CLOCK.advance(89 * DAY);
        first.ring.refresh().await?;
        CLOCK.advance(300 * SECOND);
        second.ring.refresh().await?;
        CLOCK.advance(DAY);
        println!("sealing with {}", second.ring.active());
        while tally.requests.load(Ordering::Relaxed) < before + 200 {
            tokio::task::yield_now().await;
        }
    }
    tally.done.store(true, Ordering::Relaxed);
    for request in requests {
        request.await??;
    }

    let keys = first.ring.keys().len();
    let [requests, misses] = [&tally.requests, &tally.misses].map(|n| n.load(Ordering::Relaxed));
    println!("keys = {keys}, requests = {requests}, misses = {misses}");
    Ok(())
}

/// Requests of all users, each of which reads a token and now and then writes one.
async fn serve(instance: Instance, tally: Arc<Tally>) -> Result<(), Failure> {
    while !tally.done.load(Ordering::Relaxed) {
        let number = tally.requests.fetch_add(1, Ordering::Relaxed);
        let tokens = instance.cache.tokens(partition(number % USERS)?);
        if !tokens.get("graph").await?.is_hit() {
            tally.misses.fetch_add(1, Ordering::Relaxed);
        }
        if number.is_multiple_of(7) {
            instance.write(number % USERS).await?;
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Instance {
    ring: KeyRing,
    cache: TokenCache,
}

impl Instance {
    async fn start(file: &std::path::Path, wrapping: &RingKey) -> Result<Self, Failure> {
        let store = SqliteStore::open(file).await?;
        // As KeyRing::open_in_store(store.keys("ttc"), wrapping), but for the clock.
        let ring = KeyRing::builder(store.keys("ttc")).protector(wrapping.clone());
        let ring = ring.clock(CLOCK.clone()).open().await?;
        // Without memory every request has to open what stands in the store.
        let cache = TokenCache::builder(store).l1(L1::disabled());
        let cache = cache.timeouts(Timeouts::new().operation(10 * SECOND).attempt(5 * SECOND));
        let cache = cache.key_ring(ring.clone()).build()?;
        Ok(Self { ring, cache })
    }

    async fn write(&self, user: u64) -> Result<(), Failure> {
        let tokens = self.cache.tokens(partition(user)?);
        tokens.insert("graph", Token::new("ya29.a0Af")).await?;
        // What is pending is found missing.
        let _ = tokens.commit().await?;
        Ok(())
    }
}

fn partition(user: u64) -> Result<PartitionKey, Failure> {
    Ok(PartitionKey::user(user.to_string())?)
}
