//! Whatever stands under one of our keys in L2, opening it must not panic. Inputs that begin with
//! the known key's id get as far as the cipher.
//!
//! `cargo +nightly fuzz run open tests/golden`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tower_token_cache::open_value(bytes);
});
