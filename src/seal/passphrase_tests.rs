#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;

const KEY: [u8; 32] = [5; 32];

#[tokio::test]
async fn passphrases_can_be_rolled() {
    let old = PassphraseProtector::new("the old passphrase").unwrap();
    let new = PassphraseProtector::new("the new passphrase").unwrap();
    let both = PassphraseProtector::new("the new passphrase").unwrap();
    let both = both.accept("the old passphrase").unwrap();
    let by_old = old.protect(&KEY).await.unwrap();
    assert_eq!(both.unprotect(&by_old).await.unwrap()[..], KEY);
    let refused = new.unprotect(&by_old).await.unwrap_err();
    assert_eq!(refused.kind(), KeyRingErrorKind::Protector);
    let by_both = both.protect(&KEY).await.unwrap();
    assert_eq!(new.unprotect(&by_both).await.unwrap()[..], KEY);
    // `both` has the salt of what it read first, and `new` that of what `both` has wrapped.
    assert_eq!(both.id(), new.id());
    assert_ne!(both.id(), old.id());
}

#[tokio::test]
async fn what_was_changed_does_not_unwrap() {
    let protector = PassphraseProtector::new("a good passphrase").unwrap();
    let wrapped = protector.protect(&KEY).await.unwrap();
    for at in [0, 17, 40, wrapped.len() - 1] {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        assert!(protector.unprotect(&changed).await.is_err(), "byte {at}");
    }
    assert!(protector.unprotect(&wrapped[..10]).await.is_err());
}

#[test]
fn short_ones_are_refused_and_none_is_shown() {
    let error = PassphraseProtector::new("short").unwrap_err();
    assert_eq!(error.kind(), KeyRingErrorKind::Malformed);
    let protector = PassphraseProtector::new("a good passphrase").unwrap();
    assert_eq!(format!("{protector:?}"), "PassphraseProtector { .. }");
}
