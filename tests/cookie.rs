//! Sessions in cookies, over real HTTP.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "cookie/actix.rs"]
mod actix;
#[path = "cookie/attacks.rs"]
mod attacks;
mod common;
#[path = "cookie/conformance.rs"]
mod conformance;
#[path = "cookie/golden.rs"]
mod golden;
#[path = "cookie/jar.rs"]
mod jar;
#[path = "cookie/playgrounds.rs"]
mod playgrounds;
#[path = "cookie/server.rs"]
mod server;
#[path = "cookie/sessions.rs"]
mod sessions;
#[path = "cookie/sign_outs.rs"]
mod sign_outs;
