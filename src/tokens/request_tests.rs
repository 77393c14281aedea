//! The head of a response goes out while a clone begins a session.

use std::sync::mpsc;
use std::thread;

use super::{Session, Tokens};
use crate::cache::TokenCache;
use crate::policy::{FailurePolicy, WriteMode};
use crate::session::{Cookie, Issue};
use crate::store::MemoryStore;

/// How long the clone holds the head: enough for the response to come to it.
const TURNS: u32 = 2000;

#[test]
fn the_cookie_is_that_of_the_session_when_the_head_closes() {
    let cache = TokenCache::builder(MemoryStore::new())
        .build()
        .expect("valid settings");
    let tokens = Tokens::new(
        cache.0.clone(),
        None,
        FailurePolicy::Degrade,
        WriteMode::AfterResponse,
    );
    let tokens = tokens.issuing(Issue::new(Cookie::new("sid").expect("a name"), Ok(None)));
    let issue = tokens.handle.issue.as_ref().expect("it issues ids");
    let mut head = issue.head();
    let (sender, begun) = mpsc::channel();
    let line = thread::scope(|scope| {
        let responds = scope.spawn(|| {
            sender.send(()).expect("it is waited for");
            tokens.session_cookie()
        });
        begun.recv().expect("it begins");
        // It waits for the head now, or will.
        (0..TURNS).for_each(|_| thread::yield_now());
        let session = Session::new(head.begin().expect("random numbers"));
        tokens.handle.sessions.replace(Some(session));
        head.set();
        drop(head);
        responds.join().expect("no panic")
    });
    assert!(line.is_some_and(|line| line.starts_with("__Host-sid=")));
    assert!(issue.head().check_open().is_err());
}
