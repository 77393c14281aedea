//! Whatever stands under one of our keys in L2, decoding it must not panic.
//!
//! `cargo +nightly fuzz run decode tests/golden`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tower_token_cache::decode_entry(bytes);
});
