//! What one request costs in process, with and without this crate, beside its peers.
//!
//! All cases run in one process, in rounds that take turns, so that drift of the machine cancels.
//! Requests are made and awaited on the main thread; the runtime's two workers do what the stacks
//! defer or delegate (ours: the flush to L2; tower-sessions: the Redis client's I/O).

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::header::COOKIE;
use axum::http::{HeaderValue, Request};
use axum::routing::{get, post};
use axum::{Extension, Router};
use moka::policy::EvictionPolicy;
use peers::alloc::{self, Count, Counting};
use peers::process::cpu_time;
use peers::redis::Redis;
use peers::report::{bar, median};
use peers::users::{ACCESS, STRIDE, USERS, UserTokens, issue_set, session_id};
use tower::ServiceExt;
use tower_sessions::{CachingSessionStore, MemoryStore as SessionMemory, Session};
use tower_token_cache::{
    Error, L1, MemoryStore, PartitionKey, RedisStore, TokenCache, TokenCacheLayer, Tokens, key,
};

#[path = "request/floor.rs"]
mod floor;
#[path = "request/no_op.rs"]
mod no_op;
#[path = "request/sessions.rs"]
mod sessions;

use floor::{Floor, FloorLayer};
use no_op::NoOpLayer;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 21;
const READS: usize = 10_000;
/// How many users' requests touch nothing: whose they are does not matter to a layer that looks
/// nobody up, and in a server the head has just been parsed, and is in the processor's cache.
const UNTOUCHED: usize = 100;
/// Few enough to fit the bound on pending changes, so that no request waits for L2.
const WRITES: usize = 2_000;

/// In so many processes the untouched request is compared with the no-op layer's: where code and
/// data come to lie in one of them moves the ratio by a tenth.
const PROCESSES: usize = 21;
/// The argument of such a process.
const RATIO: &str = "--ratio";

struct Case {
    stack: &'static str,
    path: &'static str,
    requests: usize,
    users: usize,
    work: Work,
    next: usize,
    ns: Vec<f64>,
    cpu: Vec<f64>,
    count: Count,
}

enum Work {
    Requests {
        router: Router,
        cookies: Arc<[HeaderValue]>,
        /// Whose deferred work ends before the next case begins.
        drain: Option<TokenCache>,
    },
    /// Nothing but a get: the bottom of any floor.
    Get {
        cache: floor::Cache,
        keys: Vec<String>,
    },
}

impl Case {
    /// The first round: everything is warm after it, and its allocations are counted.
    async fn first_round(&mut self) {
        let requests = self.requests;
        self.count = alloc::count_per_call(requests, self.run(requests)).await;
        self.drain().await;
    }

    async fn round(&mut self) {
        if self.path != "/write" {
            // Once over all users: the processor's caches hold what they can of this stack's
            // memory, whichever stack had its turn before.
            self.run(USERS).await;
        }
        let (cpu, start) = (cpu_time(), Instant::now());
        self.run(self.requests).await;
        let elapsed = start.elapsed();
        self.drain().await;
        let requests = self.requests as f64;
        self.ns.push(elapsed.as_nanos() as f64 / requests);
        self.cpu
            .push((cpu_time() - cpu).as_nanos() as f64 / requests);
    }

    async fn drain(&self) {
        if let Work::Requests {
            drain: Some(cache), ..
        } = &self.work
        {
            while cache.stats().pending_changes > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn run(&mut self, requests: usize) {
        match &mut self.work {
            Work::Requests {
                router, cookies, ..
            } => {
                for _ in 0..requests {
                    // As parsing has, the text of the head is read before any layer reads it.
                    let text = cookies[self.next].as_bytes().iter();
                    black_box(text.fold(0, |all, byte| all ^ byte));
                    let request = Request::builder()
                        .method(if self.path == "/write" { "POST" } else { "GET" })
                        .uri(self.path)
                        .header(COOKIE, cookies[self.next].clone())
                        .body(Body::empty())
                        .unwrap();
                    let response = router.clone().oneshot(request).await.unwrap();
                    assert!(response.status().is_success());
                    black_box(to_bytes(response.into_body(), 1024).await.unwrap());
                    self.next = (self.next + STRIDE) % self.users;
                }
            }
            Work::Get { cache, keys } => {
                for _ in 0..requests {
                    black_box(cache.get(keys[self.next].as_str()).unwrap());
                    self.next = (self.next + STRIDE) % self.users;
                }
            }
        }
    }
}

/// The handlers of a stack that has no tokens.
fn bare() -> Router {
    Router::new()
        .route("/untouched", get(async || "ok"))
        .route("/read", get(async || black_box(ACCESS).to_string()))
        .route("/write", post(async || "ok"))
}

fn ours() -> Router {
    async fn read(tokens: Tokens) -> Result<String, Error> {
        let token = tokens
            .get("graph")
            .await?
            .hit()
            .expect("every user has one");
        Ok(token.access_token().len().to_string())
    }
    async fn write(tokens: Tokens) -> Result<&'static str, Error> {
        tokens.insert("graph", issue_set()).await?;
        Ok("ok")
    }
    Router::new()
        .route("/untouched", get(async || "ok"))
        .route("/read", get(read))
        .route("/write", post(write))
}

fn with_floor() -> Router {
    async fn read(Extension(handle): Extension<Arc<Floor>>) -> String {
        handle
            .tokens
            .as_ref()
            .expect("every user has some")
            .access_token
            .len()
            .to_string()
    }
    async fn write(Extension(handle): Extension<Arc<Floor>>) -> &'static str {
        handle.insert(UserTokens::issue());
        "ok"
    }
    Router::new()
        .route("/untouched", get(async || "ok"))
        .route("/read", get(read))
        .route("/write", post(write))
}

fn with_sessions() -> Router {
    async fn read(session: Session) -> String {
        let tokens: UserTokens = session
            .get("graph")
            .await
            .unwrap()
            .expect("every user has some");
        tokens.access_token.len().to_string()
    }
    async fn write(session: Session) -> &'static str {
        session.insert("graph", UserTokens::issue()).await.unwrap();
        "ok"
    }
    Router::new()
        .route("/untouched", get(async || "ok"))
        .route("/read", get(read))
        .route("/write", post(write))
}

/// A cache with every user in L1 and in L2. Reads in the background are off: rounds are seconds
/// apart, so that nearly every hit would start one, which no real load does.
async fn warm(store: impl tower_token_cache::TokenStore) -> TokenCache {
    let l1 = L1::new().revalidate_every(None);
    let cache = TokenCache::builder(store).l1(l1).build().unwrap();
    for user in 0..USERS {
        let key = PartitionKey::session(session_id(user)).unwrap();
        cache
            .tokens(key)
            .insert("graph", issue_set())
            .await
            .unwrap();
    }
    while cache.stats().pending_changes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cache
}

async fn cases(redis: &Redis) -> Vec<Case> {
    let ours_ids: Arc<[HeaderValue]> = (0..USERS)
        .map(|user| sessions::cookie(&session_id(user)))
        .collect();
    let mut cases = Vec::new();
    let mut add = |stack,
                   paths: &[&'static str],
                   router: Router,
                   cookies: &Arc<[_]>,
                   drain: Option<&TokenCache>| {
        cases.extend(paths.iter().map(|path| Case {
            stack,
            path,
            requests: if *path == "/write" { WRITES } else { READS },
            users: if *path == "/untouched" {
                UNTOUCHED
            } else {
                USERS
            },
            work: Work::Requests {
                // As `axum::serve` does, once for all requests.
                router: router.clone().with_state(()),
                cookies: Arc::clone(cookies),
                drain: drain.cloned(),
            },
            next: 0,
            ns: Vec::new(),
            cpu: Vec::new(),
            count: Count::default(),
        }));
    };
    let all = ["/untouched", "/read", "/write"];
    add(NO_LAYER, &all, bare(), &ours_ids, None);
    add(NO_OP, &all, bare().layer(NoOpLayer), &ours_ids, None);

    let floor: floor::Cache = moka::sync::Cache::builder()
        .max_capacity(500 << 20)
        .weigher(|_, tokens: &Arc<UserTokens>| tokens.footprint())
        .eviction_policy(EvictionPolicy::lru())
        .build();
    for user in 0..USERS {
        floor.insert(session_id(user).into(), Arc::new(UserTokens::issue()));
    }
    add(
        FLOOR,
        &all,
        with_floor().layer(FloorLayer::new(floor.clone())),
        &ours_ids,
        None,
    );

    let cache = warm(MemoryStore::new()).await;
    let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
    add(OURS, &all, ours().layer(layer), &ours_ids, Some(&cache));

    let store = RedisStore::connect(redis.url()).await.unwrap();
    let cache = warm(store).await;
    let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
    add(
        OURS_REDIS,
        &["/read", "/write"],
        ours().layer(layer),
        &ours_ids,
        Some(&cache),
    );

    let (ids, layer) = sessions::layer(SessionMemory::default()).await;
    add(MEMORY, &all, with_sessions().layer(layer), &ids, None);

    let (ids, layer) = sessions::layer(CachingSessionStore::new(
        tower_sessions_moka_store::MokaStore::new(Some(2 * USERS as u64)),
        sessions::redis(&redis.url()).await,
    ))
    .await;
    add(
        CACHING,
        &["/read", "/write"],
        with_sessions().layer(layer),
        &ids,
        None,
    );

    cases.push(Case {
        stack: "moka",
        path: "get",
        requests: READS,
        users: USERS,
        work: Work::Get {
            cache: floor,
            keys: (0..USERS).map(session_id).collect(),
        },
        next: 0,
        ns: Vec::new(),
        cpu: Vec::new(),
        count: Count::default(),
    });
    cases
}

const NO_LAYER: &str = "no layer";
const NO_OP: &str = "no-op layer";
const FLOOR: &str = "floor (moka)";
const OURS: &str = "ours, L2 memory";
const OURS_REDIS: &str = "ours, L2 Redis";
const MEMORY: &str = "tower-sessions, MemoryStore";
const CACHING: &str = "tower-sessions, caching (moka, Redis)";

fn main() {
    // For a profiler: only the cases whose name, such as "ours, L2 memory/read", contains this.
    let only = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let is_ratio = only.as_deref() == Some(RATIO);
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let cases = runtime.block_on(async {
        let mut cases = cases(&redis).await;
        if is_ratio {
            cases.retain(|case| case.path == "/untouched" && [NO_OP, OURS].contains(&case.stack));
        } else if let Some(only) = &only {
            cases.retain(|case| format!("{}{}", case.stack, case.path).contains(only));
        }
        for case in &mut cases {
            case.first_round().await;
        }
        for round in 0..ROUNDS {
            for index in 0..cases.len() {
                let turn = (index + round) % cases.len();
                cases[turn].round().await;
            }
        }
        cases
    });
    drop(redis);
    match is_ratio {
        true => println!(
            "{}",
            beside_no_op(&cases, &cases[1], |ours, no_op| ours / no_op)
        ),
        false => report(&cases, only.is_some()),
    }
}

/// What another process of this benchmark measures.
fn ratio() -> f64 {
    let program = std::env::current_exe().expect("this program");
    let mut process = Command::new(program);
    let output = process.arg(RATIO).stderr(Stdio::inherit()).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("a number");
    text.trim().parse().expect("a number")
}

/// A case beside the no-op layer's, round by round.
fn beside_no_op(cases: &[Case], case: &Case, compare: fn(f64, f64) -> f64) -> f64 {
    let base = cases
        .iter()
        .find(|it| it.stack == NO_OP && it.path == case.path);
    let Some(base) = base else { return f64::NAN };
    let rounds = case.ns.iter().zip(&base.ns);
    median(&mut rounds.map(|(a, b)| compare(*a, *b)).collect::<Vec<_>>())
}

fn report(cases: &[Case], filtered: bool) {
    let case = |stack, path| {
        cases
            .iter()
            .find(|c| c.stack == stack && c.path == path)
            .unwrap()
    };
    let added = |case: &Case| beside_no_op(cases, case, |ours, no_op| ours - no_op);
    let ns = |case: &Case| median(&mut case.ns.clone());
    println!(
        "{USERS} users of 7 KiB; {ROUNDS} rounds; medians; allocations of the requesting thread;"
    );
    println!("CPU of the whole process, deferred work included, without redis-server's\n");
    println!(
        "{:<40} {:<11} {:>9} {:>9} {:>7} {:>8} {:>9}",
        "stack", "case", "ns", "added", "allocs", "bytes", "CPU ns"
    );
    for case in cases {
        println!(
            "{:<40} {:<11} {:>9.0} {:>9.0} {:>7} {:>8} {:>9.0}",
            case.stack,
            case.path.trim_start_matches('/'),
            ns(case),
            added(case),
            case.count.allocations,
            case.count.bytes,
            median(&mut case.cpu.clone()),
        );
    }
    println!();
    if filtered {
        return;
    }
    let mut ratios: Vec<_> = (0..PROCESSES).map(|_| ratio()).collect();
    let middle = median(&mut ratios);
    println!("untouched / no-op layer in {PROCESSES} processes: {ratios:.3?}");
    let hit = case(OURS, "/read");
    let mut holds = bar(
        "untouched / no-op layer, in total, in the middle one",
        middle,
        1.25,
        false,
    );
    holds &= bar(
        "L1 hit adds / floor's read adds",
        added(hit) / added(case(FLOOR, "/read")),
        1.25,
        false,
    );
    holds &= bar(
        "L1 hit: allocations over the no-op layer",
        hit.count.allocations as f64 - case(NO_OP, "/read").count.allocations as f64,
        5.0,
        false,
    );
    holds &= bar(
        "L1 hit adds / tower-sessions MemoryStore read adds",
        added(hit) / added(case(MEMORY, "/read")),
        0.5,
        false,
    );
    for case_ in cases
        .iter()
        .filter(|c| c.stack.starts_with("ours") && c.path == "/write")
    {
        holds &= bar(
            &format!("insert ({}) adds / caching store's write adds", case_.stack),
            added(case_) / added(case(CACHING, "/write")),
            0.1,
            false,
        );
    }
    std::process::exit(i32::from(!holds));
}
