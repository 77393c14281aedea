#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;

const OLD: &str = include_str!("../../tests/certificates/old.pem");
const OLD_SEC1: &str = include_str!("../../tests/certificates/old_sec1.pem");
const NEW: &str = include_str!("../../tests/certificates/new.pem");
const NEW_P12: &[u8] = include_bytes!("../../tests/certificates/new.p12");
const RSA: &str = include_str!("../../tests/certificates/rsa.pem");
const MISMATCHED: &str = include_str!("../../tests/certificates/mismatched.pem");
const KEY: [u8; 32] = [5; 32];

fn unwrapped(
    protector: &CertificateProtector,
    wrapped: &[u8],
) -> Result<Vec<u8>, KeyRingErrorKind> {
    let key = protector.unwrap(wrapped).map_err(|error| error.kind())?;
    Ok(key.to_vec())
}

#[test]
fn pem_of_both_kinds_and_pkcs12_are_the_same_certificate() {
    let pairs = [
        (
            CertificateProtector::from_pem(OLD).unwrap(),
            CertificateProtector::from_pem(OLD_SEC1).unwrap(),
        ),
        (
            CertificateProtector::from_pem(NEW).unwrap(),
            CertificateProtector::from_pkcs12(NEW_P12, "test-password").unwrap(),
        ),
    ];
    for (one, other) in pairs {
        assert_eq!(one.id(), other.id());
        assert_eq!(
            unwrapped(&other, &one.wrap(&KEY).unwrap()),
            Ok(KEY.to_vec())
        );
    }
}

#[test]
fn certificates_can_be_rolled() {
    let old = CertificateProtector::from_pem(OLD).unwrap();
    let new = CertificateProtector::from_pkcs12(NEW_P12, "test-password").unwrap();
    let both = CertificateProtector::from_pem(NEW)
        .unwrap()
        .accept_pem(OLD)
        .unwrap();
    let by_old = old.wrap(&KEY).unwrap();
    assert_eq!(unwrapped(&new, &by_old), Err(KeyRingErrorKind::Protector));
    assert_eq!(unwrapped(&both, &by_old), Ok(KEY.to_vec()));
    let by_both = both.wrap(&KEY).unwrap();
    assert_eq!(unwrapped(&new, &by_both), Ok(KEY.to_vec()));
    assert_eq!(unwrapped(&old, &by_both), Err(KeyRingErrorKind::Protector));
    let p12 = old.accept_pkcs12(NEW_P12, "test-password").unwrap();
    assert_eq!(unwrapped(&p12, &by_both), Ok(KEY.to_vec()));
}

#[test]
fn what_was_changed_does_not_unwrap() {
    let protector = CertificateProtector::from_pem(OLD).unwrap();
    let wrapped = protector.wrap(&KEY).unwrap();
    assert!(!wrapped.windows(8).any(|window| window == [5; 8]));
    for at in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        assert!(unwrapped(&protector, &changed).is_err(), "byte {at}");
        assert!(unwrapped(&protector, &wrapped[..at]).is_err());
    }
}

#[test]
fn what_is_no_p256_certificate_is_refused() {
    for pem in [
        "",
        "-----BEGIN CERTIFICATE-----",
        RSA,
        MISMATCHED,
        &OLD[..OLD.len() / 2],
    ] {
        let error = CertificateProtector::from_pem(pem).unwrap_err();
        assert_eq!(error.kind(), KeyRingErrorKind::Malformed);
    }
    for (file, password) in [(NEW_P12, "wrong"), (b"no file", "test-password")] {
        let error = CertificateProtector::from_pkcs12(file, password).unwrap_err();
        assert_eq!(error.kind(), KeyRingErrorKind::Malformed);
    }
}
