//! What happens once, on all instances together.

use std::sync::Arc;

use common::issuer::Issuer;
use common::playground::{PLAYGROUNDS, Playground};
use common::provider::{CLIENT_ID, CLIENT_SECRET, Provider};
use common::support::{assert_stored, session};
use futures_util::future::join_all;
use tower_token_cache::{Error, Timestamp, Token, TokenSet, Tokens};

use super::home::Home;
use super::{SECOND, instance, instances};

/// Keeps a token that has expired, and the refresh token `r0`.
pub(crate) async fn keep_expired(tokens: &Tokens) {
    let old = Token::new("a0").with_expires_at(Timestamp::from_millis(1));
    let old = TokenSet::from(old).with_refresh_token("r0");
    tokens.insert("graph", old).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

pub(crate) async fn acquire(tokens: &Tokens, issuer: &Issuer) -> Result<String, Error> {
    let issuer = issuer.clone();
    let call = move |prior| issuer.refresh(prior);
    let token = tokens.get_or_acquire("graph", call).await?;
    Ok(token.access_token().to_owned())
}

pub(super) async fn a_refresh_happens_once<H: Home>() {
    let home = H::start().await;
    let caches = instances(&home).await;
    for round in 0..10 {
        let sid = format!("s{round}");
        keep_expired(&caches[round % 2].tokens(session(&sid))).await;
        let issuer = Issuer::new();
        let requests = (0..20).map(async |at: usize| {
            let tokens = caches[at % 2].tokens(session(&sid));
            acquire(&tokens, &issuer).await.unwrap()
        });
        for token in join_all(requests).await {
            assert_eq!(token, "a1");
        }
        assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
        let kept = instance(&home)
            .await
            .tokens(session(&sid))
            .refresh_token()
            .await;
        assert_eq!(kept.unwrap().hit().unwrap().expose(), "r1");
    }
}

/// Four processes of both frameworks.
pub(super) async fn a_fleet_redeems_once<H: Home>() {
    let home = H::start().await;
    let provider = Provider::start().await;
    let start = |number: usize| {
        let (store, issuer) = (home.name(), provider.issuer(&number.to_string()));
        let options = [
            ["--store", &store],
            ["--issuer", &issuer],
            ["--client-id", CLIENT_ID],
            ["--client-secret", CLIENT_SECRET],
        ];
        let example = PLAYGROUNDS[number % PLAYGROUNDS.len()];
        Arc::new(Playground::start(example, options.as_flattened()))
    };
    let fleet: Vec<_> = (0..4).map(start).collect();
    for user in 0..8 {
        let user = format!("user {user}");
        let refresh_token = provider.sign_in(&user);
        fleet[0].sign_in(&user, &refresh_token).await;
        let all = (0..40).map(|at| {
            let (process, user) = (fleet[at % 4].clone(), user.clone());
            async move { process.try_acquire(&user, "/acquire/graph").await }
        });
        for answer in join_all(all).await {
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            let token = answer.body["access_token"].as_str().unwrap();
            assert!(provider.is_newest(&user, token), "{token}");
        }
        assert_eq!((provider.redemptions(&user), provider.reuses()), (1, 0));
    }
}

pub(super) async fn a_value_is_taken_once<H: Home>() {
    let home = H::start().await;
    let caches = instances(&home).await;
    for number in 0..20 {
        let id = format!("s{number}");
        let tokens = caches[0].tokens(session(&id));
        tokens.put("state", &number, 60 * SECOND).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let takes = (0..20).map(|at| {
            let tokens = caches[at % 2].tokens(session(&id));
            async move { tokens.take::<i32>("state").await }
        });
        let taken = join_all(takes).await;
        let taken = taken.into_iter().filter_map(|taken| taken.unwrap().hit());
        assert_eq!(taken.collect::<Vec<_>>(), [number]);
    }
}
