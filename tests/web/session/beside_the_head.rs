//! A clone that keeps something at the moment when the handler returns.

use std::convert::Infallible;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use common::support::*;
use http::header::SET_COOKIE;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{Error, FailurePolicy, Tokens};

use super::browser::*;

const ROUNDS: usize = 4000;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn its_session_is_in_the_head_or_is_refused() {
    // Which asks no store, so that the session begins as soon as the clone is polled.
    let layer = issuing(&cache(TestStore::default())).failure_policy(FailurePolicy::Bypass);
    let turn = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel::<(Tokens, usize)>();
    let (answers, answered) = mpsc::channel();
    let other = {
        let turn = turn.clone();
        std::thread::spawn(move || {
            let runtime = runtime();
            while let Ok((tokens, round)) = receiver.recv() {
                let inserts = tokens.insert("state", token("s"));
                while turn.load(Ordering::Acquire) != round {
                    spin_loop();
                }
                for _ in 0..round % 400 {
                    spin_loop();
                }
                let inserted = runtime.block_on(inserts);
                answers.send((inserted, tokens)).unwrap();
            }
        })
    };
    let runtime = runtime();
    for round in 1..=ROUNDS {
        let inner = service_fn(|request: Request<()>| {
            sender.send((handle(&request), round)).unwrap();
            // The other thread takes it.
            for _ in 0..2000 {
                spin_loop();
            }
            turn.store(round, Ordering::Release);
            std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
        });
        let response = layer.layer(inner).oneshot(Browser::default().request());
        let response = runtime.block_on(response).unwrap();
        let has_cookie = response.headers().contains_key(SET_COOKIE);
        match (answered.recv().unwrap().0, has_cookie) {
            (Ok(()), true) | (Err(Error::ResponseSent), false) => {}
            odd => panic!("round {round}: {odd:?}"),
        }
    }
    drop(sender);
    other.join().unwrap();
}
