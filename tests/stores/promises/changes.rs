//! What instances change, the others see, and what is over does not come back.

use std::time::Duration;

use common::support::{access, assert_stored, drained, eventually, session, token};
use futures_util::future::join_all;
use tower_token_cache::{FailurePolicy, Lookup, TokenSet, Tokens};

use super::home::Home;
use super::{SECOND, finds, instance, instances, is_refused, put, stored};

pub(super) async fn no_update_is_lost<H: Home>() {
    let home = H::start().await;
    let caches = instances(&home).await;
    let change = async |round: usize, at: usize| {
        let tokens = caches[at % 2].tokens(session(&format!("s{round}")));
        let _ = tokens.get("other").await.unwrap();
        tokio::time::sleep(Duration::from_millis(at as u64)).await;
        let name = format!("k{at}");
        tokens.insert(&name, token(&name)).await.unwrap();
        if at < 4 {
            assert_stored(tokens.commit().await.unwrap());
        }
    };
    join_all((0..20).map(async |round| join_all((0..8).map(|at| change(round, at))).await)).await;
    for cache in &caches {
        drained(cache).await;
    }
    let fresh = instance(&home).await;
    for round in 0..20 {
        let tokens = fresh.tokens(session(&format!("s{round}")));
        for name in (0..8).map(|at| format!("k{at}")) {
            let found = access(&tokens, &name).await;
            assert_eq!(found.as_deref(), Some(&*name), "s{round}");
        }
    }
}

async fn writes_on(tokens: Tokens) {
    for _ in 0..10 {
        if tokens.insert("graph", token("again")).await.is_err() {
            return;
        }
        let _ = tokens.commit().await;
    }
}

pub(super) async fn a_sign_out_is_final<H: Home>() {
    let home = H::start().await;
    let caches = instances(&home).await;
    for round in 0..10 {
        let sid = format!("s{round}");
        put(&caches[0].tokens(session(&sid)), "graph", "old").await;
        let mut handles = Vec::new();
        for cache in &caches {
            finds(cache, &sid, "graph", Some("old")).await;
            let tokens = cache.tokens(session(&sid));
            assert!(tokens.get("graph").await.unwrap().is_hit());
            handles.push(tokens);
        }
        let writers: Vec<_> = handles
            .iter()
            .cloned()
            .map(writes_on)
            .map(tokio::spawn)
            .collect();
        tokio::time::sleep(Duration::from_millis(round)).await;
        let signs_out = &caches[round as usize % 2];
        let ended = signs_out.tokens(session(&sid)).sign_out().await;
        assert_stored(ended.unwrap());
        assert_eq!(
            access(&signs_out.tokens(session(&sid)), "graph").await,
            None
        );
        for (writer, tokens) in writers.into_iter().zip(&handles) {
            writer.await.unwrap();
            is_refused(tokens).await;
        }
        for cache in &caches {
            drained(cache).await;
            finds(cache, &sid, "graph", None).await;
        }
        for key in ["graph", "late"] {
            assert_eq!(stored(&home, &sid, key).await, None);
        }
        put(&caches[1].tokens(session(&sid)), "graph", "new").await;
        finds(&caches[0], &sid, "graph", Some("new")).await;
    }
}

pub(super) async fn nothing_is_stale_for_long<H: Home>() {
    let home = H::start().await;
    let caches = instances(&home).await;
    let mut seen = 0;
    for value in 1..=10_u32 {
        let writes = value as usize % 2;
        put(
            &caches[writes].tokens(session("s")),
            "graph",
            &value.to_string(),
        )
        .await;
        eventually("the other sees it", async || {
            let found = access(&caches[1 - writes].tokens(session("s")), "graph").await;
            let found = found.map_or(0, |text| text.parse().unwrap());
            assert!(found >= seen, "{found} after {seen}");
            seen = found;
            found == value
        })
        .await;
    }
    assert_stored(caches[0].tokens(session("s")).sign_out().await.unwrap());
    finds(&caches[1], "s", "graph", None).await;
}

pub(super) async fn a_session_moves_as_a_whole<H: Home>() {
    let home = H::start().await;
    let caches = instances(&home).await;
    for round in 0..5 {
        let [old, new, rival] = ["old", "new", "rival"].map(|name| format!("{name}-{round}"));
        let tokens = caches[0].tokens(session(&old));
        let set = TokenSet::from(token("a")).with_refresh_token("r");
        tokens.insert("graph", set).await.unwrap();
        tokens.put("state", "v", 60 * SECOND).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        finds(&caches[1], &old, "graph", Some("a")).await;
        let late = caches[1].tokens(session(&old));
        assert!(late.get("graph").await.unwrap().is_hit());
        // Of two moves at a time one has the session. While the store cannot be asked, each would be made in memory.
        let other = caches[1].tokens(session(&old));
        for moves in [&tokens, &other] {
            moves.set_failure_policy(FailurePolicy::Strict);
        }
        let (one, two) = tokio::join!(
            tokens.move_to(session(&new)),
            other.move_to(session(&rival))
        );
        let mut holders = Vec::new();
        for sid in [&new, &rival] {
            if stored(&home, sid, "graph").await.is_some() {
                holders.push(sid);
            }
        }
        let [holder] = holders[..] else {
            panic!("it is in {holders:?}: {one:?}, {two:?}");
        };
        for cache in &caches {
            let tokens = cache.tokens(session(holder));
            assert_eq!(access(&tokens, "graph").await.as_deref(), Some("a"));
            let refresh_token = tokens.refresh_token().await.unwrap().hit();
            assert_eq!(refresh_token.unwrap().expose(), "r");
            finds(cache, &old, "graph", None).await;
        }
        let tokens = caches[1].tokens(session(holder));
        let taken = tokens.take::<String>("state").await.unwrap();
        assert_eq!(taken, Lookup::Hit("v".into()));
        is_refused(&late).await;
        assert_eq!(stored(&home, &old, "late").await, None);
    }
}
