#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::key::PartitionKey;
use crate::store::Names;

const ID: KeyId = KeyId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]);

fn key() -> SealingKey {
    SealingKey::new(ID, &RingKey::from_bytes([9; 32]))
}

fn open(key: &SealingKey, place: Place<'_>, value: &[u8]) -> Option<Wiped<Vec<u8>>> {
    key.of_partition(place.partition).open(place, value)
}

fn partition(user: &str) -> PartitionId {
    let namespace: Arc<str> = "ttc".into();
    Names::keyed(&[7; 32]).partition(&namespace, &PartitionKey::user(user).unwrap())
}

fn place<'a>(partition: &'a PartitionId, generation: u64, name: &str) -> Place<'a> {
    Place {
        partition,
        generation,
        entry: Names::keyed(&[7; 32]).entry(name),
    }
}

fn sealed(key: &SealingKey, place: Place<'_>, payload: &[u8]) -> Vec<u8> {
    let mut buffer = Wiped::new(Vec::with_capacity(BEFORE + payload.len() + AFTER));
    buffer.resize(BEFORE, 0);
    buffer.extend_from_slice(payload);
    let (at, room) = (buffer.as_ptr(), buffer.capacity());
    let sealer = key.of_partition(place.partition);
    sealer.seal(place, &mut buffer).unwrap();
    assert_eq!((buffer.as_ptr(), buffer.capacity()), (at, room), "in place");
    buffer.to_vec()
}

#[test]
fn a_value_opens_in_its_place_only() {
    let (ada, bob) = (partition("ada"), partition("bob"));
    let home = place(&ada, 3, "graph");
    let value = sealed(&key(), home, b"payload");
    assert_eq!(&**open(&key(), home, &value).unwrap(), b"payload");
    for other in [
        place(&bob, 3, "graph"),
        place(&ada, 3, "mail"),
        place(&ada, 2, "graph"),
        place(&ada, 4, "graph"),
    ] {
        assert!(open(&key(), other, &value).is_none(), "{other:?}");
    }
    let other = SealingKey::new(ID, &RingKey::from_bytes([10; 32]));
    assert!(open(&other, home, &value).is_none());
    let renamed = SealingKey::new(KeyId::from_bytes([0; 8]), &RingKey::from_bytes([9; 32]));
    assert!(
        open(&renamed, home, &value).is_none(),
        "the key's id is bound"
    );
}

#[test]
fn every_bit_counts() {
    let ada = partition("ada");
    let home = place(&ada, 0, "graph");
    let value = sealed(&key(), home, b"a payload of some length");
    for bit in 0..8 * value.len() {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let ours = key_id(&flipped) == Some(ID);
        assert!(!ours || open(&key(), home, &flipped).is_none(), "bit {bit}");
    }
    for length in 0..value.len() {
        assert!(open(&key(), home, &value[..length]).is_none());
    }
}

#[test]
fn nonces_differ() {
    let ada = partition("ada");
    let home = place(&ada, 0, "graph");
    let seal = |_| sealed(&key(), home, b"same")[11..23].to_vec();
    let mut nonces: std::collections::HashSet<Vec<u8>> = (0..1000).map(seal).collect();
    // Each thread draws its own.
    std::thread::scope(|scope| {
        let others = scope.spawn(|| (0..1000).map(seal).collect::<Vec<_>>());
        nonces.extend(others.join().unwrap());
    });
    assert_eq!(nonces.len(), 2000);
}

/// Worked out with another implementation (Python's `cryptography`), see the test's name for what.
#[test]
fn the_sealed_format_is_as_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sealed.v1.bin");
    let value = std::fs::read(path).unwrap();
    let ada = partition("ada");
    let payload = open(&key(), place(&ada, 3, "graph"), &value).unwrap();
    let (name, value) = crate::codec::read(&payload, |name| name == "graph").unwrap();
    assert_eq!(name.as_ref(), "graph");
    let token = crate::token::Token::new("access-token");
    assert_eq!(value, crate::codec::Value::Token(token));
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        payload in proptest::collection::vec(any::<u8>(), 0..5000),
        secret in any::<[u8; 32]>(),
        id in any::<[u8; 8]>(),
        user in "[a-z]{1,30}",
        name in "[a-z]{1,30}",
        generation in any::<u64>(),
    ) {
        let key = SealingKey::new(KeyId::from_bytes(id), &RingKey::from_bytes(secret));
        let partition = partition(&user);
        let home = place(&partition, generation, &name);
        let value = sealed(&key, home, &payload);
        prop_assert_eq!(key_id(&value), Some(key.id));
        prop_assert_eq!(&**open(&key, home, &value).unwrap(), &payload[..]);
        if payload.len() > 16 {
            prop_assert!(!value.windows(16).any(|window| window == &payload[..16]));
        }
    }

    #[test]
    fn whatever_is_not_sealed_does_not_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let ada = partition("ada");
        let framed = [&HEADER[..], ID.as_bytes(), &bytes].concat();
        prop_assert!(open(&key(), place(&ada, 0, "graph"), &bytes).is_none());
        prop_assert!(open(&key(), place(&ada, 0, "graph"), &framed).is_none());
    }
}
