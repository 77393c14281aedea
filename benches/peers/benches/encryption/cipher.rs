//! Sealing and opening of a user's values beside the cipher alone.
//!
//! Both fill buffers, take random nonces and encrypt in place, or copy and decrypt in place. The
//! cipher alone has its key ready and wipes nothing; sealing derives the partition's key, as once per
//! commit and once per load, covers each value's place, and wipes its buffers.

use std::hint::black_box;
use std::time::Instant;

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use peers::report::bar;
use peers::users::{ACCESS, ID, PAYLOAD, REFRESH};
use tower_token_cache::seal::{Bench, RingKey};

const ROUNDS: usize = 101;
const USERS: u32 = 500;

fn encrypt(cipher: &Aes256GcmSiv, payload: &[u8]) -> Vec<u8> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).expect("random numbers");
    let mut buffer = Vec::with_capacity(12 + payload.len() + 16);
    buffer.extend_from_slice(&nonce);
    buffer.extend_from_slice(payload);
    let tag = cipher
        .encrypt_inout_detached(&nonce, &[], buffer[12..].as_mut().into())
        .expect("short enough");
    buffer.extend_from_slice(&tag);
    buffer
}

fn decrypt(cipher: &Aes256GcmSiv, value: &[u8]) -> Vec<u8> {
    let (nonce, rest) = value.split_at(12);
    let (payload, tag) = rest.split_at(rest.len() - 16);
    let nonce = Nonce::try_from(nonce).expect("12 bytes");
    let tag = Tag::try_from(tag).expect("16 bytes");
    let mut payload = payload.to_vec();
    cipher
        .decrypt_inout_detached(&nonce, &[], payload.as_mut_slice().into(), &tag)
        .expect("sound");
    payload
}

/// Nanoseconds of one.
fn time<T>(mut work: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..USERS {
        black_box(work());
    }
    start.elapsed().as_nanos() as f64 / f64::from(USERS)
}

/// What is done, how long it takes for one user, and what was measured.
type Case<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>, Vec<f64>);

/// Prints the comparison. Returns whether the bars hold.
pub fn compare() -> bool {
    let payloads = [ACCESS, REFRESH, ID].map(|length| vec![b'x'; length]);
    let payloads = payloads.each_ref().map(Vec::as_slice);
    let cipher = Aes256GcmSiv::new(&[9; 32].into());
    let bench = Bench::new(RingKey::from_bytes([9; 32]));
    let encrypted = payloads.map(|payload| encrypt(&cipher, payload));
    let encrypted = encrypted.each_ref().map(Vec::as_slice);
    let sealed = bench.seal(payloads);
    let sealed = sealed.each_ref().map(AsRef::as_ref);
    let mut cases: [Case<'_>; 4] = [
        (
            "encrypt",
            Box::new(|| time(|| payloads.map(|payload| encrypt(&cipher, payload)))),
            Vec::new(),
        ),
        (
            "seal",
            Box::new(|| time(|| bench.seal(payloads))),
            Vec::new(),
        ),
        (
            "decrypt",
            Box::new(|| time(|| encrypted.map(|value| decrypt(&cipher, value)))),
            Vec::new(),
        ),
        ("open", Box::new(|| time(|| bench.open(sealed))), Vec::new()),
    ];
    for round in 0..=ROUNDS {
        for index in 0..cases.len() {
            let turn = (index + round) % cases.len();
            let (_, run, measured) = &mut cases[turn];
            let ns = run();
            // The first round warms up.
            measured.extend((round > 0).then_some(ns));
        }
    }
    // Other programs only ever slow a round down.
    let fastest = cases.each_ref().map(|(name, _, measured)| {
        let ns = measured.iter().copied().fold(f64::INFINITY, f64::min);
        (name, ns)
    });
    println!("{PAYLOAD} bytes in three values; the fastest of {ROUNDS} rounds of {USERS}\n");
    for (name, ns) in fastest {
        println!("{name:<12} {ns:>8.0} ns");
    }
    let ratio = |of: usize, to: usize| fastest[of].1 / fastest[to].1;
    println!();
    let seal = bar("seal / cipher alone", ratio(1, 0), 1.15, false);
    let open = bar("open / cipher alone", ratio(3, 2), 1.15, false);
    println!();
    seal && open
}
