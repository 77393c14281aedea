//! Where an application meets the cache: the middleware of both frameworks, sessions in cookies,
//! requests that go out with a token, grants and logins at a real provider, the status of errors, and the examples as processes.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test")]

mod actix;
mod bff;
mod cookie;
mod errors;
mod grant_clients;
mod grants;
mod layer;
mod login;
mod logout;
mod outgoing;
mod outgoing_challenges;
mod playground;
mod session;
mod two_providers;
mod unauthorized;
