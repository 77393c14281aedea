#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::key::PartitionKey;
use crate::seal::{AFTER, BEFORE};

fn key(byte: u8) -> String {
    RingKey::from_bytes([byte; 32]).to_base64().to_string()
}

fn id(ring: &KeyRing) -> PartitionId {
    let user = PartitionKey::user("ada").unwrap();
    ring.names().partition(&"ttc".into(), &user)
}

fn sealed(ring: &KeyRing) -> Vec<u8> {
    let mut buffer = Wiped::new(Vec::with_capacity(BEFORE + 7 + AFTER));
    buffer.resize(BEFORE, 0);
    buffer.extend_from_slice(b"payload");
    let id = id(ring);
    ring.sealer(&id).seal(place(&id), &mut buffer).unwrap();
    buffer.to_vec()
}

fn place(partition: &PartitionId) -> Place<'_> {
    Place {
        partition,
        generation: 0,
        entry: [0; 16].into(),
    }
}

fn opens(ring: &KeyRing, value: &[u8]) -> Result<(), Unopenable> {
    let id = id(ring);
    ring.opener(&id).open(place(&id), value).map(drop)
}

#[test]
fn values_of_one_load_may_have_different_keys() {
    let rolled = |active, other| {
        let text = format!("{},{},names={}", key(active), key(other), key(1));
        KeyRing::parse(&text).unwrap()
    };
    let (old, new) = (rolled(1, 2), rolled(2, 1));
    let id = id(&new);
    let mut opener = new.opener(&id);
    let values = [&old, &new, &new, &old].map(sealed);
    for value in &values {
        assert!(opener.open(place(&id), value).is_ok());
        assert_eq!(
            opener.open(place(&id), b"").err(),
            Some(Unopenable::Tampered)
        );
    }
}

#[test]
fn the_first_key_of_the_environment_is_active() {
    let ring = KeyRing::parse(&format!(" {}, {},\n", key(1), key(2))).unwrap();
    let only = |byte| KeyRing::from_keys(RingKey::from_bytes([byte; 32]), []);
    assert_eq!(ring.active(), only(1).active());
    assert_eq!(ring.keys().len(), 2);
    let active: Vec<_> = ring.keys().into_iter().filter(|key| key.active).collect();
    assert_eq!(active.len(), 1);
    assert_eq!(active[0].id, ring.active());
}

/// The table in the documentation of `from_env`.
#[test]
fn keys_of_the_environment_can_be_rolled() {
    let (k1, k2) = (key(1), key(2));
    let steps = [
        k1.clone(),
        format!("{k1},{k2},names={k1}"),
        format!("{k2},{k1},names={k1}"),
        format!("{k2},names={k1}"),
    ];
    let rings: Vec<_> = steps
        .iter()
        .map(|step| KeyRing::parse(step).unwrap())
        .collect();
    for (older, newer) in rings.iter().zip(&rings[1..]) {
        assert_eq!(id(older), id(newer), "names stay");
    }
    // Instances at neighbouring steps open what the other seals.
    for (one, other) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)] {
        assert_eq!(
            opens(&rings[one], &sealed(&rings[other])),
            Ok(()),
            "{other} at {one}"
        );
    }
    assert_eq!(
        opens(&rings[3], &sealed(&rings[0])),
        Err(Unopenable::UnknownKey)
    );
}

#[test]
fn without_names_the_last_key_gives_them() {
    let ring = |text: String| KeyRing::parse(&text).unwrap();
    assert_eq!(
        id(&ring(key(1))),
        id(&ring(format!("{},{}", key(2), key(1))))
    );
    assert_ne!(id(&ring(key(1))), id(&ring(key(2))));
}

#[test]
fn a_bad_environment_is_a_typed_error() {
    let kind = |text: &str| KeyRing::parse(text).unwrap_err().kind();
    assert_eq!(kind(""), KeyRingErrorKind::Missing);
    assert_eq!(kind(" , "), KeyRingErrorKind::Missing);
    assert_eq!(
        kind(&format!("names={}", key(1))),
        KeyRingErrorKind::Missing
    );
    assert_eq!(kind("password"), KeyRingErrorKind::Malformed);
    assert_eq!(kind(&format!("{},x", key(1))), KeyRingErrorKind::Malformed);
    let twice = format!("{0},names={0},names={0}", key(1));
    assert_eq!(kind(&twice), KeyRingErrorKind::Malformed);
    for (variable, kind) in [
        ("TTC_THERE_IS_NO_SUCH_VARIABLE", KeyRingErrorKind::Missing),
        ("CARGO_MANIFEST_DIR", KeyRingErrorKind::Malformed),
    ] {
        let error = KeyRing::from_env(variable).unwrap_err();
        assert_eq!(error.kind(), kind);
        let shown = format!("{error} {error:?}");
        assert!(error.to_string().starts_with(&format!("{variable}: ")));
        assert!(!shown.contains(env!("CARGO_MANIFEST_DIR")), "{shown}");
    }
}

#[tokio::test]
async fn the_keys_of_an_application_are_its_own_to_change() {
    let ring = KeyRing::generate().unwrap();
    assert_eq!(
        ring.rotate().await.unwrap_err().kind(),
        KeyRingErrorKind::Fixed
    );
    let revoked = ring.revoke(ring.active()).await;
    assert_eq!(revoked.unwrap_err().kind(), KeyRingErrorKind::Fixed);
    ring.refresh().await.unwrap();
}

#[test]
fn debug_shows_ids_only() {
    let ring = KeyRing::from_keys(
        RingKey::from_bytes(*b"canary-canary-canary-canary-cana"),
        [],
    );
    let shown = format!("{ring:?}");
    assert!(shown.contains(&ring.active().to_string()), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}
