//! Sessions in cookies, over real HTTP.

mod actix;
mod attacks;
mod conformance;
mod golden;
pub mod jar;
mod playgrounds;
mod server;
mod sessions;
mod sign_ins;
mod sign_outs;
mod values;
