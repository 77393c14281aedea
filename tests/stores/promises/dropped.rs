//! Operations that are dropped at each await.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use common::issuer::Issuer;
use common::support::{access, assert_stored, drained, eventually, session, token};

use super::home::Home;
use super::once::{acquire, keep_expired};
use super::{SECOND, instances, put, stored};

/// Drops a future when it would go on after this many awaits; what it has come to, if it was done by then.
async fn dropped_after<F: Future>(awaits: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = awaits;
    std::future::poll_fn(move |context| match left {
        0 => Poll::Ready(None),
        _ => {
            left -= 1;
            future.as_mut().poll(context).map(Some)
        }
    })
    .await
}

/// Runs `trial` with more and more awaits, until the operation is done, as it says.
async fn at_each_await(trial: impl AsyncFn(usize) -> bool) {
    for awaits in 0..200 {
        if trial(awaits).await {
            return;
        }
    }
    panic!("it does not end");
}

pub(super) async fn what_is_dropped_at_an_await_ends_as_if_nobody_had_gone<H: Home>() {
    let home = H::start().await;
    let [one, other] = &instances(&home).await;
    // Nobody is stranded, and all agree.
    let agree = async |sid: &str, key: &str| {
        drained(one).await;
        let mut found = None;
        eventually("they agree", async || {
            found = stored(&home, sid, key).await;
            let mut same = true;
            for cache in [one, other] {
                same &= access(&cache.tokens(session(sid)), key).await == found;
            }
            same
        })
        .await;
        found
    };
    at_each_await(async |awaits| {
        let sid = format!("commit-{awaits}");
        put(&one.tokens(session(&sid)), "graph", "t").await;
        let tokens = one.tokens(session(&sid));
        let committed = dropped_after(awaits, async {
            tokens.insert("mail", token("m")).await.unwrap();
            tokens.commit().await.unwrap()
        });
        let done = committed.await.is_some();
        assert_eq!(agree(&sid, "graph").await.as_deref(), Some("t"));
        assert!(agree(&sid, "mail").await.is_some() || !done, "{awaits}");
        done
    })
    .await;
    at_each_await(async |awaits| {
        let sid = format!("acquire-{awaits}");
        let (tokens, issuer) = (one.tokens(session(&sid)), Issuer::new());
        keep_expired(&tokens).await;
        let done = dropped_after(awaits, acquire(&tokens, &issuer)).await;
        for cache in [other, one] {
            let token = acquire(&cache.tokens(session(&sid)), &issuer).await;
            assert_eq!(token.unwrap(), "a1");
        }
        assert_eq!((issuer.calls(), issuer.reuses()), (1, 0), "{awaits}");
        done.is_some()
    })
    .await;
    at_each_await(async |awaits| {
        let sid = format!("sign-out-{awaits}");
        let tokens = one.tokens(session(&sid));
        put(&tokens, "graph", "t").await;
        let done = dropped_after(awaits, tokens.sign_out()).await.is_some();
        assert!(agree(&sid, "graph").await.is_none() || !done, "{awaits}");
        done
    })
    .await;
    at_each_await(async |awaits| {
        let (old, new) = (format!("old-{awaits}"), format!("new-{awaits}"));
        let tokens = one.tokens(session(&old));
        put(&tokens, "graph", "t").await;
        let moves = tokens.move_to(session(&new));
        let done = dropped_after(awaits, moves).await.is_some();
        // It goes on, and may end between two looks.
        let _ = agree(&new, "graph").await;
        let is_old = agree(&old, "graph").await.is_some();
        let is_new = agree(&new, "graph").await.is_some();
        assert!(is_new || is_old && !done, "{awaits}");
        eventually("it is in one of them", async || {
            let is_old = stored(&home, &old, "graph").await.is_some();
            is_old != stored(&home, &new, "graph").await.is_some()
        })
        .await;
        done
    })
    .await;
    at_each_await(async |awaits| {
        let sid = format!("take-{awaits}");
        let tokens = one.tokens(session(&sid));
        tokens.put("state", "v", 60 * SECOND).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let taken = dropped_after(awaits, tokens.take::<String>("state")).await;
        let done = taken.is_some();
        let given = taken.is_some_and(|taken| taken.unwrap().is_hit());
        let mut later = 0;
        for cache in [other, one, other] {
            let taken = cache.tokens(session(&sid)).take::<String>("state").await;
            later += usize::from(taken.unwrap().is_hit());
        }
        assert!(later <= usize::from(!given), "{awaits}");
        done
    })
    .await;
}
