//! Processes die and stand still, clients and L2 go away, answers take long.

use common::assert_stored;
use std::time::Duration;

use axum::routing::get;
use futures_util::future::join_all;
use tower_http::timeout::TimeoutLayer;
use tower_token_cache::Tokens;

use super::{Burst, Fleet, answers};
use crate::MACHINE;
use common::provider::{Provider, Step, redeem};
use common::redis::RedisServer;
use common::{eventually, support};

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_killed_before_it_redeems_is_replaced() {
    let fleet = Fleet::start_with(RedisServer::start(), "2").await;
    fleet.sign_in("ada").await;
    fleet.provider.hold(Step::Token);
    let mut bursts = fleet.bursts("ada", 50);
    let holder = fleet.provider.arrived(Step::Token).await;
    let number: usize = holder.parse().unwrap();
    fleet.processes[number].kill();
    // What the dead process asked for stays unanswered.
    fleet.provider.hold_only(Step::Token, &holder);
    drop(bursts.remove(number));
    let answers = answers(bursts).await;
    fleet.assert_one_redemption("ada", &answers);
    assert_eq!(fleet.provider.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_paused_past_its_lease_does_not_redeem() {
    let fleet = Fleet::start_with(RedisServer::start(), "2").await;
    fleet.sign_in("ada").await;
    // The holder stops inside of its acquire function, while it looks for the token endpoint.
    fleet.provider.hold(Step::Discovery);
    let mut bursts = fleet.bursts("ada", 50);
    let holder = fleet.provider.arrived(Step::Discovery).await;
    let number: usize = holder.parse().unwrap();
    fleet.processes[number].pause();
    fleet.provider.hold_only(Step::Discovery, &holder);
    let paused = bursts.remove(number);
    let others = answers(bursts).await;
    fleet.assert_one_redemption("ada", &others);

    // Now it learns where the token endpoint is, and finds itself long past its lease.
    fleet.provider.release();
    fleet.processes[number].resume();
    let late = paused.answers().await;
    fleet.assert_one_redemption("ada", &late);
    assert_eq!(fleet.provider.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_stop_nothing() {
    let fleet = Fleet::start().await;
    fleet.sign_in("ada").await;
    fleet.provider.hold(Step::Token);
    let mut bursts = fleet.bursts("ada", 50);
    let holder: usize = fleet.provider.arrived(Step::Token).await.parse().unwrap();
    // Everyone who waits in the holder's process goes, and half of the rest.
    bursts.remove(holder).hang_up().await;
    for burst in &mut bursts {
        let half = burst.0.split_off(25);
        Burst(half).hang_up().await;
    }
    // By the time it answers this, it has seen the others go.
    fleet.processes[holder].status("l2_reads").await;
    fleet.provider.release();
    let rest = answers(bursts).await;
    fleet.assert_one_redemption("ada", &rest);
    let later = answers(fleet.bursts("ada", 10)).await;
    fleet.assert_one_redemption("ada", &later);
    assert_eq!(fleet.provider.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_layer_stops_nothing() {
    let _alone = MACHINE.lock().await;
    let redis = RedisServer::start();
    let provider = Provider::start().await;
    let store = support::redis_store(&redis).await;
    let cache = support::cache(store.clone());
    let tokens = cache.tokens(support::session("ada"));
    let spent = support::token("old").with_expires_in(Duration::ZERO);
    let signed_in = tower_token_cache::TokenSet::from(spent);
    let signed_in = signed_in.with_refresh_token(provider.sign_in("ada"));
    tokens.insert("old", signed_in).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());

    let issuer = provider.issuer("app");
    let handler = async move |tokens: Tokens| {
        let acquire = async move |prior| redeem(issuer, prior).await;
        let token = tokens.get_or_acquire("graph", acquire).await?;
        Ok::<_, tower_token_cache::Error>(token.access_token().to_owned())
    };
    let limit = Duration::from_millis(300);
    let timeout = TimeoutLayer::with_status_code(axum::http::StatusCode::REQUEST_TIMEOUT, limit);
    let app = support::app(&cache, axum::Router::new().route("/", get(handler))).layer(timeout);
    provider.hold(Step::Token);
    let requests = (0..50).map(|_| support::fetch(&app, "ada", "/"));
    for (status, body) in join_all(requests).await {
        assert_eq!(status, 408, "{body}");
    }
    provider.arrived(Step::Token).await;
    provider.release();

    let reader = support::cache(store).tokens(support::session("ada"));
    eventually("the token is in the store", async || {
        reader.reload().await.unwrap();
        let token = support::access(&reader, "graph").await;
        token.is_some_and(|token| provider.is_newest("ada", &token))
    })
    .await;
    let (status, token) = support::fetch(&app, "ada", "/").await;
    assert!(provider.is_newest("ada", &token), "{status} {token}");
    assert_eq!((provider.calls(), provider.reuses()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redemption_may_take_longer_than_a_lease() {
    let fleet = Fleet::start_with(RedisServer::start(), "2").await;
    fleet.sign_in("ada").await;
    fleet.provider.set(|behaviour| {
        behaviour.before = Duration::from_secs(3);
        behaviour.after = Duration::from_secs(3);
    });
    let answers = answers(fleet.bursts("ada", 50)).await;
    fleet.assert_one_redemption("ada", &answers);
    assert_eq!(fleet.provider.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_may_restart_meanwhile() {
    let mut fleet = Fleet::start_with(RedisServer::start_persistent(), "30").await;
    fleet.sign_in("ada").await;
    fleet.provider.hold(Step::Token);
    let bursts = fleet.bursts("ada", 50);
    let holder = fleet.provider.arrived(Step::Token).await;
    // An instance that has not heard of the lease goes on without one while L2 is away.
    fleet.wait_for_all_but(holder.parse().unwrap()).await;
    fleet.redis.kill();
    // For longer than anybody waits for L2 (1 s).
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.redis.restart();
    fleet.provider.release();
    let all = answers(bursts).await;
    fleet.assert_one_redemption("ada", &all);
    // And it is in L2, for processes that come later.
    let later = answers(fleet.bursts("ada", 1)).await;
    fleet.assert_one_redemption("ada", &later);
    assert_eq!(fleet.provider.calls(), 1);
}
