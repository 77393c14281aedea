//! Ring keys at rest: wrapped, unwrapped by whoever may, and by nobody else.

use tower_token_cache::seal::{
    CertificateProtector, KeyProtector, KeyRingErrorKind, PassphraseProtector,
};

use tower_token_cache::SqliteStore;

use super::*;

const OLD: &str = include_str!("../../certificates/old.pem");
const NEW: &str = include_str!("../../certificates/new.pem");

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
        async fn protect(&self, key: &[u8; 32]) -> Result<Vec<u8>, KeyRingError> {
            tokio::task::yield_now().await;
            Ok(key.iter().map(|byte| byte ^ 0x5a).collect())
        }
        async fn unprotect(
            &self,
            wrapped: &[u8],
        ) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyRingError> {
            *self.0.lock().unwrap() += 1;
            tokio::task::yield_now().await;
            Ok(wrapped
                .iter()
                .map(|byte| byte ^ 0x5a)
                .collect::<Vec<u8>>()
                .into())
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
    async fn unwraps(name: &str, protector: impl KeyProtector) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let golden = std::fs::read(format!("{folder}/{name}.v1.bin")).unwrap();
        let unwrapped = protector.unprotect(&golden).await.unwrap();
        assert_eq!(unwrapped[..], [5; 32], "{name}");
    }
    let passphrase = PassphraseProtector::new("a golden passphrase").unwrap();
    unwraps("wrapped_by_key", key(9)).await;
    unwraps("wrapped_by_certificate", certificate(OLD)).await;
    unwraps("wrapped_by_passphrase", passphrase).await;
}

/// A digest of the passphrase that is the same everywhere could be looked up in one dictionary for all.
#[tokio::test]
async fn two_repositories_do_not_show_that_they_have_the_same_passphrase() {
    let open = async || {
        let shared = Shared::default();
        let protector = PassphraseProtector::new("a test passphrase").unwrap();
        open(&shared, protector).await.unwrap();
        let content: serde_json::Value = serde_json::from_str(&shared.text("naming")).unwrap();
        content["protector"].as_str().unwrap().to_owned()
    };
    assert_ne!(open().await, open().await);
}

/// Instances that begin at the same time agree on how the passphrase is called in a repository: no
/// copies are made of what all of them can read.
#[tokio::test]
async fn one_passphrase_has_one_name_in_a_repository() {
    let shared = Shared::default();
    let passphrase = || PassphraseProtector::new("a test passphrase").unwrap();
    let ring = open(&shared, passphrase()).await.unwrap();
    ring.rotate().await.unwrap();
    for _ in 0..3 {
        let other = open(&shared, passphrase()).await.unwrap();
        other.rotate().await.unwrap();
    }
    let names = shared.names();
    assert!(names.iter().all(|name| !name.contains('.')), "{names:?}");
    // And when the passphrase is replaced, one copy of each.
    for _ in 0..3 {
        let new = PassphraseProtector::new("the next passphrase").unwrap();
        let both = new.accept("a test passphrase").unwrap();
        open(&shared, both).await.unwrap();
    }
    assert_eq!(
        shared.names().len(),
        2 * names.len(),
        "{:?}",
        shared.names()
    );
    let new = PassphraseProtector::new("the next passphrase").unwrap();
    open(&shared, new).await.unwrap();
}

/// As made by the first release, where a passphrase was called the same in all repositories.
#[tokio::test]
async fn records_of_a_passphrase_with_the_old_name_are_read() {
    let shared = Shared::default();
    let passphrase = || PassphraseProtector::new("a test passphrase").unwrap();
    let ring = open(&shared, passphrase()).await.unwrap();
    for name in shared.names() {
        let mut content: serde_json::Value = serde_json::from_str(&shared.text(&name)).unwrap();
        content["protector"] = "passphrase:0011223344556677".into();
        shared.set_text(&name, &content.to_string());
    }
    assert_eq!(
        open(&shared, passphrase()).await.unwrap().keys(),
        ring.keys()
    );
}

/// Each derivation costs 64 MiB and a tenth of a second: what did not open once is not tried again.
#[tokio::test]
async fn invented_salts_cost_a_derivation_once() {
    let shared = Shared::default();
    let passphrase = PassphraseProtector::new("a test passphrase").unwrap();
    let ring = open(&shared, passphrase).await.unwrap();
    let invented: serde_json::Value = serde_json::from_str(&shared.text("key-00000001")).unwrap();
    for number in 0..40_u8 {
        let mut content = invented.clone();
        let wrapped = [&[1][..], &[number; 16], &[7; 60]].concat();
        let wrapped = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, wrapped);
        content["key"] = wrapped.into();
        let name = format!("key-{:08}", u32::from(number) + 2);
        let record = KeyRecord::new(name, content.to_string().into_bytes());
        shared.add(&record).await.unwrap();
    }
    let timed = async || {
        let started = std::time::Instant::now();
        ring.refresh().await.unwrap();
        started.elapsed()
    };
    let first = timed().await;
    let again = timed().await;
    assert!(again * 10 < first, "{first:?}, then {again:?}");
    assert_eq!(ring.keys().len(), 1);
}

#[tokio::test]
async fn keys_in_the_clear_beside_what_they_seal_need_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("cache.db"))
        .await
        .unwrap();
    let server = RedisServer::start();
    let redis = redis_store(&server).await;
    for bare in [
        KeyRing::builder(store.keys("ttc")),
        KeyRing::builder(redis.keys("ttc")),
        KeyRing::builder(Arc::new(redis.keys("ttc"))),
    ] {
        let error = bare.open().await.unwrap_err();
        assert_eq!(error.kind(), KeyRingErrorKind::NoProtector);
    }
    assert!(
        server.query::<Vec<String>>("KEYS *").is_empty(),
        "nothing was made"
    );
    let keys = || KeyRing::builder(store.keys("ttc"));
    let meant = keys().unprotected().open().await.unwrap();
    assert_eq!(
        keys().unprotected().open().await.unwrap().keys(),
        meant.keys()
    );
    KeyRing::open_in_store(redis.keys("ttc"), key(1))
        .await
        .unwrap();
}
