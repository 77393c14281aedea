//! Everybody wants a token at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::{Burst, Fleet, PROCESSES, answers};
use common::eventually;
use common::playground::{Answer, Playground};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_make_one_redemption() {
    let fleet = Fleet::start().await;
    // Every process has the token in memory when it expires.
    let set = json!({
        "access_token": "old", "expires_in": 1, "refresh_token": fleet.provider.sign_in("ada"),
    });
    let headers = [("x-session", "ada"), ("x-write-mode", "before")];
    let (first, set) = (&fleet.processes[0], set.to_string());
    let put = first.send("PUT", "/tokens/graph", &headers, &set).await;
    assert_eq!(put.status, 204);
    for process in &fleet.processes {
        process.get("ada", "/tokens/graph").await;
    }
    for process in &fleet.processes {
        eventually("it expires", async || {
            process.get("ada", "/tokens/graph").await.status == 404
        })
        .await;
    }
    let answers = answers(fleet.bursts("ada", 250)).await;
    fleet.assert_one_redemption("ada", &answers);
    assert_eq!((answers.len(), fleet.provider.calls()), (1000, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_users_make_one_redemption_each() {
    let fleet = Fleet::start().await;
    let users: Vec<String> = (0..200).map(|number| format!("user-{number}")).collect();
    for user in &users {
        fleet.sign_in(user).await;
    }
    // Each process takes the users in the same order, so that all processes want each at once.
    let requests = |process: &Arc<Playground>| {
        let process = process.clone();
        let users: Vec<String> = users
            .iter()
            .flat_map(|user| vec![user.clone(); 20])
            .collect();
        let request = move |user: String| {
            let process = process.clone();
            async move { (process.acquire(&user, "/acquire/graph").await, user) }
        };
        let all = stream::iter(users).map(request).buffer_unordered(100);
        tokio::spawn(all.collect::<Vec<_>>())
    };
    let all: Vec<_> = fleet.processes.iter().map(requests).collect();
    for answers in join_all(all).await {
        for (answer, user) in answers.unwrap() {
            fleet.assert_one_redemption(&user, &[answer]);
        }
    }
    assert_eq!(fleet.provider.calls(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_resources_redeem_one_after_the_other() {
    let fleet = Fleet::start().await;
    fleet.sign_in("ada").await;
    // Slow enough that both would be at it together.
    fleet.provider.set(|behaviour| {
        behaviour.before = Duration::from_millis(100);
        behaviour.after = Duration::from_millis(100);
    });
    let resource = |name: &'static str| {
        let burst = |process| fleet.burst(process, "ada", name, 50);
        (0..PROCESSES).map(burst).collect::<Vec<_>>()
    };
    let (mail, files) = (resource("/acquire/mail"), resource("/acquire/files"));
    let mut tokens = HashSet::new();
    for answer in answers(mail.into_iter().chain(files)).await {
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let token = answer.body["access_token"].as_str().unwrap().to_owned();
        assert!(fleet.provider.is_valid("ada", &token));
        tokens.insert(token);
    }
    assert_eq!(tokens.len(), 2, "one each");
    let provider = &fleet.provider;
    assert_eq!((provider.redemptions("ada"), provider.reuses()), (2, 0));
    assert_eq!((provider.calls(), provider.most_at_once()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_asks_once_for_itself() {
    let fleet = Fleet::start().await;
    let bursts = (0..PROCESSES).map(|process| {
        let process = &fleet.processes[process];
        Burst::of(50, || {
            let process = process.clone();
            async move { process.try_acquire_for("app", "/acquire/graph").await }
        })
    });
    let answers = answers(bursts.collect::<Vec<_>>()).await;
    let token = |answer: &Answer| answer.body["access_token"].as_str().map(str::to_owned);
    let tokens: HashSet<_> = answers.iter().map(token).collect();
    assert_eq!((tokens.len(), tokens.contains(&None)), (1, false));
    assert_eq!(
        (fleet.provider.calls(), fleet.provider.applications()),
        (1, 1)
    );
}
