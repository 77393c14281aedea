//! Sign-ins and sign-outs that are dropped at each await, alone and with their request.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use common::stepping::{SteppingStore, poll_times};
use common::support::*;
use http::header::SET_COOKIE;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{Lookup, TokenCache, Tokens};

use super::browser::*;

async fn settled(cache: &TokenCache) {
    eventually("nothing waits", async || {
        let stats = cache.stats();
        stats.pending_changes == 0 && stats.pending_sign_outs == 0
    })
    .await;
}

#[tokio::test]
async fn a_sign_in_that_is_dropped_leaves_one_session_at_most() {
    for whole in [false, true] {
        let mut done = false;
        let mut steps = 0;
        while !done {
            let store = SteppingStore::default();
            let cache = cache(store.clone());
            let layer = issuing(&cache);
            let mut before = Browser::default();
            let visit = before
                .visit(&layer, async |tokens: Tokens| {
                    tokens.sign_in(sign_in("bob").user("bob")).await
                })
                .await;
            assert_stored(visit.result.unwrap());
            settled(&cache).await;
            let inner = service_fn(async |request: Request<()>| {
                let tokens = handle(&request);
                let signs_in = tokens.sign_in(sign_in("ada").user("ada"));
                match whole {
                    true => assert!(signs_in.await.is_ok()),
                    false => drop(poll_times(signs_in, steps).await),
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            });
            let answers = layer.layer(inner).oneshot(before.request());
            let answer = match whole {
                true => poll_times(answers, steps).await,
                false => Some(answers.await),
            };
            let lines =
                answer.map(|answer| answer.unwrap().headers().get_all(SET_COOKIE).iter().count());
            settled(&cache).await;
            let has_cookie = lines == Some(1);
            // A second instance says what L2 has.
            let there = common::support::cache(store.clone());
            let expected = usize::from(has_cookie);
            eventually("as many sessions as cookies", async || {
                there.sessions_of("ada").await.unwrap().len() == expected
            })
            .await;
            for session in there.sessions_of("ada").await.unwrap() {
                assert!(matches!(
                    there.tokens(session).get("api").await.unwrap(),
                    Lookup::Hit(_)
                ));
            }
            let old = before.api(&issuing(&there)).await;
            assert!(
                !(has_cookie && old.is_some()),
                "whole {whole}, {steps}: both sessions are there"
            );
            // The browser can sign in again.
            before.sign_in(&layer, "ada").await;
            settled(&cache).await;
            eventually("as many as cookies, also later", async || {
                there.sessions_of("ada").await.unwrap().len() == expected
            })
            .await;
            done = has_cookie;
            steps += 1;
            assert!(steps < 500);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_leaves_its_value_or_nothing() {
    let mut steps = 0;
    loop {
        let store = SteppingStore::default();
        let cache = cache(store.clone());
        let layer = issuing(&cache);
        let inner = service_fn(async |request: Request<()>| {
            let tokens = handle(&request);
            let lifetime = Duration::from_secs(600);
            tokens.put("login", "state", lifetime).await.unwrap();
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Browser::default().request();
        let answer = poll_times(layer.layer(inner).oneshot(request), steps).await;
        if let Some(answer) = answer {
            let line = answer.unwrap().headers()[SET_COOKIE]
                .to_str()
                .unwrap()
                .to_owned();
            let mut browser = Browser::with(line.split(';').next().unwrap());
            let there = issuing(&common::support::cache(store.clone()));
            let visit = browser
                .visit(&there, async |tokens: Tokens| {
                    tokens.take::<String>("login").await
                })
                .await;
            assert!(visit.result.unwrap().is_hit(), "in L2 before the head");
            break;
        }
        settled(&cache).await;
        steps += 1;
        assert!(steps < 500);
    }
}
