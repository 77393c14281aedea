//! Ring keys at rest: wrapped, unwrapped by whoever may, and by nobody else.

use tower_token_cache::seal::{
    CertificateProtector, KeyProtector, KeyRingErrorKind, PassphraseProtector,
};

use super::*;

const OLD: &str = include_str!("../certificates/old.pem");
const NEW: &str = include_str!("../certificates/new.pem");

async fn open(shared: &Shared, protector: impl KeyProtector) -> Result<KeyRing, KeyRingErrorKind> {
    let ring = KeyRing::open_in_store(shared.clone(), protector).await;
    ring.map_err(|error| error.kind())
}

fn certificate(pem: &str) -> CertificateProtector {
    CertificateProtector::from_pem(pem).unwrap()
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_ring_stays() {
    let shared = Shared::default();
    let ring = open(&shared, certificate(OLD)).await.unwrap();
    assert_eq!(
        open(&shared, certificate(NEW)).await.unwrap_err(),
        KeyRingErrorKind::Protector
    );
    assert_eq!(
        shared.names().len(),
        2,
        "nothing was added by who cannot read"
    );
    let both = certificate(NEW).accept_pem(OLD).unwrap();
    assert_eq!(open(&shared, both).await.unwrap().keys(), ring.keys());
    assert_eq!(shared.names().len(), 4, "copies for the new certificate");
    assert_eq!(
        open(&shared, certificate(NEW)).await.unwrap().keys(),
        ring.keys()
    );
    assert_eq!(
        open(&shared, certificate(OLD)).await.unwrap().keys(),
        ring.keys()
    );
    assert_eq!(shared.names().len(), 4);
}

#[tokio::test]
async fn one_kind_of_protection_is_replaced_by_another() {
    let shared = Shared::default();
    let passphrase = || PassphraseProtector::new("a test passphrase").unwrap();
    let ring = open(&shared, passphrase()).await.unwrap();
    let builder = KeyRing::builder(shared.clone());
    let both = builder.protector(certificate(NEW)).protector(passphrase());
    both.open().await.unwrap();
    assert_eq!(
        open(&shared, certificate(NEW)).await.unwrap().keys(),
        ring.keys()
    );
    let other = PassphraseProtector::new("another passphrase").unwrap();
    assert_eq!(
        open(&shared, other).await.unwrap_err(),
        KeyRingErrorKind::Protector
    );
}

#[tokio::test]
async fn keys_in_the_clear_and_wrapped_keys_are_not_mixed() {
    let shared = Shared::default();
    KeyRing::builder(shared.clone()).open().await.unwrap();
    assert_eq!(
        open(&shared, key(1)).await.unwrap_err(),
        KeyRingErrorKind::Unprotected
    );
    let shared = Shared::default();
    open(&shared, key(1)).await.unwrap();
    let bare = KeyRing::builder(shared).open().await.unwrap_err();
    assert_eq!(bare.kind(), KeyRingErrorKind::Protector);
}

/// A key of the attacker's own beside ours would seal when its time comes.
#[tokio::test]
async fn a_key_that_was_planted_is_passed_over() {
    let (shared, theirs) = (Shared::default(), Shared::default());
    let ring = open(&shared, key(1)).await.unwrap();
    KeyRing::builder(theirs.clone()).open().await.unwrap();
    let stranger = KeyRing::builder(theirs.clone()).open().await.unwrap();
    stranger.rotate().await.unwrap();
    let planted = theirs.0.lock().unwrap()["key-00000002"].clone();
    shared.add(&planted).await.unwrap();
    ring.refresh().await.unwrap();
    assert_eq!(ring.keys().len(), 1);
    // Nor does a wrapped key serve under another's name.
    let mut moved = shared.0.lock().unwrap()["key-00000001"].clone();
    moved.name = "key-00000003".into();
    shared.add(&moved).await.unwrap();
    assert_eq!(open(&shared, key(1)).await.unwrap().keys(), ring.keys());
}

/// A key service, as in the documentation of the trait: it knows the keys that it wraps with.
#[tokio::test]
async fn a_key_service_unwraps_each_key_once() {
    #[derive(Clone, Default)]
    struct Service(Arc<Mutex<u32>>);
    impl KeyProtector for Service {
        fn id(&self) -> String {
            "https://vault.example/keys/ring/1".into()
        }
        fn protect<'a>(&'a self, key: &'a [u8; 32]) -> KeyFuture<'a, Vec<u8>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(key.iter().map(|byte| byte ^ 0x5a).collect())
            })
        }
        fn unprotect<'a>(
            &'a self,
            wrapped: &'a [u8],
        ) -> KeyFuture<'a, zeroize::Zeroizing<Vec<u8>>> {
            *self.0.lock().unwrap() += 1;
            Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(wrapped
                    .iter()
                    .map(|byte| byte ^ 0x5a)
                    .collect::<Vec<u8>>()
                    .into())
            })
        }
    }
    let (shared, service) = (Shared::default(), Service::default());
    let ring = open(&shared, service.clone()).await.unwrap();
    let calls = || *service.0.lock().unwrap();
    let before = calls();
    ring.refresh().await.unwrap();
    ring.refresh().await.unwrap();
    assert_eq!(calls(), before, "known keys are not unwrapped again");
    ring.rotate().await.unwrap();
    assert_eq!(calls(), before + 1);
    assert!(
        shared
            .text("naming")
            .contains("https://vault.example/keys/ring/1")
    );
}

/// Made by another implementation; they must unwrap for ever.
#[tokio::test]
async fn keys_wrapped_as_documented_unwrap() {
    let golden = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        std::fs::read(format!("{folder}/{name}.v1.bin")).unwrap()
    };
    let passphrase = PassphraseProtector::new("a golden passphrase").unwrap();
    let protectors: [(&str, Box<dyn KeyProtector>); 3] = [
        ("wrapped_by_key", Box::new(key(9))),
        ("wrapped_by_certificate", Box::new(certificate(OLD))),
        ("wrapped_by_passphrase", Box::new(passphrase)),
    ];
    for (name, protector) in protectors {
        let unwrapped = protector.unprotect(&golden(name)).await.unwrap();
        assert_eq!(unwrapped[..], [5; 32], "{name}");
    }
}
