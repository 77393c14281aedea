//! A session's new id at sign-in: everything moves, in one step, and the old id is worth nothing.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{
    Clock, Durability, Error, FailurePolicy, Lifetimes, Lookup, MemoryStore, Timestamp, Token,
    TokenCache, TokenCacheLayer, TokenSet, Tokens, WriteMode, key,
};

use common::issuer::Issuer;
use common::support::*;

fn signed_in() -> TokenSet {
    TokenSet::from(token("a"))
        .with_refresh_token("r")
        .with_id_token("i")
}

#[tokio::test]
async fn everything_moves_and_the_old_session_is_signed_out() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let old = here.tokens(session("old"));
    old.insert("graph", signed_in()).await.unwrap();
    let late = here.tokens(session("old"));
    assert!(late.refresh_token().await.unwrap().is_hit());
    let new = old.move_to(session("new")).await.unwrap();
    for tokens in [new, cache(store.clone()).tokens(session("new"))] {
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("a"));
        let refresh_token = tokens.refresh_token().await.unwrap().hit();
        assert_eq!(refresh_token.unwrap().expose(), "r");
        assert!(tokens.id_token().await.unwrap().is_hit());
    }
    for tokens in [
        here.tokens(session("old")),
        cache(store).tokens(session("old")),
    ] {
        assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Absent);
        assert_eq!(tokens.refresh_token().await.unwrap(), Lookup::Absent);
    }
    let late = late.insert("graph", token("late")).await;
    assert!(matches!(late, Err(Error::SignedOut)));
    // The handle is of the new partition, as the one that it has returned.
    assert_eq!(access(&old, "graph").await.as_deref(), Some("a"));
}

#[tokio::test]
async fn nobody_goes_on_with_what_the_target_had_when_it_cannot_be_read_again() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let target = here.tokens(session("target"));
    target.insert("graph", token("before")).await.unwrap();
    assert_stored(target.commit().await.unwrap());
    let moved = here.tokens(session("moved"));
    moved.insert("graph", token("moved")).await.unwrap();
    store.set_down_after_move();
    moved.move_to(session("target")).await.unwrap();
    store.set_down(false);
    let found = access(&here.tokens(session("target")), "graph").await;
    assert_eq!(found.as_deref(), Some("moved"));
}

#[tokio::test]
async fn a_session_that_was_signed_out_can_be_moved() {
    let here = cache(TestStore::default());
    let old = here.tokens(session("old"));
    old.insert("graph", signed_in()).await.unwrap();
    assert_stored(old.sign_out().await.unwrap());
    let empty = old.move_to(session("new")).await.unwrap();
    assert_eq!(access(&empty, "graph").await, None);
}

#[tokio::test]
async fn what_other_instances_write_to_the_old_session_moves_or_is_refused() {
    let store = TestStore::default();
    let (here, other) = (cache(store.clone()), cache(store.clone()));
    let old = here.tokens(session("old"));
    old.insert("graph", signed_in()).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    let elsewhere = other.tokens(session("old"));
    elsewhere.insert("mail", token("m")).await.unwrap();
    assert_stored(elsewhere.commit().await.unwrap());
    // It has not reached L2 when the session moves.
    store.set_refusing_commits(true);
    elsewhere.insert("files", token("f")).await.unwrap();
    let new = old.move_to(session("new")).await.unwrap();
    store.set_refusing_commits(false);
    // Pending is the answer of a write that was refused meanwhile.
    eventually("the change is refused", async || {
        match elsewhere.commit().await {
            Ok(durability) => {
                assert_eq!(durability, Durability::Pending);
                false
            }
            Err(refused) => matches!(refused, Error::SignedOut),
        }
    })
    .await;
    assert_eq!(access(&new, "mail").await.as_deref(), Some("m"));
    assert_eq!(
        stored(store, "old", "files").await,
        None,
        "from before the move"
    );
}

#[tokio::test]
async fn while_l2_is_down_memory_moves_and_both_halves_are_replayed() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let old = here.tokens(session("old"));
    old.insert("graph", signed_in()).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    store.set_down(true);
    let new = old.move_to(session("new")).await.unwrap();
    assert_eq!(access(&new, "graph").await.as_deref(), Some("a"));
    assert_eq!(access(&here.tokens(session("old")), "graph").await, None);
    store.set_down(false);
    assert_eq!(here.shutdown(Duration::from_secs(10)).await.abandoned, 0);
    assert_eq!(
        stored(store.clone(), "new", "graph").await.as_deref(),
        Some("a")
    );
    eventually("the old one is signed out", async || {
        stored(store.clone(), "old", "graph").await.is_none()
    })
    .await;
}

#[tokio::test]
async fn under_strict_a_dead_l2_is_an_error_and_nothing_moves() {
    let store = TestStore::default();
    let old = cache(store.clone()).tokens(session("old"));
    old.insert("graph", signed_in()).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    old.set_failure_policy(FailurePolicy::Strict);
    store.set_down(true);
    let moved = old.move_to(session("new")).await;
    assert!(matches!(moved, Err(Error::Unavailable(_))));
    store.set_down(false);
    assert_eq!(stored(store, "old", "graph").await.as_deref(), Some("a"));
    assert_eq!(access(&old, "graph").await.as_deref(), Some("a"));
}

/// A session whose refresh token is being redeemed here, and an instance that is to move it.
async fn being_redeemed(
    elsewhere: bool,
) -> (
    TestStore,
    Issuer,
    JoinHandle<Result<Token, Error>>,
    TokenCache,
) {
    let (store, issuer) = (TestStore::default(), Issuer::new());
    let here = cache(store.clone());
    let tokens = here.tokens(session("old"));
    let old = Token::new("a0").with_expires_at(Timestamp::from_millis(1));
    let set = TokenSet::from(old).with_refresh_token("r0");
    tokens.insert("graph", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    issuer.hold();
    let redeeming = tokio::spawn({
        let issuer = issuer.clone();
        async move {
            tokens
                .get_or_acquire("graph", |prior| issuer.refresh(prior))
                .await
        }
    });
    issuer.arrival().await;
    let other = match elsewhere {
        true => cache(store.clone()),
        false => here,
    };
    (store, issuer, redeeming, other)
}

#[tokio::test(start_paused = true)]
async fn a_redemption_under_way_ends_first_and_its_successor_moves() {
    for elsewhere in [false, true] {
        let (store, issuer, redeeming, other) = being_redeemed(elsewhere).await;
        let old = other.tokens(session("old"));
        let moving = tokio::spawn(async move { old.move_to(session("new")).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        issuer.release();
        assert_eq!(redeeming.await.unwrap().unwrap().access_token(), "a1");
        moving.await.unwrap().unwrap();
        assert_eq!(stored(store.clone(), "old", "graph").await, None);
        let fresh = cache(store).tokens(session("new"));
        let found = fresh.refresh_token().await.unwrap();
        assert_eq!(
            found.hit().unwrap().expose(),
            "r1",
            "elsewhere: {elsewhere}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_to_be_redeemed_stays_where_it_is() {
    for elsewhere in [false, true] {
        let (store, issuer, redeeming, other) = being_redeemed(elsewhere).await;
        let moved = other.tokens(session("old")).move_to(session("new")).await;
        assert!(matches!(moved, Err(Error::Unavailable(_))));
        let fresh = cache(store.clone()).tokens(session("new"));
        assert_eq!(fresh.refresh_token().await.unwrap(), Lookup::Absent);
        issuer.release();
        redeeming.await.unwrap().unwrap();
        let moved = other.tokens(session("old")).move_to(session("new")).await;
        assert_eq!(
            access(&moved.unwrap(), "graph").await.as_deref(),
            Some("a1")
        );
    }
}

/// A limit of `Lifetimes::absolute`: a store has no way to carry the age along.
#[tokio::test]
async fn a_session_that_is_moved_has_its_absolute_lifetime_anew() {
    let hour = Duration::from_secs(3600);
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone()))
        .clock(clock.clone())
        .lifetimes(Lifetimes::new().absolute(hour));
    let cache = cache.build().unwrap();
    let old = cache.tokens(session("old"));
    let endless = Token::new("t");
    old.insert("api", endless).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    clock.advance(hour / 2);
    let new = old.move_to(session("new")).await.unwrap();
    clock.advance(hour / 2 + Duration::from_secs(60));
    assert!(access(&new, "api").await.is_some());
    clock.advance(hour / 2);
    assert_eq!(access(&new, "api").await, None, "an hour after the move");
}

/// The status of the response to a request of the session `old`.
async fn respond(layer: &TokenCacheLayer, handler: impl AsyncFnOnce(&Tokens)) -> StatusCode {
    let mut handler = Some(handler);
    let inner = service_fn(|request: Request<()>| {
        let handler = handler.take().expect("one request");
        async move {
            handler(request.extensions().get::<Tokens>().unwrap()).await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let request = Request::post("/").header("cookie", "sid=old").body(());
    let response = layer.layer(inner).oneshot(request.unwrap()).await.unwrap();
    response.status()
}

/// A store with the session `old`, and a layer for it.
async fn site() -> (TestStore, TokenCacheLayer) {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let old = cache.tokens(session("old"));
    old.insert("graph", signed_in()).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    (store, TokenCacheLayer::new(cache, key::cookie("sid")))
}

#[tokio::test]
async fn strict_holds_for_the_handle_of_the_new_partition() {
    for returned in [true, false] {
        let (store, layer) = site().await;
        let layer = layer.failure_policy(FailurePolicy::Strict);
        let handler = async |tokens: &Tokens| {
            let new = tokens.move_to(session("new")).await.unwrap();
            let tokens = if returned { &new } else { tokens };
            tokens.insert("more", token("m")).await.unwrap();
            store.set_refusing_commits(true);
        };
        let status = respond(&layer, handler).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn a_change_to_the_new_partition_is_in_l2_before_the_head() {
    let minute = Duration::from_secs(60);
    for how in ["put", "remove", "insert", "insert by the old handle"] {
        let (store, layer) = site().await;
        let layer = match how {
            "put" | "remove" => layer,
            _ => layer.write_mode(WriteMode::BeforeResponse),
        };
        let before = store.commits();
        let handler = async |old: &Tokens| {
            let new = old.move_to(session("new")).await.unwrap();
            match how {
                "put" => new.put("login", "state", minute).await.unwrap(),
                "remove" => new.remove("graph").await.unwrap(),
                "insert" => new.insert("more", token("m")).await.unwrap(),
                _ => old.insert("more", token("m")).await.unwrap(),
            }
        };
        assert_eq!(respond(&layer, handler).await, StatusCode::OK);
        assert!(store.commits() > before, "{how}");
    }
}
