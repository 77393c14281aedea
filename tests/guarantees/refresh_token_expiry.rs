//! A refresh token that the provider has given an expiry is absent from then on.

use std::time::Duration;

use tower_token_cache::{AcquireErrorKind, TokenSet};
use tower_token_cache::{Clock, Error, Lookup, MemoryStore, Prior, ProviderError, Timestamp};

use common::support::*;

const HOUR: Duration = Duration::from_secs(3600);

fn answer(refresh_token: &str) -> TokenSet {
    let json = format!(r#"{{"access_token":"a","id_token":"i","expires_in":60{refresh_token}}}"#);
    serde_json::from_str(&json).unwrap()
}

#[tokio::test]
async fn a_refresh_token_is_absent_once_it_has_expired() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let instance = || builder(store.clone()).clock(clock.clone()).build().unwrap();
    let here = instance().tokens(session("s"));
    let expiring = answer(r#","refresh_token":"r","refresh_expires_in":3600"#);
    here.insert("graph", expiring).await.unwrap();
    assert_stored(here.commit().await.unwrap());
    let endless = instance().tokens(session("endless"));
    let set = answer(r#","refresh_token":"r"}"#.trim_end_matches('}'));
    endless.insert("graph", set).await.unwrap();
    assert_stored(endless.commit().await.unwrap());

    clock.advance(HOUR - Duration::from_secs(5));
    for tokens in [&here, &instance().tokens(session("s"))] {
        assert!(tokens.refresh_token().await.unwrap().is_hit());
    }
    // What an answer without a refresh token says of it.
    let again = instance().tokens(session("s"));
    again.insert("graph", answer("")).await.unwrap();
    assert_stored(again.commit().await.unwrap());

    clock.advance(Duration::from_secs(10));
    for tokens in [&here, &instance().tokens(session("s"))] {
        assert_eq!(tokens.refresh_token().await.unwrap(), Lookup::Absent);
        assert!(tokens.id_token().await.unwrap().is_hit());
        let acquired = tokens.acquire("graph").unwrap().force_refresh();
        let acquired = acquired.with(async |prior: Prior| {
            prior.require_refresh_token()?;
            Ok::<_, ProviderError>(answer(""))
        });
        let Err(Error::Acquire(error)) = acquired.await else {
            panic!("an expired refresh token was handed out");
        };
        assert_eq!(error.kind(), AcquireErrorKind::ReauthenticationRequired);
    }
    let endless = instance().tokens(session("endless"));
    assert!(endless.refresh_token().await.unwrap().is_hit());
}

/// The same refresh token, with a new expiry or with none.
#[tokio::test]
async fn an_answer_with_the_refresh_token_replaces_its_expiry() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let instance = || builder(store.clone()).clock(clock.clone()).build().unwrap();
    let tokens = instance().tokens(session("s"));
    for next in [r#","refresh_expires_in":36000"#, ""] {
        let first = answer(r#","refresh_token":"r","refresh_expires_in":60"#);
        tokens.insert("graph", first).await.unwrap();
        let next = answer(&format!(r#","refresh_token":"r"{next}"#));
        tokens.insert("graph", next).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        clock.advance(Duration::from_secs(120));
        let fresh = instance().tokens(session("s"));
        for tokens in [&tokens, &fresh] {
            assert!(tokens.refresh_token().await.unwrap().is_hit());
        }
    }
}

/// While L2 is away, what memory has is not handed out either.
#[tokio::test]
async fn without_l2_an_expired_refresh_token_is_not_redeemed() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::default();
    let here = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let tokens = here.tokens(session("s"));
    let expiring = answer(r#","refresh_token":"r","refresh_expires_in":60"#);
    tokens.insert("graph", expiring).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    clock.advance(Duration::from_secs(61));
    store.set_down(true);
    let acquired = tokens.get_or_acquire("graph", async |prior: Prior| {
        assert_eq!(prior.refresh_token().map(|token| token.len()), None);
        Ok::<_, ProviderError>(answer(""))
    });
    acquired.await.unwrap();
}

/// It waits for L2 when it expires, and the answer that replaces it is written.
#[tokio::test(start_paused = true)]
async fn an_expired_refresh_token_that_waits_does_not_replace_its_successor() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::default();
    let here = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let tokens = here.tokens(session("s"));
    assert_eq!(access(&tokens, "graph").await, None);
    store.set_refusing_commits(true);
    // What comes after this commit waits until it is written.
    tokens.insert("mail", token("m")).await.unwrap();
    let _ = tokens.commit().await.unwrap();
    let expiring = answer(r#","refresh_token":"old","refresh_expires_in":60"#);
    tokens.insert("graph", expiring).await.unwrap();
    clock.advance(Duration::from_secs(61));
    let acquired = tokens.get_or_acquire("graph", async |_: Prior| {
        Ok::<_, ProviderError>(answer(r#","refresh_token":"new""#))
    });
    acquired.await.unwrap();
    store.set_refusing_commits(false);
    drained(&here).await;
    for tokens in [tokens, cache(store).tokens(session("s"))] {
        let found = tokens.refresh_token().await.unwrap().hit();
        assert_eq!(found.unwrap().expose(), "new");
    }
}
