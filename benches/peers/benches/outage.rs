//! What a request of a user in L1 costs while Redis is healthy, while it hangs, and while it is
//! dead: side by side in one run.

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
use peers::users::{USERS, issue_set, session_id};
use tower::Service;
use tower_token_cache::{
    BreakerState, Error, PartitionKey, RedisStore, TokenCache, TokenCacheLayer, Tokens, key,
};

const ROUNDS: usize = 41;
const REQUESTS: usize = 10_000;
/// From one request's user to the next: prime to their number; see `request.rs`.
const STRIDE: usize = 3_779;
/// What a ratio of 1.0 may be off by, for the noise of the machine.
const NOISE: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Healthy,
    Hung,
    Dead,
}

struct Case {
    health: Health,
    cache: TokenCache,
    router: Router,
    cookies: Vec<HeaderValue>,
    next: usize,
    ns: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
}

impl Case {
    async fn new(redis: &Redis, health: Health) -> Self {
        async fn read(tokens: Tokens) -> Result<String, Error> {
            let token = tokens.get("graph").await?.hit().expect("is in L1");
            Ok(token.access_token().len().to_string())
        }
        let store = RedisStore::connect(redis.url()).await.unwrap();
        let cache = TokenCache::builder(store).build().unwrap();
        for user in 0..USERS {
            let key = PartitionKey::session(session_id(user)).unwrap();
            let tokens = cache.tokens(key);
            tokens.insert("graph", issue_set()).await.unwrap();
        }
        while cache.stats().pending_changes > 0 || cache.stats().feed_alive == Some(false) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
        let cookie = |user| HeaderValue::from_str(&format!("sid={}", session_id(user))).unwrap();
        Self {
            health,
            cache,
            router: Router::new().route("/read", get(read)).layer(layer),
            cookies: (0..USERS).map(cookie).collect(),
            next: 0,
            ns: Vec::new(),
            p99: Vec::new(),
            cpu: Vec::new(),
        }
    }

    /// Waits until the outage is known: nobody waits for Redis any more.
    async fn outage_is_known(&mut self) {
        while self.cache.stats().l2_state == BreakerState::Closed
            || self.cache.stats().feed_alive == Some(true)
        {
            // Users whom L1 has not.
            let key = PartitionKey::session(format!("unknown-{}", self.next)).unwrap();
            self.next += 1;
            let _ = self.cache.tokens(key).get("graph").await;
        }
        self.next = 0;
    }

    async fn round(&mut self) {
        // Once over all users, so that the processor's caches hold what they can of this case.
        self.run(USERS).await;
        let cpu = cpu_time();
        let mut times = self.run(REQUESTS).await;
        let cpu = (cpu_time() - cpu).as_nanos() as f64 / REQUESTS as f64;
        self.cpu.push(cpu);
        self.ns.push(median(&mut times));
        self.p99.push(times[REQUESTS * 99 / 100]);
    }

    /// Nanoseconds of each.
    async fn run(&mut self, requests: usize) -> Vec<f64> {
        let mut times = Vec::with_capacity(requests);
        for _ in 0..requests {
            let request = Request::get("/read").header(COOKIE, self.cookies[self.next].clone());
            let request = request.body(Body::empty()).unwrap();
            let start = Instant::now();
            let response = self.router.call(request).await.unwrap();
            assert!(response.status().is_success());
            black_box(to_bytes(response.into_body(), 1024).await.unwrap());
            times.push(start.elapsed().as_nanos() as f64);
            self.next = (self.next + STRIDE) % USERS;
        }
        times
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let servers =
        [Health::Healthy, Health::Hung, Health::Dead].map(|health| (health, Redis::start()));
    let cases = runtime.block_on(async {
        let mut cases = Vec::new();
        for (health, redis) in &servers {
            cases.push(Case::new(redis, *health).await);
        }
        // Until what they have just written is compared with what their stores tell of it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (health, redis) in &servers {
            match health {
                Health::Healthy => {}
                Health::Hung => redis.signal(libc::SIGSTOP),
                Health::Dead => redis.signal(libc::SIGKILL),
            }
        }
        for case in cases
            .iter_mut()
            .filter(|case| case.health != Health::Healthy)
        {
            case.outage_is_known().await;
        }
        for round in 0..=ROUNDS {
            for index in 0..cases.len() {
                let turn = (index + round) % cases.len();
                cases[turn].round().await;
            }
            if round == 0 {
                // The first round warms up.
                for case in &mut cases {
                    (case.ns, case.p99, case.cpu) = Default::default();
                }
            }
        }
        cases
    });
    let holds = report(&cases);
    drop(cases);
    drop(runtime);
    // Stopped ones would stay.
    drop(servers);
    std::process::exit(i32::from(!holds));
}

fn report(cases: &[Case]) -> bool {
    println!("{USERS} users of 7 KiB, all in L1; {ROUNDS} rounds of {REQUESTS}; medians\n");
    println!(
        "{:<10} {:>9} {:>9} {:>9}",
        "Redis", "ns", "p99 ns", "CPU ns"
    );
    for case in cases {
        println!(
            "{:<10} {:>9.0} {:>9.0} {:>9.0}",
            format!("{:?}", case.health).to_lowercase(),
            median(&mut case.ns.clone()),
            median(&mut case.p99.clone()),
            median(&mut case.cpu.clone()),
        );
    }
    println!();
    let mut holds = true;
    for case in cases.iter().filter(|case| case.health != Health::Healthy) {
        let is_base = |base: &&Case| base.health == Health::Healthy;
        let base = cases.iter().find(is_base).expect("a healthy one");
        let ratios = case.ns.iter().zip(&base.ns).map(|(ns, base)| ns / base);
        let what = format!(
            "L1 hit, Redis {} / healthy",
            format!("{:?}", case.health).to_lowercase(),
        );
        holds &= bar(
            &what,
            median(&mut ratios.collect::<Vec<_>>()),
            1.0 + NOISE,
            false,
        );
    }
    holds
}
