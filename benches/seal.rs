//! What sealing a value costs beside the cipher alone; it needs no server. The bar: 1.15 times.
//!
//! Both fill a buffer, take a random nonce and encrypt in place, or copy and decrypt in place. The
//! cipher alone has its key ready; sealing derives the partition's and covers the value's place.

use std::hint::black_box;

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use criterion::{Criterion, criterion_group, criterion_main};
use tower_token_cache::seal::{Bench, RingKey};
use zeroize::Zeroizing;

/// A user's tokens in all: access, refresh and id token.
const PAYLOAD: usize = 7 << 10;

fn seal(criterion: &mut Criterion) {
    let payload = vec![b'x'; PAYLOAD];
    let cipher = Aes256GcmSiv::new(&[9; 32].into());
    let bench = Bench::new(RingKey::from_bytes([9; 32]));

    let encrypt = |payload: &[u8]| {
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).expect("random numbers");
        let mut buffer = Zeroizing::new(Vec::with_capacity(12 + payload.len() + 16));
        buffer.extend_from_slice(&nonce);
        buffer.extend_from_slice(payload);
        let tag = cipher
            .encrypt_inout_detached(&nonce, &[], buffer[12..].as_mut().into())
            .expect("short enough");
        buffer.extend_from_slice(&tag);
        buffer
    };
    let decrypt = |value: &[u8]| {
        let (nonce, rest) = value.split_at(12);
        let (payload, tag) = rest.split_at(rest.len() - 16);
        let nonce = Nonce::try_from(nonce).expect("12 bytes");
        let tag = Tag::try_from(tag).expect("16 bytes");
        let mut payload = Zeroizing::new(payload.to_vec());
        cipher
            .decrypt_inout_detached(&nonce, &[], payload.as_mut_slice().into(), &tag)
            .expect("sound");
        payload
    };

    let mut group = criterion.benchmark_group("7 KB");
    group.bench_function("cipher alone: encrypt", |bencher| {
        bencher.iter(|| encrypt(black_box(&payload)));
    });
    group.bench_function("seal", |bencher| {
        bencher.iter(|| bench.seal(black_box(&payload)))
    });
    let encrypted = encrypt(&payload);
    group.bench_function("cipher alone: decrypt", |bencher| {
        bencher.iter(|| decrypt(black_box(&encrypted)));
    });
    let sealed = bench.seal(&payload);
    group.bench_function("open", |bencher| {
        bencher.iter(|| bench.open(black_box(&sealed)).expect("sound"));
    });
    group.finish();
}

criterion_group!(benches, seal);
criterion_main!(benches);
