//! Back-channel logout: tokens of an issuer of the test's own, and of a real OpenID provider.

mod forged;
mod issuer;
mod keys;
mod once;
mod real_provider;
mod requests;
mod tokens;
