//! Whatever a browser sends in our cookies, and whatever was sealed in them, reading it must not
//! panic.
//!
//! `cargo +nightly fuzz run cookies tests/golden`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tower_token_cache::read_cookies(bytes);
});
