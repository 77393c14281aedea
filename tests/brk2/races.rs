//! A clone of the handle that works while the response head is made.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use common::support::*;
use http::header::SET_COOKIE;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{Error, MemoryStore, TokenCache, Tokens};

use crate::browser::*;

/// insert: "Where the layer issues session ids, an anonymous request gets a session", or it is `Error::ResponseSent`. A
/// clone inserts at the moment when the handler returns.
#[test]
fn a_session_that_begins_beside_the_head_is_in_it_or_is_refused() {
    let cache = TokenCache::builder(MemoryStore::new()).build().unwrap();
    let layer = issuing(&cache);
    let turn = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel::<(Tokens, usize, usize)>();
    let (answers, answered) = mpsc::channel();
    let other = {
        let turn = turn.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.unwrap();
            while let Ok((tokens, round, pause)) = receiver.recv() {
                let inserts = tokens.insert("state", token("s"));
                while turn.load(Ordering::Acquire) != round {
                    std::hint::spin_loop();
                }
                for _ in 0..pause {
                    std::hint::spin_loop();
                }
                let inserted = runtime.block_on(inserts);
                answers.send((inserted, tokens)).unwrap();
            }
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let (mut carried, mut refused, mut lost) = (0, 0, 0);
    let began = std::time::Instant::now();
    let mut round = 0;
    while lost == 0 && began.elapsed() < std::time::Duration::from_secs(60) {
        round += 1;
        let inner = service_fn(|request: Request<()>| {
            let tokens = handle(&request);
            sender.send((tokens, round, round % 400)).unwrap();
            // The other thread has it.
            for _ in 0..2000 {
                std::hint::spin_loop();
            }
            turn.store(round, Ordering::Release);
            std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
        });
        let request = Browser::default().request();
        let response = runtime
            .block_on(layer.layer(inner).oneshot(request))
            .unwrap();
        let has_cookie = response.headers().contains_key(SET_COOKIE);
        match (answered.recv().unwrap().0, has_cookie) {
            (Ok(()), true) => carried += 1,
            (Err(Error::ResponseSent), false) => refused += 1,
            (Ok(()), false) => lost += 1,
            odd => panic!("{odd:?}"),
        }
    }
    drop(sender);
    other.join().unwrap();
    println!("{round} rounds: {carried} carried, {refused} refused");
    assert_eq!(
        lost, 0,
        "kept in a session that no browser has, after {round} rounds"
    );
}
