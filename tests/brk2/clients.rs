//! Many clients of one session, which moves.

use std::time::Duration;

use common::proxy::Proxy;
use common::support::*;
use tower_token_cache::{Prior, RedisStore, Timestamp, TokenCache, TokenSet, Tokens};

async fn filled(cache: &TokenCache, clients: usize) -> Tokens {
    let tokens = cache.tokens(session("old"));
    for number in 0..clients {
        let set = TokenSet::from(token("t")).with_refresh_token(format!("r{number}"));
        let client = tokens.client(format!("client {number}")).unwrap();
        client.insert("api", set).await.unwrap();
    }
    assert_stored(tokens.commit().await.unwrap());
    tokens
}

/// client: "`move_to` … concern all clients." Each answer takes 20 ms.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_takes_all_clients_along_however_many() {
    let mut wrong = Vec::new();
    for clients in [1, 50, 300] {
        let server = RedisServer::start();
        let (proxy, url) = Proxy::before(&server.url()).await;
        let one = cache(RedisStore::connect(&url).await.unwrap());
        let tokens = filled(&one, clients).await;
        proxy.delay(20);
        let began = std::time::Instant::now();
        let moved = tokens.move_to(session("new")).await;
        let took = began.elapsed();
        proxy.delay(0);
        let there = redis_cache(&server).await;
        let mut found = 0;
        let new = there.tokens(session("new"));
        for number in 0..clients {
            let client = new.client(format!("client {number}")).unwrap();
            found += usize::from(client.refresh_token().await.unwrap().is_hit());
        }
        println!("{clients}: {:?} in {took:?}, {found}", moved.as_ref().err());
        if found != clients {
            wrong.push((clients, moved.err(), took, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// TokenSet: a refresh token is absent once it has expired; so it is for the provider, after a move, and for each client.
#[tokio::test]
async fn an_expired_refresh_token_is_redeemed_by_no_client_after_a_move() {
    let clock = tower_token_cache::Clock::manual(Timestamp::now());
    let store = tower_token_cache::MemoryStore::new().with_clock(clock.clone());
    let one = builder(store).clock(clock.clone()).build().unwrap();
    let old = one.tokens(session("old"));
    let set = |life: u64| {
        let json = format!(
            r#"{{"access_token":"a","expires_in":60,"refresh_token":"r","refresh_expires_in":{life}}}"#
        );
        serde_json::from_str::<TokenSet>(&json).unwrap()
    };
    let (a, b) = (old.client("a").unwrap(), old.client("b").unwrap());
    a.insert("api", set(600)).await.unwrap();
    b.insert("api", set(6000)).await.unwrap();
    assert_stored(old.commit().await.unwrap());
    let new = old.move_to(session("new")).await.unwrap();
    clock.advance(Duration::from_secs(700));
    let redeem = async |prior: Prior| {
        let refresh_token = prior.require_refresh_token()?;
        Ok::<_, tower_token_cache::BoxError>(TokenSet::from(token(refresh_token.expose())))
    };
    let a = new.client("a").unwrap().get_or_acquire("api", redeem).await;
    assert_eq!(a.unwrap_err().status(), 401);
    let b = new.client("b").unwrap().get_or_acquire("api", redeem).await;
    assert_eq!(b.unwrap().access_token(), "r");
}
