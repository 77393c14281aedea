//! Sessions whose ids the layer issues.

mod actix;
mod beside;
mod beside_actix;
mod beside_the_head;
mod browser;
mod cookie;
mod dropped;
mod faults;
mod left;
mod nested;
mod other_keys;
mod renewal;
mod sign_in;
