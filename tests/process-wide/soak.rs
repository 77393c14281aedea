//! Users come, change, sign out and expire, for a long time: memory stays flat, no task is left.
//!
//! `SOAK_SECONDS` is how long (20) it goes on after L1 is full; until then memory grows, as it should.
//! With `SOAK_SAMPLES` set, memory is printed as it was each ten seconds.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::assert_stored;
use common::own_process::is_own;
use common::redis::RedisServer;
use common::support::{drained, redis_store, session};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tower_token_cache::{Error, L1, Lifetimes, Lookup, Token, TokenCache, TokenSet};

/// Full after some hundred users: most of a run is eviction.
const L1_BYTES: u64 = 4 << 20;
const WORKERS: usize = 8;
/// Between two users of one worker.
const PACE: Duration = Duration::from_millis(5);
/// How long a token lasts, and a user who does nothing.
const TOKEN: Duration = Duration::from_secs(1);
const USER: Duration = Duration::from_secs(2);
/// By how much the cache's clock may be ahead: a tick of the system's, and a millisecond.
const TICK: Duration = Duration::from_millis(11);
/// Some hundred users a second, and 4 KB for each.
const FULL_WITHIN: Duration = Duration::from_secs(60);
/// How often what has ended is swept out of memory.
const SWEEP: Duration = Duration::from_secs(60);
/// What memory may grow by, in MiB, between the second and the last third of a short run, and between
/// the middle and the end of a long one. Until then the allocator's arenas, and what is kept until the
/// next sweep, find their size. In a short run that hides 2 KB per user, in one of ten minutes 30 bytes.
const SLACK: f64 = 16.0;
const SLACK_OF_LONG: f64 = 4.0;
const LONG: Duration = Duration::from_secs(300);

struct Churn {
    cache: TokenCache,
    users: AtomicUsize,
    /// Tokens that had ended when they were read for the first time.
    expired: AtomicUsize,
    stopped: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_and_no_task_is_left() {
    if !is_own("soak::memory_is_flat_and_no_task_is_left") {
        return;
    }
    let seconds = std::env::var("SOAK_SECONDS").map_or(20, |text| text.parse().unwrap());
    let redis = RedisServer::start();
    let cache = TokenCache::builder(redis_store(&redis).await)
        .l1(L1::new().max_bytes(L1_BYTES))
        .lifetimes(Lifetimes::new().after_write(USER))
        .runtime(Handle::current())
        .build()
        .unwrap();
    let churn = Arc::new(Churn {
        cache: cache.clone(),
        users: AtomicUsize::new(0),
        expired: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
    });
    common::eventually("the channel is up", async || {
        cache.stats().feed_alive == Some(true)
    })
    .await;
    churn.user(0).await;
    drained(&cache).await;
    let idle_tasks = Handle::current().metrics().num_alive_tasks();

    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(churn.clone().work());
    }
    let time = Duration::from_secs(seconds);
    let started = Instant::now();
    let mut samples = Vec::new();
    // What has been written is kept in L1 until there is no room: only then can memory be flat.
    let mut full_after = None;
    let mut most_tasks = 0;
    while full_after.is_none_or(|full: Duration| started.elapsed() < full + time) {
        sleep(Duration::from_millis(200)).await;
        let elapsed = started.elapsed();
        if full_after.is_none() && cache.stats().l1_bytes > L1_BYTES / 10 * 9 {
            full_after = Some(elapsed);
        }
        assert!(
            full_after.is_some() || elapsed < FULL_WITHIN,
            "L1 is not full"
        );
        samples.push((elapsed, resident_mib()));
        most_tasks = most_tasks.max(Handle::current().metrics().num_alive_tasks());
    }
    churn.stopped.store(true, Ordering::Relaxed);
    workers.join_all().await;
    drained(&cache).await;

    let full = full_after.unwrap();
    // Long runs are compared by whole rounds of the sweep.
    let window = SWEEP.min(time / 3);
    let most = |from: Duration, to: Duration| {
        let within = samples.iter().filter(|(at, _)| *at >= from && *at < to);
        within.map(|(_, mib)| *mib).fold(0.0, f64::max)
    };
    let (warm_up, slack) = match time >= LONG {
        true => (time / 2 - window, SLACK_OF_LONG),
        false => (window, SLACK),
    };
    let warm = most(full + warm_up, full + warm_up + window);
    let end = most(full + time - window, full + time);
    let stats = cache.stats();
    let users = churn.users.load(Ordering::Relaxed);
    // Past the harness, which shows the output of failed tests only.
    let _ = writeln!(
        std::io::stderr(),
        "\nSOAK_SECONDS={seconds}: {users} users; L1 full after {full:.1?}; resident MiB: {:.1} at \
         first, {:.1} when full, {warm:.1} warm, {end:.1} at the end; tasks: {idle_tasks} before, \
         {most_tasks} at most; tokens that ended before they were read: {}\n{stats:?}",
        samples[0].1,
        most(Duration::ZERO, full + Duration::from_millis(1)),
        churn.expired.load(Ordering::Relaxed),
    );
    if std::env::var_os("SOAK_SAMPLES").is_some() {
        for (at, mib) in samples.iter().step_by(50) {
            let _ = writeln!(std::io::stderr(), "{:.0} s: {mib:.1} MiB", at.as_secs_f64());
        }
    }
    assert!(users > 50 * seconds as usize, "it was under load");
    assert!(end - warm <= slack, "{warm} MiB have become {end}");
    assert!(stats.l1_bytes <= L1_BYTES, "{} bytes", stats.l1_bytes);
    assert_eq!((stats.abandoned_changes, stats.unopenable), (0, 0));
    // What a worker of the pool or of the store still has to do is over in a moment.
    common::eventually("only the tasks of an idle cache are left", async || {
        Handle::current().metrics().num_alive_tasks() <= idle_tasks
    })
    .await;
}

impl Churn {
    async fn work(self: Arc<Self>) {
        let mut tick = interval(PACE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stopped.load(Ordering::Relaxed) {
            tick.tick().await;
            self.user(self.users.fetch_add(1, Ordering::Relaxed)).await;
        }
    }

    /// One user's life; what becomes of it depends on its number.
    async fn user(&self, number: usize) {
        let tokens = self.cache.tokens(session(&format!("user-{number}")));
        assert!(!tokens.get("graph").await.unwrap().is_hit(), "is new");
        // Before the tokens are made: their second begins with them.
        let began = Instant::now();
        let token = || Token::new("x".repeat(2000)).with_expires_in(TOKEN);
        let set = TokenSet::from(token()).with_refresh_token("r".repeat(500));
        tokens.insert("graph", set).await.unwrap();
        let inserted = began.elapsed();
        let found = tokens.get("graph").await.unwrap();
        if !found.is_hit() {
            // A machine that stands still lets the token end.
            let (elapsed, stats) = (began.elapsed(), self.cache.stats());
            let ended = elapsed + TICK > TOKEN && found == Lookup::Absent;
            assert!(ended, "{found:?} {inserted:?} {elapsed:?} {stats:?}");
            self.expired.fetch_add(1, Ordering::Relaxed);
        }
        tokens.insert("mail", token()).await.unwrap();
        match number % 4 {
            0 => drop(tokens.sign_out().await.unwrap()),
            1 => {
                assert_stored(tokens.commit().await.unwrap());
                tokens.remove("mail").await.unwrap();
            }
            2 => {
                let acquire = async move |_| Ok::<_, Error>(TokenSet::from(token()));
                tokens.get_or_acquire("files", acquire).await.unwrap();
            }
            _ => {}
        }
        // Somebody comes back whose time is over.
        let earlier = number.saturating_sub(4 * (1000 / PACE.as_millis() as usize) * WORKERS);
        if earlier > 0 {
            let tokens = self.cache.tokens(session(&format!("user-{earlier}")));
            // Absent, or unavailable on a machine that is too busy for Redis to answer in time.
            assert!(!tokens.get("graph").await.unwrap().is_hit(), "is over");
        }
    }
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap() / 1024.0
}
