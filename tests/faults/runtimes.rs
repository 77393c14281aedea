//! The cache depends on no runtime of its callers: one that ends, is blocked, or is none at all
//! holds up nobody else.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;
use tower_token_cache::{
    Acquisitions, BoxError, Builder, Durability, Error, FailurePolicy, KeyRing, L1, Lifetimes,
    Lookup, MemoryStore, OnFailure, Prior, RedisStore, ShutdownReport, Timeouts, TokenCache,
    TokenCacheLayer, TokenSet, TokenStore, Tokens, WriteMode, key,
};

use common::http_client::Connection;
use common::support::{
    RedisServer, TestStore, access, eventually, redis_store, session, stored, token,
};

fn multi() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

fn single() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn build(store: impl TokenStore) -> TokenCache {
    TokenCache::builder(store).build().unwrap()
}

async fn answer(_: Prior) -> Result<TokenSet, BoxError> {
    Ok(token("acquired").into())
}

/// Everything that a request may do works, and is in L2 on return.
async fn works(cache: &TokenCache, name: &str) {
    let tokens = cache.tokens(session(name));
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Absent);
    tokens.insert("graph", token("t")).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
    let acquired = tokens.get_or_acquire("mail", answer).await.unwrap();
    assert_eq!(acquired.access_token(), "acquired");
    let moved = tokens.move_to(session(&format!("{name}-moved"))).await;
    let moved = moved.unwrap();
    moved.link_user("ada").await.unwrap();
    assert_eq!(access(&moved, "graph").await.as_deref(), Some("t"));
    assert_eq!(moved.sign_out().await.unwrap(), Durability::Stored);
}

/// A thread with a runtime of its own that does nothing else until it is told to.
struct Blocked {
    release: Sender<()>,
    thread: JoinHandle<()>,
}

impl Blocked {
    /// Runs `first` there, and then blocks the runtime. Returns when it is blocked.
    fn after<T: Send + 'static>(
        runtime: Runtime,
        first: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> (Self, T) {
        let (release, released) = mpsc::channel();
        let (sender, output) = mpsc::channel();
        let thread = thread::spawn(move || {
            let output = runtime.block_on(first());
            runtime.block_on(block(sender, output, released));
        });
        (Self { release, thread }, output.recv().unwrap())
    }

    fn release(self) {
        self.release.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// As a handler does that waits for something without `await`.
async fn block<T>(sender: Sender<T>, output: T, released: Receiver<()>) {
    sender.send(output).unwrap();
    released.recv().unwrap();
}

#[test]
fn a_runtime_that_ends_takes_nothing_along() {
    let store = TestStore::default();
    let first = multi();
    let cache = first.block_on(async {
        let cache = build(store.clone());
        works(&cache, "first").await;
        cache
    });
    drop(first);
    multi().block_on(async {
        works(&cache, "second").await;
        assert_eq!(cache.shutdown(Duration::from_secs(5)).await.abandoned, 0);
    });
}

#[test]
fn ten_runtimes_after_one_another_use_one_cache() {
    let redis = RedisServer::start();
    let cache = single().block_on(async { build(redis_store(&redis).await) });
    for number in 0..10 {
        let runtime = if number % 2 == 0 { single() } else { multi() };
        runtime.block_on(works(&cache, &format!("{number}")));
        // A connection may still be in use by a task that ends with its runtime.
        runtime.shutdown_background();
    }
    assert_eq!(cache.stats().l2_errors, 0);
}

#[test]
fn a_runtime_that_is_blocked_holds_up_nobody_else() {
    let redis = RedisServer::start();
    let url = redis.url();
    let (blocked, cache) = Blocked::after(single(), async move || {
        let store = RedisStore::connect(url).await.unwrap();
        let cache = build(store);
        works(&cache, "before").await;
        // Under way when the runtime is blocked.
        let tokens = cache.tokens(session("left"));
        tokens.insert("graph", token("left")).await.unwrap();
        cache
    });
    multi().block_on(async {
        let others = async {
            for number in 0..20 {
                works(&cache, &format!("{number}")).await;
            }
            eventually("what was left is written", async || {
                cache.stats().pending_changes == 0
            })
            .await;
        };
        others.await;
    });
    assert_eq!(cache.stats().l2_errors, 0);
    blocked.release();
}

#[test]
fn an_acquire_function_runs_where_it_was_made_and_blocks_nobody_else() {
    let cache = build(TestStore::default());
    let there = cache.clone();
    let runtime = single();
    let id = runtime.handle().id();
    let (started, has_started) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        runtime.block_on(async {
            let tokens = there.tokens(session("slow"));
            let acquired = tokens.get_or_acquire("graph", async move |_: Prior| {
                started.send(Handle::current().id()).unwrap();
                released.recv().unwrap();
                answer_now().await
            });
            acquired.await.unwrap().access_token().to_owned()
        })
    });
    assert_eq!(has_started.recv().unwrap(), id);
    multi().block_on(works(&cache, "other"));
    release.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), "acquired");
}

async fn answer_now() -> Result<TokenSet, BoxError> {
    // A timer and a task of the runtime that the function runs on.
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(tokio::spawn(async { token("acquired").into() }).await?)
}

#[test]
fn who_waits_for_the_call_of_a_runtime_that_ends_makes_their_own() {
    let cache = build(TestStore::default());
    let first = single();
    let started = Arc::new(Notify::new());
    let has_started = started.clone();
    let there = cache.clone();
    first.block_on(async move {
        tokio::spawn(async move {
            let hangs = async move |_: Prior| {
                started.notify_one();
                std::future::pending::<Result<TokenSet, BoxError>>().await
            };
            let _ = there
                .tokens(session("s"))
                .get_or_acquire("graph", hangs)
                .await;
        });
        has_started.notified().await;
    });
    let second = multi();
    let (joined, has_joined) = mpsc::channel();
    let there = cache.clone();
    let waiter = second.spawn(async move {
        let tokens = there.tokens(session("s"));
        let mut acquiring = pin!(tokens.get_or_acquire("graph", answer));
        let once = std::future::poll_fn(|context| Poll::Ready(acquiring.as_mut().poll(context)));
        assert!(once.await.is_pending());
        joined.send(()).unwrap();
        acquiring.await
    });
    has_joined.recv().unwrap();
    drop(first);
    let acquired = second.block_on(waiter).unwrap().unwrap();
    assert_eq!(acquired.access_token(), "acquired");
}

#[test]
fn there_need_be_no_runtime_at_all() {
    let store = TestStore::default();
    let cache = build(store.clone());
    block_on(async {
        works(&cache, "s").await;
        let tokens = cache.tokens(session("s"));
        assert!(tokens.reload().await.unwrap());
        tokens.insert("graph", token("t")).await.unwrap();
        assert_eq!(tokens.keys().await.unwrap().len(), 1);
        assert_eq!(
            cache.sign_out_user("ada").await.unwrap(),
            Durability::Stored
        );
        cache.sign_out_all().await.unwrap();
        store.hang();
        // What hangs ends in time, too.
        let other = cache.tokens(session("other"));
        assert_eq!(other.get("graph").await.unwrap(), Lookup::Unavailable);
        store.wake();
        cache.shutdown(Duration::from_secs(5)).await;
    });
}

/// An executor that is not tokio's.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_thread_is_left_of_caches_that_are_dropped() {
    let runtime = single();
    let (_guard, started) = (runtime.enter(), Instant::now());
    for number in 0..1_000 {
        // In a context where no runtime may be dropped.
        runtime.block_on(async {
            let cache = build(TestStore::default());
            let tokens = cache.tokens(session("s"));
            if number % 10 == 0 {
                tokens.insert("graph", token("t")).await.unwrap();
            }
        });
    }
    assert!(started.elapsed() < Duration::from_secs(60));
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| {
            let path = task.unwrap().path().join("comm");
            std::fs::read_to_string(path).ok()
        });
        names.filter(|name| name.starts_with("token-cache")).count()
    };
    // Other tests of this process have some.
    let few = async || threads() < 20;
    runtime.block_on(eventually("the threads end", few));
}

/// Each public call ends by itself, when its engine does nothing at all.
async fn ends_in_time(cache: &TokenCache) {
    let limit = Duration::from_millis(200);
    let in_time = async |what: &str, call: &mut dyn FnMut() -> BoxFuture<'static>| {
        let started = Instant::now();
        call().await;
        let took = started.elapsed();
        let limit = match what {
            // A turn, a call, and what is read and written around them.
            "get_or_acquire" => limit * 5,
            _ => limit,
        };
        assert!(
            took < limit + Duration::from_millis(600),
            "{what}: {took:?}"
        );
    };
    macro_rules! each {
        ($($what:literal: |$tokens:ident, $cache:ident| $call:expr;)*) => {$({
            let there = cache.clone();
            in_time($what, &mut move || {
                let $cache = there.clone();
                Box::pin(async move {
                    let $tokens = $cache.tokens(session("s"));
                    let _ = &$tokens;
                    let _ = $call;
                })
            })
            .await;
        })*};
    }
    each! {
        "get": |tokens, cache| tokens.get("graph").await;
        "refresh_token": |tokens, cache| tokens.refresh_token().await;
        "contains": |tokens, cache| tokens.contains("graph").await;
        "keys": |tokens, cache| tokens.keys().await;
        "reload": |tokens, cache| tokens.reload().await;
        "insert": |tokens, cache| tokens.insert("graph", token("t")).await;
        "remove": |tokens, cache| tokens.remove("graph").await;
        "commit": |tokens, cache| tokens.commit().await;
        "get_or_acquire": |tokens, cache| tokens.get_or_acquire("mail", answer).await;
        "move_to": |tokens, cache| tokens.move_to(session("new")).await;
        "link_user": |tokens, cache| tokens.link_user("ada").await;
        "sign_out": |tokens, cache| tokens.sign_out().await;
        "sessions_of": |tokens, cache| cache.sessions_of("ada").await;
        "sign_out_user": |tokens, cache| cache.sign_out_user("ada").await;
        "sign_out_all": |tokens, cache| cache.sign_out_all().await;
        "shutdown": |tokens, cache| cache.shutdown(Duration::from_millis(200)).await;
    }
}

type BoxFuture<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

fn on(runtime: &Handle, store: impl TokenStore) -> TokenCache {
    TokenCache::builder(store)
        .runtime(runtime.clone())
        .timeouts(
            Timeouts::new()
                .attempt(Duration::from_millis(50))
                .operation(Duration::from_millis(200)),
        )
        .acquisitions(
            Acquisitions::new()
                .timeout(Duration::from_millis(100))
                .lease_ttl(Duration::from_millis(100)),
        )
        .build()
        .unwrap()
}

#[test]
fn every_call_ends_in_time_when_the_engine_is_blocked() {
    let (blocked, cache) = Blocked::after(single(), async || {
        on(&Handle::current(), TestStore::default())
    });
    multi().block_on(ends_in_time(&cache));
    blocked.release();
}

#[test]
fn every_call_ends_in_time_when_the_engine_has_ended_and_stats_say_so() {
    let runtime = multi();
    let cache = on(runtime.handle(), TestStore::default());
    assert!(cache.stats().engine_alive);
    drop(runtime);
    multi().block_on(ends_in_time(&cache));
    assert!(!cache.stats().engine_alive);
}

#[test]
fn a_name_stands_for_one_set_of_settings() {
    let named = |builder: Builder| TokenCache::shared("settings", builder);
    let memory = || TokenCache::builder(TestStore::default());
    let first = named(memory()).unwrap();
    assert!(named(memory().timeouts(Timeouts::new().operation(Duration::from_secs(1)))).is_ok());
    assert!(named(memory().lifetimes(Lifetimes::new().absolute(None))).is_ok());
    let others = [
        ("store", TokenCache::builder(MemoryStore::new())),
        ("namespace", memory().namespace("another")),
        ("key_ring", memory().key_ring(KeyRing::generate().unwrap())),
        ("l1", memory().l1(L1::disabled())),
        (
            "lifetimes",
            memory().lifetimes(Lifetimes::new().sliding(Duration::from_secs(60))),
        ),
        (
            "lifetimes",
            memory().lifetimes(Lifetimes::new().negative_entry(Duration::ZERO)),
        ),
        (
            "failure_policy",
            memory().failure_policy(FailurePolicy::Strict),
        ),
        ("write_mode", memory().write_mode(WriteMode::BeforeResponse)),
        (
            "on_l2_failure",
            memory().on_l2_failure(|_| OnFailure::Policy),
        ),
        (
            "timeouts",
            memory().timeouts(Timeouts::new().attempt(Duration::from_millis(1))),
        ),
        ("max_pending", memory().max_pending_changes(1)),
        (
            "acquisitions",
            memory().acquisitions(Acquisitions::new().max(1)),
        ),
        ("runtime", memory().runtime(single().handle().clone())),
    ];
    for (option, builder) in others {
        assert_eq!(named(builder).unwrap_err().option(), option);
    }
    drop(first);
    let second = named(memory().namespace("another")).unwrap();
    assert_eq!(named(memory()).unwrap_err().option(), "namespace");
    block_on(second.shutdown(Duration::from_secs(5)));
    assert!(named(memory()).is_ok(), "the name is free again");
}

#[test]
fn one_server_is_not_taken_for_another() {
    let named = |url: &str| {
        let store = RedisStore::builder(url).build().unwrap();
        TokenCache::shared("servers", TokenCache::builder(store))
    };
    let _first = named("redis://127.0.0.1:1").unwrap();
    assert!(named("redis://127.0.0.1:1").is_ok());
    let other = named("redis://127.0.0.1:2").unwrap_err();
    assert_eq!(other.option(), "store");
    assert!(!format!("{other} {other:?}").contains("127.0.0.1"));
}

#[test]
fn workers_that_ask_for_a_name_at_once_get_one_cache() {
    let threads: Vec<_> = (0..8)
        .map(|_| thread::spawn(|| shared("at once", TokenCache::builder(TestStore::default()))))
        .collect();
    let caches = threads.into_iter().map(|thread| thread.join().unwrap());
    let caches: Vec<_> = caches.collect();
    block_on(async {
        let tokens = caches[0].tokens(session("s"));
        tokens.insert("graph", token("t")).await.unwrap();
        for cache in &caches {
            let found = access(&cache.tokens(session("s")), "graph").await;
            assert_eq!(found.as_deref(), Some("t"));
        }
    });
}

/// Two workers, one cache made in the factory that each of them runs.
struct Server {
    store: TestStore,
    cache: Arc<Mutex<Option<TokenCache>>>,
    address: SocketAddr,
    handle: ServerHandle,
}

impl Server {
    fn start(name: &'static str) -> Self {
        async fn me(tokens: Tokens) -> Result<String, Error> {
            Ok(format!("{:?}", tokens.get("graph").await?))
        }
        async fn put(tokens: Tokens) -> Result<&'static str, Error> {
            tokens.insert("graph", token("t")).await?;
            Ok("kept")
        }
        let store = TestStore::default();
        let cache = Arc::<Mutex<Option<TokenCache>>>::default();
        let (inner, kept) = (store.clone(), cache.clone());
        let server = HttpServer::new(move || {
            let shared = shared(name, TokenCache::builder(inner.clone()));
            *kept.lock().unwrap() = Some(shared.clone());
            let by = key::header("x-session");
            App::new()
                .wrap(TokenCacheLayer::new(shared, by))
                .route("/me", web::get().to(me))
                .route("/put", web::get().to(put))
                .route("/block", web::get().to(block_worker))
        });
        let server = server.workers(2).disable_signals();
        let server = server.bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self {
            store,
            cache,
            address,
            handle,
        }
    }

    async fn get(&self, path: &str, sid: &str) -> Option<String> {
        let headers = format!("x-session: {sid}\r\nconnection: close\r\n");
        let connection = Connection::send(self.address, "GET", path, &headers).await;
        Some(connection.response().await?.body)
    }
}

fn shared(name: &str, builder: Builder) -> TokenCache {
    TokenCache::shared(name, builder).unwrap()
}

static BLOCKED: AtomicUsize = AtomicUsize::new(0);

async fn block_worker() -> &'static str {
    BLOCKED.fetch_add(1, Ordering::SeqCst);
    thread::sleep(Duration::from_secs(8));
    "blocked"
}

#[actix_web::test]
async fn a_handler_that_blocks_its_worker_holds_up_no_other() {
    let server = Server::start("blocked");
    // One for each worker: the engine is on neither.
    let headers = "x-session: b\r\nconnection: close\r\n";
    let mut blocking = Vec::new();
    for _ in 0..2 {
        blocking.push(Connection::send(server.address, "GET", "/block", headers).await);
    }
    eventually("both workers are blocked", async || {
        BLOCKED.load(Ordering::SeqCst) == 2
    })
    .await;
    let cache = server.cache.lock().unwrap().clone().unwrap();
    let started = Instant::now();
    for number in 0..20 {
        works(&cache, &format!("{number}")).await;
    }
    assert!(started.elapsed() < Duration::from_secs(4));
    server.handle.stop(false).await;
}

#[actix_web::test]
async fn a_graceful_stop_abandons_nothing() {
    let server = Server::start("stopped");
    assert!(server.get("/me", "warm").await.is_some());
    server.store.hang();
    let puts = (0..300).map(async |number| {
        // The answer needs a read, which hangs until its time is up.
        server.get("/put", &format!("{number}")).await
    });
    futures_util::future::join_all(puts).await;
    server.handle.stop(true).await;
    let cache = server.cache.lock().unwrap().clone().unwrap();
    assert!(cache.stats().pending_changes > 0);
    server.store.wake();
    let started = Instant::now();
    let ShutdownReport { abandoned, .. } = cache.shutdown(Duration::from_secs(20)).await;
    assert_eq!(abandoned, 0);
    assert!(started.elapsed() < Duration::from_secs(10));
    for number in [0, 150, 299] {
        let found = stored(server.store.clone(), &format!("{number}"), "graph").await;
        assert_eq!(found.as_deref(), Some("t"));
    }
}
