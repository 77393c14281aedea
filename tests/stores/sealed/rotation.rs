//! Keys come, seal, and are revoked, while nobody is signed out.

use std::time::Duration;

use tower_token_cache::seal::{KeyRingBuilder, KeyRingErrorKind};
use tower_token_cache::{Clock, MemoryStore, Timestamp};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_800_000_000_000))
}

fn on(repository: &Shared, clock: &Clock) -> KeyRingBuilder {
    KeyRing::builder(repository.clone()).clock(clock.clone())
}

/// Every user can be read by every instance.
async fn assert_no_miss(caches: &[TokenCache], users: usize) {
    for cache in caches {
        for user in 0..users {
            let key = session(&format!("s{user}"));
            assert!(hit(cache, &key, "graph").await.is_some(), "session s{user}");
        }
        assert_eq!(cache.stats().unopenable, 0);
    }
}

#[tokio::test]
async fn two_instances_rotate_without_a_miss() {
    let (repository, clock) = (Shared::default(), clock());
    // Tokens that outlive every rotation: nothing expires on this clock.
    let store = MemoryStore::new();
    let a = on(&repository, &clock).open().await.unwrap();
    let b = on(&repository, &clock).open().await.unwrap();
    let caches = [sealed(store.clone(), &a), sealed(store.clone(), &b)];
    let mut users = 0;
    let mut write = async |cache: &TokenCache| {
        let tokens = cache.tokens(session(&format!("s{users}")));
        tokens
            .insert("graph", tower_token_cache::Token::new("t"))
            .await
            .unwrap();
        assert_stored(tokens.commit().await.unwrap());
        users += 1;
        users
    };
    let first = a.active();
    assert_eq!(b.active(), first);

    // 88 days: nothing happens. On day 89 A makes the next key, a day ahead of its use.
    clock.advance(DAY * 88);
    a.refresh().await.unwrap();
    assert_eq!(a.keys().len(), 1);
    clock.advance(DAY);
    a.refresh().await.unwrap();
    assert_eq!((a.keys().len(), b.keys().len()), (2, 1));
    assert_eq!(a.active(), first, "it does not seal yet");
    write(&caches[0]).await;
    write(&caches[1]).await;

    // B learns of it in its own time, and makes no third.
    clock.advance(HOUR);
    b.refresh().await.unwrap();
    assert_eq!(b.keys(), a.keys());
    assert_eq!(b.active(), first);

    clock.advance(DAY);
    let second = a.active();
    assert_ne!(second, first);
    assert_eq!(b.active(), second, "without another refresh");
    write(&caches[0]).await;
    let users = write(&caches[1]).await;
    assert_no_miss(&caches, users).await;
    assert_eq!(
        repository.names(),
        ["key-00000001", "key-00000002", "naming"]
    );
}

/// It was asleep, or its repository was away, for longer than the activation delay.
#[tokio::test]
async fn an_instance_with_an_old_ring_catches_up_with_what_it_reads() {
    let (repository, clock) = (Shared::default(), clock());
    let store = MemoryStore::new();
    let awake = on(&repository, &clock).open().await.unwrap();
    let asleep = on(&repository, &clock).open().await.unwrap();
    let sleeper = sealed(store.clone(), &asleep);
    awake.rotate().await.unwrap();
    clock.advance(DAY * 2);
    store_token(&sealed(store, &awake), &session("s0"), "graph", "t").await;
    assert_eq!(asleep.keys().len(), 1);

    assert_no_miss(std::slice::from_ref(&sleeper), 1).await;
    assert_eq!(asleep.active(), awake.active());
    store_token(&sleeper, &session("s1"), "graph", "t").await;
    assert_no_miss(&[sleeper], 2).await;
}

/// A repository whose answers take this long, or fail.
#[derive(Clone, Default)]
struct Slow {
    shared: Shared,
    delay: Arc<Mutex<Duration>>,
    down: Arc<Mutex<bool>>,
    lists: Arc<Mutex<u32>>,
}

impl KeyRepository for Slow {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        *self.lists.lock().unwrap() += 1;
        let (delay, down) = (*self.delay.lock().unwrap(), *self.down.lock().unwrap());
        tokio::time::sleep(delay).await;
        match down {
            true => Err(KeyRingErrorKind::Unreachable.into()),
            false => self.shared.list().await,
        }
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        self.shared.add(record).await
    }
}

/// An instance that was asleep while another has rotated, and what that has sealed.
async fn asleep() -> (Slow, TokenCache, KeyRing) {
    let (repository, clock) = (Slow::default(), clock());
    let ring = KeyRing::builder(repository.clone()).clock(clock.clone());
    let ring = ring.open().await.unwrap();
    let store = MemoryStore::new();
    let sleeper = sealed(store.clone(), &ring);
    let awake = on(&repository.shared, &clock).open().await.unwrap();
    awake.rotate().await.unwrap();
    clock.advance(DAY * 2);
    store_token(&sealed(store, &awake), &session("s"), "graph", "t").await;
    (repository, sleeper, ring)
}

/// The first requests do not wait for an answer that takes too long, and those that come after it
/// have it: nobody asks anew, and nobody waits until it may be asked again.
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_is_of_use() {
    let (repository, sleeper, ring) = asleep().await;
    *repository.delay.lock().unwrap() = Duration::from_secs(2);
    let before = *repository.lists.lock().unwrap();
    let started = tokio::time::Instant::now();
    let key = session("s");
    let early = (0..20).map(|_| found(&sleeper, &key, "graph"));
    let early = futures_util::future::join_all(early);
    for found in early.await {
        assert!(matches!(found, Lookup::Unopenable));
    }
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "it was not waited for"
    );
    assert_eq!(*repository.lists.lock().unwrap(), before + 1);
    tokio::time::sleep_until(started + Duration::from_millis(2_100)).await;
    assert_eq!(ring.keys().len(), 2);
    assert_eq!(hit(&sleeper, &key, "graph").await.as_deref(), Some("t"));
}

/// As of a connection that was cut while a process was stopped.
#[tokio::test(start_paused = true)]
async fn a_repository_that_failed_is_asked_again_soon() {
    let (repository, sleeper, _) = asleep().await;
    *repository.down.lock().unwrap() = true;
    let before = *repository.lists.lock().unwrap();
    for _ in 0..20 {
        let found = found(&sleeper, &session("s"), "graph").await;
        assert!(matches!(found, Lookup::Unopenable));
    }
    assert_eq!(
        *repository.lists.lock().unwrap(),
        before + 1,
        "not for each"
    );
    *repository.down.lock().unwrap() = false;
    tokio::time::advance(Duration::from_millis(600)).await;
    assert_eq!(
        hit(&sleeper, &session("s"), "graph").await.as_deref(),
        Some("t")
    );
}

/// One that does not answer at all is given up, in the background too.
#[tokio::test(start_paused = true)]
async fn a_repository_that_hangs_is_given_up() {
    let (repository, sleeper, ring) = asleep().await;
    *repository.delay.lock().unwrap() = DAY;
    let found = found(&sleeper, &session("s"), "graph").await;
    assert!(matches!(found, Lookup::Unopenable));
    tokio::time::sleep(Duration::from_secs(31)).await;
    *repository.delay.lock().unwrap() = Duration::ZERO;
    assert_eq!(
        hit(&sleeper, &session("s"), "graph").await.as_deref(),
        Some("t")
    );
    assert_eq!(ring.keys().len(), 2);
}

/// Whoever can write to L2 can invent key ids, and must not make every read ask for them.
#[tokio::test(start_paused = true)]
async fn unknown_keys_are_asked_for_only_so_often() {
    let (repository, store) = (Slow::default(), MemoryStore::new());
    let ring = KeyRing::builder(repository.clone()).open().await.unwrap();
    // Another ring with the same names: its keys are nowhere.
    let other = Shared::default();
    let naming = repository.shared.0.lock().unwrap()["naming"].clone();
    other.add(&naming).await.unwrap();
    let other = KeyRing::builder(other).open().await.unwrap();
    store_token(&sealed(store.clone(), &other), &session("s"), "graph", "t").await;

    let cache = sealed(store, &ring);
    let lists = || *repository.lists.lock().unwrap();
    let before = lists();
    for _ in 0..20 {
        assert!(matches!(
            found(&cache, &session("s"), "graph").await,
            Lookup::Unopenable
        ));
    }
    assert_eq!(lists(), before + 1);
    tokio::time::advance(Duration::from_secs(6)).await;
    let _ = found(&cache, &session("s"), "graph").await;
    assert_eq!(lists(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn the_background_refresh_brings_new_keys() {
    let (repository, clock) = (Shared::default(), clock());
    let ring = on(&repository, &clock).open().await.unwrap();
    let _cache = sealed(MemoryStore::new(), &ring);
    let other = on(&repository, &clock).open().await.unwrap();
    other.rotate().await.unwrap();
    assert_eq!(ring.keys().len(), 1);
    // Paused time: the refresh comes when nothing else is left to do.
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(ring.keys().len(), 2);
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    let (repository, clock) = (Shared::default(), clock());
    let store = MemoryStore::new();
    let a = on(&repository, &clock).open().await.unwrap();
    let b = on(&repository, &clock).open().await.unwrap();
    let caches = [sealed(store.clone(), &a), sealed(store.clone(), &b)];
    let first = a.active();
    store_token(&caches[0], &session("s"), "graph", "t").await;

    a.revoke(first).await.unwrap();
    assert_ne!(a.active(), first, "another key seals at once");
    assert!(matches!(
        found(&caches[0], &session("s"), "graph").await,
        Lookup::Unopenable
    ));
    assert_eq!(caches[0].stats().unopenable_reasons.revoked_key, 1);
    // B learns of it with the next refresh, and meanwhile reads what A has sealed.
    assert_eq!(b.active(), first);
    store_token(&caches[0], &session("s"), "graph", "new").await;
    assert_eq!(
        hit(&caches[1], &session("s"), "graph").await.as_deref(),
        Some("new")
    );
    assert_eq!(b.active(), a.active());
    assert!(b.keys()[0].revoked && !b.keys()[0].active);
    // It stays so for those who start later.
    let c = on(&repository, &clock).open().await.unwrap();
    assert_eq!(c.keys(), a.keys());
}

#[tokio::test]
async fn clocks_may_differ() {
    let repository = Shared::default();
    let (early, late) = (clock(), clock());
    late.advance(HOUR);
    // The first key is of a clock that is ahead: it seals on all others too.
    let ahead = on(&repository, &late).open().await.unwrap();
    let behind = on(&repository, &early).open().await.unwrap();
    assert_eq!(behind.active(), ahead.active());
    behind.refresh().await.unwrap();
    assert_eq!(repository.names().len(), 2);
    // A new key is used an hour earlier by one, and is known to the other by then.
    ahead.rotate().await.unwrap();
    behind.refresh().await.unwrap();
    late.advance(DAY);
    early.advance(DAY - HOUR);
    assert_ne!(ahead.active(), behind.active());
    let store = MemoryStore::new();
    let caches = [sealed(store.clone(), &ahead), sealed(store, &behind)];
    store_token(&caches[0], &session("s0"), "graph", "t").await;
    store_token(&caches[1], &session("s1"), "graph", "t").await;
    assert_no_miss(&caches, 2).await;
}

#[tokio::test]
async fn a_schedule_that_contradicts_itself_is_refused() {
    let builder = || KeyRing::builder(Shared::default());
    for builder in [
        builder().activation_delay(Duration::from_secs(60)),
        builder().refresh_every(Duration::ZERO),
        builder().refresh_every(DAY),
        builder().rotate_every(DAY),
    ] {
        let error = builder.open().await.unwrap_err();
        assert_eq!(error.kind(), KeyRingErrorKind::Schedule);
    }
    assert!(builder().rotate_every(None).open().await.is_ok());
}

/// From one key of the application to another: what was sealed with the old one is sealed anew when
/// it is next written.
#[tokio::test]
async fn values_are_resealed_by_the_next_write() {
    let store = MemoryStore::new();
    let old = KeyRing::from_keys(key(1), []);
    let both = KeyRing::from_keys(key(2), [key(1)]);
    let new = KeyRing::from_keys_named_by(key(1), key(2), []);
    let user = user("ada");
    store_token(&sealed(store.clone(), &old), &user, "graph", "t").await;
    let cache = sealed(store.clone(), &both);
    assert_eq!(hit(&cache, &user, "graph").await.as_deref(), Some("t"));
    let only_new = sealed(store.clone(), &new);
    assert_eq!(hit(&only_new, &user, "graph").await, None);
    assert_eq!(only_new.stats().unopenable_reasons.unknown_key, 1);
    store_token(&cache, &user, "graph", "t").await;
    assert_eq!(hit(&only_new, &user, "graph").await.as_deref(), Some("t"));
}
