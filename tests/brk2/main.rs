//! Attacks on what the documentation promises, in ways that the other tests do not try. A test that fails shows a
//! promise that is broken.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test")]

#[path = "../web/session/browser.rs"]
mod browser;
mod clients;
mod cookie_store;
mod cookies;
mod dropped;
mod health;
mod killed;
mod outages;
mod races;
mod sqlite;
mod values;
mod waits;
