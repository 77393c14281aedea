//! The actix-web middleware keeps the layer's guarantees, on real servers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::{ServerHandle, Service, ServiceResponse};
use actix_web::web::{self, Bytes, Data, Path, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, error, test};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Notify;
use tower_token_cache::{
    Error, FailurePolicy, L1, Lookup, MissingKey, PartitionKey, Token, TokenCache, TokenCacheLayer,
    Tokens, key,
};

use common::http_client::{Connection, Response};
use common::support::TestStore;
use common::{eventually, soon};

const ALICE: &str = "x-session: alice\r\n";

/// A server whose handlers can be held, over a store that can fail.
struct Setup {
    store: TestStore,
    cache: TokenCache,
    address: SocketAddr,
    handle: ServerHandle,
    gate: Data<Gate>,
}

/// Where a handler says how far it has come, and waits to be let on.
#[derive(Default)]
struct Gate {
    reached: Notify,
    open: Notify,
}

impl Setup {
    async fn new() -> Self {
        Self::with(|layer| layer).await
    }

    async fn with(adjust: impl FnOnce(TokenCacheLayer) -> TokenCacheLayer) -> Self {
        let store = TestStore::default();
        let cache = TokenCache::builder(store.clone()).build().unwrap();
        let layer = adjust(TokenCacheLayer::new(cache.clone(), session()));
        let gate = Data::new(Gate::default());
        let data = gate.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .route("/bare", web::get().to(read))
                .service(web::scope("").wrap(layer.clone()).configure(routes))
        })
        .workers(4)
        .h1_allow_half_closed(false)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self {
            store,
            cache,
            address,
            handle,
            gate,
        }
    }

    async fn open(&self, method: &str, path: &str) -> Connection {
        Connection::send(self.address, method, path, ALICE).await
    }

    async fn answer(&self, method: &str, path: &str) -> Response {
        self.answer_with(method, path, ALICE).await
    }

    async fn answer_with(&self, method: &str, path: &str, headers: &str) -> Response {
        let headers = format!("{headers}connection: close\r\n");
        let connection = Connection::send(self.address, method, path, &headers).await;
        connection.response().await.unwrap()
    }

    /// Waits until a handler is where it waits itself.
    async fn reached(&self) {
        soon("a handler is reached", self.gate.reached.notified()).await;
    }

    /// What another instance finds in the store.
    async fn stored(&self, name: &str) -> bool {
        let other = TokenCache::builder(self.store.clone())
            .l1(L1::disabled())
            .build()
            .unwrap();
        let tokens = other.tokens(PartitionKey::session("alice").unwrap());
        tokens.get(name).await.unwrap().is_hit()
    }

    /// Waits until the store has this token.
    async fn eventually_stored(&self, name: &str) {
        eventually("the change is in the store", async || {
            self.stored(name).await
        })
        .await;
    }
}

fn routes(config: &mut ServiceConfig) {
    config
        .route("/anyone", web::get().to(anyone))
        .route("/tokens/{name}", web::get().to(read))
        .route("/tokens/{name}", web::put().to(insert))
        .route("/tokens/{name}", web::delete().to(remove))
        .route("/panic/{name}", web::put().to(insert_and_panic))
        .route("/hang/{name}", web::put().to(insert_and_hang))
        .route("/stream/{name}", web::put().to(insert_while_streaming))
        .service(
            web::resource("/failing/{name}")
                .wrap_fn(|request, inner| {
                    let handler = inner.call(request);
                    async {
                        handler.await?;
                        Err::<ServiceResponse, _>(error::ErrorImATeapot("as the test asked"))
                    }
                })
                .route(web::put().to(insert))
                .route(web::delete().to(remove)),
        );
}

fn session() -> key::Header {
    key::header("x-session")
}

fn token() -> Token {
    Token::new("secret")
}

async fn anyone(tokens: Option<Tokens>) -> &'static str {
    match tokens {
        Some(_) => "someone",
        None => "nobody",
    }
}

async fn read(tokens: Tokens, name: Path<String>) -> Result<String, Error> {
    Ok(match tokens.get(name.as_str()).await? {
        Lookup::Hit(_) => format!("{:?} {:?}", tokens.last_read(), std::thread::current().id()),
        miss => format!("{miss:?}"),
    })
}

async fn insert(tokens: Tokens, name: Path<String>) -> Result<HttpResponse, Error> {
    tokens.insert(name.into_inner(), token()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Its body goes on until the gate is opened.
async fn remove(
    tokens: Tokens,
    name: Path<String>,
    gate: Data<Gate>,
) -> Result<HttpResponse, Error> {
    tokens.remove(name.into_inner()).await?;
    let rest = stream::once(async move {
        gate.open.notified().await;
        Ok::<_, Error>(Bytes::from_static(b"end"))
    });
    let start = stream::iter([Ok(Bytes::from_static(b"start"))]);
    Ok(HttpResponse::Ok().streaming(start.chain(rest)))
}

async fn insert_and_panic(tokens: Tokens, name: Path<String>) -> HttpResponse {
    tokens.insert(name.into_inner(), token()).await.unwrap();
    panic!("as the test asked");
}

async fn insert_and_hang(tokens: Tokens, name: Path<String>, gate: Data<Gate>) -> HttpResponse {
    tokens.insert(name.into_inner(), token()).await.unwrap();
    gate.reached.notify_one();
    std::future::pending().await
}

async fn insert_while_streaming(
    tokens: Tokens,
    name: Path<String>,
    gate: Data<Gate>,
) -> HttpResponse {
    let change = async move {
        tokens.insert(name.into_inner(), token()).await?;
        gate.reached.notify_one();
        gate.open.notified().await;
        Ok::<_, Error>(Bytes::from_static(b"end"))
    };
    let start = stream::iter([Ok(Bytes::from_static(b"start"))]);
    HttpResponse::Ok().streaming(start.chain(stream::once(change)))
}

#[actix_web::test]
async fn all_workers_share_one_l1() {
    let setup = Setup::new().await;
    assert_eq!(setup.answer("PUT", "/tokens/a").await.status, 204);
    let mut threads = HashSet::new();
    for _ in 0..16 {
        let response = setup.answer("GET", "/tokens/a").await;
        let (level, thread) = response.body.split_once(' ').unwrap();
        assert_eq!(level, "L1");
        threads.insert(thread.to_owned());
    }
    assert!(threads.len() > 1, "the test needs several workers");
    assert_eq!(setup.cache.stats().l1_hits, 16);
}

#[actix_web::test]
async fn a_handler_that_demands_tokens_answers_401_to_anonymous_requests() {
    let setup = Setup::new().await;
    let response = setup.answer_with("GET", "/tokens/a", "").await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (401, "sign-in required")
    );
    let response = setup.answer_with("GET", "/anyone", "").await;
    assert_eq!((response.status, response.body.as_str()), (200, "nobody"));
    let response = setup.answer("GET", "/anyone").await;
    assert_eq!((response.status, response.body.as_str()), (200, "someone"));
}

#[actix_web::test]
async fn a_missing_key_may_be_rejected_and_a_bad_one_always_is() {
    let setup = Setup::with(|layer| layer.missing_key(MissingKey::Reject)).await;
    let response = setup.answer_with("GET", "/anyone", "").await;
    assert_eq!((response.status, response.body.as_str()), (401, ""));
    let two_keys = format!("{ALICE}x-session: bob\r\n");
    let response = setup.answer_with("GET", "/anyone", &two_keys).await;
    assert_eq!((response.status, response.body.as_str()), (400, ""));
    assert!(response.head.contains("content-length: 0"));
}

#[actix_web::test]
async fn a_handler_without_the_layer_answers_500() {
    let setup = Setup::new().await;
    assert_eq!(setup.answer("GET", "/bare").await.status, 500);
}

#[actix_web::test]
async fn sizes_pass_through() {
    let setup = Setup::new().await;
    let response = setup.answer("GET", "/anyone").await;
    assert!(
        response.head.contains("content-length: 7"),
        "{}",
        response.head
    );
    setup.gate.open.notify_one();
    let response = setup.answer("PUT", "/stream/a").await;
    assert!(
        response.head.contains("transfer-encoding: chunked"),
        "{}",
        response.head
    );
}

#[actix_web::test]
async fn a_response_without_a_body_is_over_at_once() {
    let setup = Setup::new().await;
    let layer = TokenCacheLayer::new(setup.cache.clone(), session());
    let app = test::init_service(App::new().wrap(layer).configure(routes)).await;
    let request = test::TestRequest::put()
        .uri("/tokens/a")
        .insert_header(("x-session", "alice"));
    // Nobody polls or drops its body.
    let response = test::call_service(&app, request.to_request()).await;
    setup.eventually_stored("a").await;
    drop(response);
}

#[actix_web::test]
async fn changes_do_not_wait_for_the_end_of_a_stream() {
    let setup = Setup::new().await;
    let mut connection = setup.open("PUT", "/stream/a").await;
    connection.receive("start").await;
    setup.reached().await;
    setup.eventually_stored("a").await;
    setup.gate.open.notify_one();
    connection.receive("end").await;
}

#[actix_web::test]
async fn a_panicking_handler_loses_no_change() {
    let setup = Setup::new().await;
    let connection = setup.open("PUT", "/panic/a").await;
    assert!(connection.response().await.is_none());
    setup.eventually_stored("a").await;
    assert_eq!(setup.answer("GET", "/tokens/a").await.status, 200);
}

#[actix_web::test]
async fn a_client_that_hangs_up_on_the_handler_loses_no_change() {
    let setup = Setup::new().await;
    let connection = setup.open("PUT", "/hang/a").await;
    setup.reached().await;
    drop(connection);
    setup.eventually_stored("a").await;
}

#[actix_web::test]
async fn a_client_that_hangs_up_on_the_body_loses_no_change() {
    let setup = Setup::new().await;
    let mut connection = setup.open("PUT", "/stream/a").await;
    connection.receive("start").await;
    setup.reached().await;
    drop(connection);
    setup.eventually_stored("a").await;
}

#[actix_web::test]
async fn removals_are_committed_before_the_head() {
    let setup = Setup::new().await;
    for path in ["/tokens/a", "/failing/a"] {
        setup.answer("PUT", "/tokens/a").await;
        setup.eventually_stored("a").await;
        let commits = setup.store.commits();
        setup.store.hang();
        let mut connection = setup.open("DELETE", path).await;
        eventually("the commit waits", async || setup.store.commits() > commits).await;
        // Time enough for a head that does not wait.
        setup.answer("GET", "/anyone").await;
        assert!(!connection.has_received(), "{path}");
        setup.store.wake();
        // The head is there, while the body goes on.
        connection.receive("\r\n\r\n").await;
        assert!(!setup.stored("a").await, "{path}");
    }
}

#[actix_web::test]
async fn strict_turns_a_failed_commit_into_503_and_keeps_the_change() {
    for path in ["/tokens/a", "/failing/a"] {
        let setup = Setup::with(|layer| layer.failure_policy(FailurePolicy::Strict)).await;
        // Memory knows the partition, so that the handler itself can go on.
        setup.answer("GET", "/tokens/a").await;
        setup.store.set_refusing_commits(true);
        let response = setup.answer("PUT", path).await;
        assert_eq!(response.status, 503, "{path}");
        assert!(
            response.head.contains("retry-after: 1\r\n"),
            "{path}: {}",
            response.head
        );
        setup.store.set_refusing_commits(false);
        setup.eventually_stored("a").await;
    }
}

#[actix_web::test]
async fn errors_tell_the_client_their_status_and_a_few_words() {
    let setup = Setup::with(|layer| layer.failure_policy(FailurePolicy::Strict)).await;
    setup.store.set_down(true);
    let response = setup.answer("GET", "/tokens/a").await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (503, "the token store is unavailable")
    );
    let response = setup.answer("PUT", "/tokens/%01").await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (400, "the token key is not valid")
    );
}

#[actix_web::test]
async fn the_cache_drains_after_the_workers_have_stopped() {
    let setup = Setup::new().await;
    let connection = setup.open("PUT", "/hang/a").await;
    setup.reached().await;
    setup.handle.stop(false).await;
    let report = setup.cache.shutdown(Duration::from_secs(10)).await;
    assert_eq!(report.abandoned, 0);
    assert!(setup.stored("a").await);
    drop(connection);
}
