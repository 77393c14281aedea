//! Acquire functions that need a token of another client.

use std::time::Duration;

use common::support::*;
use tower_token_cache::{Acquisitions, BoxError, Prior, TokenSet, Tokens};

fn answer(text: &str) -> Result<TokenSet, BoxError> {
    Ok(TokenSet::from(token(text)).with_refresh_token("r"))
}

/// Token of `google`, for which a token of `github` is needed.
async fn nested(tokens: Tokens) -> Result<String, tower_token_cache::Error> {
    let github = tokens.client("github").unwrap();
    let google = tokens.client("google").unwrap();
    let acquired = google
        .get_or_acquire("api", async move |_: Prior| {
            let inner = github
                .get_or_acquire("api", async |_: Prior| answer("inner"))
                .await?;
            answer(inner.access_token())
        })
        .await?;
    Ok(acquired.access_token().to_owned())
}

/// `Tokens::client`, and the test `an_acquire_function_can_acquire_with_another_clients_refresh_token`; a session
/// has "a quarter of the places": one, where there are less than eight.
#[tokio::test(start_paused = true)]
async fn an_acquire_function_can_acquire_another_clients_token_whatever_acquisitions_max_is() {
    let mut failed = Vec::new();
    for max in [1, 4, 7, 8] {
        let cache = builder(TestStore::default())
            .acquisitions(Acquisitions::new().max(max))
            .build()
            .unwrap();
        let began = tokio::time::Instant::now();
        if let Err(error) = nested(cache.tokens(session("s"))).await {
            failed.push(format!("max {max}: {error:?} after {:?}", began.elapsed()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// README: "An instance makes 64 calls at a time … Users take turns …"; `Tokens::client`; the test
/// `an_acquire_function_can_acquire_with_another_clients_refresh_token`.
#[tokio::test(start_paused = true)]
async fn many_users_whose_call_needs_another_clients_token_all_get_theirs_from_providers_that_answer_at_once()
 {
    // A quarter of the slots is what one session may have: enough for each of these.
    let mut all = Vec::new();
    for max in [8, 64] {
        let store = TestStore::default();
        let cache = builder(store)
            .acquisitions(Acquisitions::new().max(max))
            .build()
            .unwrap();
        let began = tokio::time::Instant::now();
        let users = 10 * max;
        let requests: Vec<_> = (0..users)
            .map(|user| tokio::spawn(nested(cache.tokens(session(&format!("s{user}"))))))
            .collect();
        let mut failed = Vec::new();
        for request in requests {
            failed.extend(request.await.unwrap().err());
        }
        let took = began.elapsed();
        if !failed.is_empty() || took > Duration::from_secs(30) {
            all.push(format!(
                "max {max}: {} of {users} failed, {took:?}: {:?}",
                failed.len(),
                failed.first()
            ));
        }
    }
    assert!(all.is_empty(), "{all:#?}");
}

/// README, Limits: "An acquire function that needs another token of its own partition gets an error where it
/// would wait for itself".
#[tokio::test(start_paused = true)]
async fn two_clients_whose_calls_need_each_other_get_an_error_and_do_not_wait() {
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let began = tokio::time::Instant::now();
    let mut requests = Vec::new();
    let both = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    for (one, other) in [("google", "github"), ("github", "google")] {
        let other = tokens.client(other).unwrap();
        let one = tokens.client(one).unwrap();
        let both = both.clone();
        requests.push(tokio::spawn(async move {
            one.get_or_acquire("api", async move |_: Prior| {
                both.wait().await;
                other
                    .get_or_acquire("api", async |_: Prior| answer("inner"))
                    .await?;
                answer("outer")
            })
            .await
        }));
    }
    for request in requests {
        let _ = request.await.unwrap();
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
}
