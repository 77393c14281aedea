//! Attacks on what the documentation promises, in ways that the other tests do not try. A test that fails shows a
//! promise that is broken.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test")]

#[path = "../web/session/browser.rs"]
#[expect(dead_code, reason = "of the binary that it belongs to")]
mod browser;
mod clients;
mod cookie_store;
mod health;
mod killed;
mod memcached;
mod outages;
mod sqlite;
mod values;
mod waits;
