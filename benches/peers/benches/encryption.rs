//! What encryption costs: hardly more than the cipher alone, nothing on an L1 hit, and little of the
//! commits per second that reach a real Redis. With and without take turns in one run.

#[path = "encryption/cipher.rs"]
mod cipher;

use std::hint::black_box;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::COOKIE;
use axum::http::{HeaderValue, Request};
use axum::routing::get;
use peers::process::cpu_time;
use peers::redis::Redis;
use peers::report::{bar, median};
use peers::users::{STRIDE, USERS, issue_set, session_id};
use tower::Service;
use tower_token_cache::{
    Error, KeyRing, L1, PartitionKey, RedisStore, TokenCache, TokenCacheLayer, Tokens, key,
};

const HIT_ROUNDS: usize = 21;
const FLUSH_ROUNDS: usize = 15;
/// So few users that the processor's caches hold what a hit needs of them.
const HOT: usize = 256;
/// Few enough to fit the bound on pending changes.
const COMMITS: usize = 5_000;
/// What a ratio of 1.0 may be off by, for the noise of the machine.
const NOISE: f64 = 0.1;

/// A cache over Redis, and what was measured of it.
struct Case {
    cache: TokenCache,
    router: Router,
    next: usize,
    /// Hits of a few users, and of all.
    hot: Vec<f64>,
    hits: Vec<f64>,
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

impl Case {
    async fn new(redis: &Redis, namespace: &str, ring: Option<KeyRing>) -> Self {
        async fn read(tokens: Tokens) -> Result<String, Error> {
            let token = tokens.get("graph").await?.hit().expect("is in L1");
            Ok(token.access_token().len().to_string())
        }
        let store = RedisStore::connect(redis.url()).await.unwrap();
        let builder = TokenCache::builder(store).namespace(namespace);
        let builder = builder.l1(L1::new().revalidate_every(None));
        let builder = match ring {
            Some(ring) => builder.key_ring(ring),
            None => builder,
        };
        let cache = builder.build().unwrap();
        let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
        let mut case = Self {
            cache,
            router: Router::new().route("/read", get(read)).layer(layer),
            next: 0,
            hot: Vec::new(),
            hits: Vec::new(),
            rates: Vec::new(),
            cpu: Vec::new(),
        };
        while case.next < USERS {
            case.flush().await;
        }
        case.next = 0;
        case
    }

    fn tokens(&self, user: usize) -> Tokens {
        let key = PartitionKey::session(session_id(user % USERS)).unwrap();
        self.cache.tokens(key)
    }

    /// Changes partitions one after the other and waits until Redis has all. Returns commits per
    /// second, and the CPU time of one in µs.
    async fn flush(&mut self) -> (f64, f64) {
        // The partitions are in memory: what is measured is writing.
        let users = self.next..self.next + COMMITS;
        let handles: Vec<_> = users.map(|user| self.tokens(user)).collect();
        self.next += COMMITS;
        for tokens in &handles {
            tokens.keys().await.unwrap();
        }
        let commits = self.cache.stats().l2_commits;
        let (cpu, start) = (cpu_time(), Instant::now());
        for tokens in &handles {
            tokens.insert("graph", issue_set()).await.unwrap();
        }
        while self.cache.stats().pending_changes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = (cpu_time() - cpu).as_secs_f64();
        let commits = (self.cache.stats().l2_commits - commits) as f64;
        (commits / seconds, cpu * 1e6 / commits)
    }

    /// The median request of these users, in ns.
    async fn hit(&mut self, cookies: &[HeaderValue]) -> f64 {
        let mut times = Vec::with_capacity(USERS);
        let mut next = 0;
        for _ in 0..USERS {
            let request = Request::get("/read").header(COOKIE, cookies[next].clone());
            let request = request.body(Body::empty()).unwrap();
            let start = Instant::now();
            let response = self.router.call(request).await.unwrap();
            assert!(response.status().is_success());
            black_box(to_bytes(response.into_body(), 1024).await.unwrap());
            times.push(start.elapsed().as_nanos() as f64);
            next = (next + STRIDE) % cookies.len();
        }
        median(&mut times)
    }
}

fn main() {
    let sealing = cipher::compare();
    if std::env::args().any(|argument| argument == "cipher") {
        std::process::exit(i32::from(!sealing));
    }
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let cookie = |user| HeaderValue::from_str(&format!("sid={}", session_id(user))).unwrap();
    let cookies: Vec<_> = (0..USERS).map(cookie).collect();
    let mut pairs = runtime.block_on(async {
        let ring = || Some(KeyRing::generate().unwrap());
        // Which was there first has the better place in memory: the two pairs take turns in that.
        let off = Case::new(&redis, "a", None).await;
        let on = Case::new(&redis, "b", ring()).await;
        let second_on = Case::new(&redis, "c", ring()).await;
        let second_off = Case::new(&redis, "d", None).await;
        let mut pairs = [[off, on], [second_off, second_on]];
        // The first round of each warms up.
        for round in 0..=HIT_ROUNDS {
            for pair in &mut pairs {
                for turn in [round % 2, (round + 1) % 2] {
                    // Each after an untimed pass, so that the processor's caches hold what they can.
                    pair[turn].hit(&cookies[..HOT]).await;
                    let ns = pair[turn].hit(&cookies[..HOT]).await;
                    pair[turn].hot.extend((round > 0).then_some(ns));
                    pair[turn].hit(&cookies).await;
                    let ns = pair[turn].hit(&cookies).await;
                    pair[turn].hits.extend((round > 0).then_some(ns));
                }
            }
        }
        for round in 0..=FLUSH_ROUNDS {
            for pair in &mut pairs {
                for turn in [round % 2, (round + 1) % 2] {
                    let (rate, cpu) = pair[turn].flush().await;
                    pair[turn].rates.extend((round > 0).then_some(rate));
                    pair[turn].cpu.extend((round > 0).then_some(cpu));
                }
            }
        }
        pairs
    });
    let all_opened = |case: &Case| case.cache.stats().unopenable == 0;
    assert!(pairs.iter().flatten().all(all_opened));
    let holds = report(&mut pairs) && sealing;
    drop(redis);
    std::process::exit(i32::from(!holds));
}

/// The geometric mean of the pairs' median ratios, with to without.
fn ratio(pairs: &[[Case; 2]; 2], of: impl Fn(&Case) -> &[f64]) -> f64 {
    let ratios = pairs.each_ref().map(|[off, on]| {
        let ratios = of(on).iter().zip(of(off)).map(|(on, off)| on / off);
        median(&mut ratios.collect::<Vec<_>>())
    });
    (ratios[0] * ratios[1]).sqrt()
}

fn report(pairs: &mut [[Case; 2]; 2]) -> bool {
    println!(
        "{USERS} users of 7 KiB; twice {HIT_ROUNDS} rounds of hits, {FLUSH_ROUNDS} of {COMMITS} \
         commits; medians\n"
    );
    println!(
        "{:<12} {:>10} {:>14} {:>12} {:>16}",
        "encryption", "L1 hit ns", "of all users", "commits/s", "CPU µs a commit"
    );
    let hot = ratio(pairs, |case| &case.hot);
    let hit = ratio(pairs, |case| &case.hits);
    let flush = ratio(pairs, |case| &case.rates);
    let cpu = ratio(pairs, |case| &case.cpu);
    for pair in pairs {
        for (name, case) in ["off", "on"].into_iter().zip(pair) {
            let all = [
                &mut case.hot,
                &mut case.hits,
                &mut case.rates,
                &mut case.cpu,
            ];
            let [hot, hit, rate, cpu] = all.map(|measured| median(measured));
            println!("{name:<12} {hot:>10.0} {hit:>14.0} {rate:>12.0} {cpu:>16.1}");
        }
    }
    println!("\nCPU time of a commit with encryption / without: {cpu:.2}\n");
    let what = format!("L1 hit of {HOT} users with encryption / without");
    let mut holds = bar(&what, hot, 1.0 + NOISE, false);
    let what = format!("L1 hit of {USERS} users with encryption / without");
    holds &= bar(&what, hit, 1.0 + NOISE, false);
    let what = "commits per second with encryption / without";
    holds & bar(what, flush, 0.85, true)
}
