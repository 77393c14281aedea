//! Sessions whose ids the layer issues.

mod actix;
mod beside;
mod browser;
mod cookie;
mod faults;
mod sign_in;
