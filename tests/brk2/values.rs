//! Session values, and moves.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use common::store::TestStore;
use common::support::*;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{FailurePolicy, Lookup, TokenCacheLayer, Tokens, WriteMode, key};

const HOUR: Duration = Duration::from_secs(3600);

async fn take(tokens: &Tokens) -> Lookup<String> {
    tokens.take("login").await.unwrap()
}

/// FailurePolicy::Strict: "Changes are committed before the response head, and a commit that fails turns the response
/// into 503". The change is made by the handle that `move_to` has returned.
#[tokio::test]
async fn strict_holds_for_the_handle_of_a_move() {
    let mut statuses = Vec::new();
    for moves in [false, true] {
        let store = TestStore::default();
        let cache = cache(store.clone());
        let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
        let layer = layer.failure_policy(FailurePolicy::Strict);
        let begun = cache.tokens(session("old"));
        begun.insert("api", token("t")).await.unwrap();
        assert_stored(begun.commit().await.unwrap());
        let inner = service_fn(async |request: Request<()>| {
            let mut tokens = request.extensions().get::<Tokens>().unwrap().clone();
            if moves {
                tokens = tokens.move_to(session("new")).await.unwrap();
            }
            tokens.insert("more", token("m")).await.unwrap();
            store.set_refusing_commits(true);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Request::post("/").header("cookie", "sid=old").body(());
        let response = layer.layer(inner).oneshot(request.unwrap()).await.unwrap();
        statuses.push(response.status());
    }
    let refused = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(statuses, [refused, refused], "as it came, and moved");
}

/// put: "in L2 before the response head: the browser may come back to another instance"; remove: "before the response
/// head is sent"; and WriteMode::BeforeResponse. With the handle that `move_to` has returned.
#[tokio::test]
async fn a_change_by_the_handle_of_a_move_is_in_l2_before_the_head() {
    let mut missing = Vec::new();
    for (moves, how) in [
        (false, "put"),
        (true, "put"),
        (true, "remove"),
        (true, "insert"),
    ] {
        let store = TestStore::default();
        let cache = cache(store.clone());
        let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
        let layer = layer.write_mode(WriteMode::BeforeResponse);
        let begun = cache.tokens(session("old"));
        begun.insert("api", token("t")).await.unwrap();
        assert_stored(begun.commit().await.unwrap());
        let inner = service_fn(async |request: Request<()>| {
            let mut tokens = request.extensions().get::<Tokens>().unwrap().clone();
            if moves {
                tokens = tokens.move_to(session("new")).await.unwrap();
            }
            match how {
                "put" => tokens.put("login", "state", HOUR).await.unwrap(),
                "insert" => tokens.insert("more", token("m")).await.unwrap(),
                _ => tokens.remove("api").await.unwrap(),
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Request::post("/").header("cookie", "sid=old").body(());
        let before = store.commits();
        let response = layer.layer(inner).oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        if store.commits() == before {
            missing.push((moves, how));
        }
    }
    assert!(missing.is_empty(), "not in L2 with the head: {missing:?}");
}

/// README: "A session id that the store does not have … leaves nothing behind". Asked for a value, for its keys, to remove
/// what is not there.
#[tokio::test]
async fn an_invented_id_leaves_nothing_behind() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    // The namespace has a record of its own.
    assert!(
        cache
            .tokens(session("first"))
            .keys()
            .await
            .unwrap()
            .is_empty()
    );
    let before: u64 = server.query("DBSIZE");
    for number in 0..20 {
        let tokens = cache.tokens(session(&format!("invented{number}")));
        assert!(!take(&tokens).await.is_hit());
        assert!(!tokens.value::<String>("login").await.unwrap().is_hit());
        assert!(tokens.keys().await.unwrap().is_empty());
        assert!(tokens.reload().await.unwrap());
        assert_stored(tokens.commit().await.unwrap());
    }
    let read: u64 = server.query("DBSIZE");
    for number in 0..20 {
        let tokens = cache.tokens(session(&format!("invented{number}")));
        tokens.remove("api").await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    let removed: u64 = server.query("DBSIZE");
    assert_eq!((read - before, removed - read), (0, 0), "read, and removed");
}
