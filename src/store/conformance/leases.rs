//! Checks of leases: one owner at a time, until it runs out.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::harness::{Harness, Subject};
use crate::store::{EntryId, Lease, LeaseState, TokenStore};

/// A free lease is granted, one that is held is not, and its owner gets it again.
pub async fn leases_have_one_owner<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("lease");
    let [one, other] = [1, 2].map(|owner| lease(&subject, "a", owner));
    let ttl = Duration::from_secs(60);
    granted(harness, &one, ttl, "a free lease is granted").await;
    let remaining = held(harness, &other, ttl, "a lease has one owner").await;
    assert!(
        remaining <= ttl && remaining > ttl / 2,
        "a lease of {ttl:?} that was just taken is not held for {remaining:?}"
    );
    granted(harness, &one, ttl, "an owner may ask again").await;
    let longer = 2 * ttl;
    granted(harness, &one, longer, "an owner may ask again").await;
    let remaining = held(harness, &other, ttl, "asking again keeps the owner").await;
    assert!(
        remaining > ttl && remaining <= longer,
        "an owner who asks again has the lease for that time from now on, not for {remaining:?}"
    );
}

/// Only its owner renews and frees a lease; once it is free another may take it.
pub async fn leases_obey_their_owner_alone<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("lease, owned");
    let [one, other] = [1, 2].map(|owner| lease(&subject, "a", owner));
    let ttl = Duration::from_secs(60);
    assert!(!renew(harness, &one, ttl).await, "a free lease is nobody's");
    assert!(!release(harness, &one).await, "a free lease is nobody's");
    granted(harness, &one, ttl, "asking for its renewal took no lease").await;

    assert!(
        !renew(harness, &other, ttl * 10).await,
        "only its owner renews a lease"
    );
    assert!(
        !release(harness, &other).await,
        "only its owner frees a lease"
    );
    let remaining = held(harness, &other, ttl, "others change nothing").await;
    assert!(remaining <= ttl, "only its owner renews a lease");

    assert!(renew(harness, &one, ttl * 2).await, "its owner renews it");
    let remaining = held(harness, &other, ttl, "a renewed lease is held").await;
    assert!(
        remaining > ttl && remaining <= ttl * 2,
        "a renewed lease runs for the new time from now on, not for {remaining:?}"
    );
    assert!(release(harness, &one).await, "its owner frees it");
    assert!(!release(harness, &one).await, "a free lease is nobody's");
    granted(harness, &other, ttl, "a lease that was freed is free").await;
    assert!(!release(harness, &one).await, "it is another's by now");
    held(harness, &one, ttl, "it is another's by now").await;
}

/// A lease runs out by itself; then it cannot be renewed, and another may take it.
pub async fn leases_run_out<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("lease, run out");
    let [one, other] = [1, 2].map(|owner| lease(&subject, "a", owner));
    let ttl = harness.units(3);
    granted(harness, &one, ttl, "a free lease is granted").await;
    harness.pass_units(2).await;
    let remaining = held(harness, &other, ttl, "a lease is held for its time").await;
    assert!(
        remaining <= harness.units(1),
        "the time that has passed counts, {remaining:?} remain"
    );
    assert!(renew(harness, &one, ttl).await, "its owner renews it");
    harness.pass_units(2).await;
    held(harness, &other, ttl, "renewing it starts its time anew").await;
    harness.pass_units(2).await;
    assert!(
        !renew(harness, &one, ttl).await,
        "a lease that has run out cannot be renewed"
    );
    assert!(!release(harness, &one).await, "a lost lease is not freed");
    granted(harness, &other, ttl, "a lease that has run out is free").await;
    assert!(
        !renew(harness, &one, ttl).await,
        "a lost lease cannot be renewed"
    );
    assert!(!release(harness, &one).await, "a lost lease is not freed");
    held(harness, &one, ttl, "whoever lost a lease waits").await;
}

/// The leases of other entries and of other partitions are others.
pub async fn leases_stand_alone<S: TokenStore>(harness: &Harness<S>) {
    let (subject, another) = (harness.partition("lease, 1"), harness.partition("lease, 2"));
    let ttl = Duration::from_secs(60);
    let leases = [
        lease(&subject, "a", 1),
        lease(&subject, "b", 2),
        lease(&another, "a", 3),
    ];
    for lease in &leases {
        granted(harness, lease, ttl, "leases stand alone").await;
    }
    assert!(release(harness, &leases[0]).await, "its owner frees it");
    for lease in &leases[1..] {
        assert!(renew(harness, lease, ttl).await, "leases stand alone");
    }
}

/// A lease does not depend on its partition: it neither makes one nor ends with it.
pub async fn leases_outlive_a_sign_out<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("lease, signed out");
    let [one, other] = [1, 2].map(|owner| lease(&subject, "a", owner));
    let ttl = Duration::from_secs(60);
    granted(harness, &one, ttl, "an absent partition has leases").await;
    let loaded = subject.load().await;
    assert_eq!(
        (loaded.generation, loaded.version, loaded.entries.len()),
        (0, 0, 0),
        "a lease makes no partition"
    );
    subject.commit(&harness.draft(&subject).put("a", "x")).await;
    subject.clear(None).await;
    held(harness, &other, ttl, "a lease outlives a sign-out").await;
    assert!(renew(harness, &one, ttl).await, "it is its owner's still");
}

/// Of fifty who ask at the same time exactly one gets the lease.
pub async fn concurrent_leases_have_one_owner<S: TokenStore>(harness: &Harness<S>) {
    let subject = Arc::new(harness.partition("lease, concurrent"));
    let mut tasks = JoinSet::new();
    for owner in 0..50 {
        let subject = subject.clone();
        tasks.spawn(async move {
            let lease = lease(&subject, "a", owner);
            let state = subject
                .store()
                .acquire_lease(&lease, Duration::from_secs(60));
            match state.await {
                Ok(LeaseState::Granted) => 1,
                Ok(LeaseState::Held { .. }) => 0,
                Err(error) => panic!("a lease failed: {error:?}"),
            }
        });
    }
    let owners: u32 = tasks.join_all().await.into_iter().sum();
    assert_eq!(owners, 1, "a lease has one owner, whoever asks when");
}

fn lease<S>(subject: &Subject<S>, entry: &str, owner: u8) -> Lease {
    Lease {
        partition: subject.id.clone(),
        entry: EntryId::of(entry),
        owner: [owner; 16],
    }
}

async fn granted<S: TokenStore>(harness: &Harness<S>, lease: &Lease, ttl: Duration, rule: &str) {
    let state = acquire(harness, lease, ttl).await;
    assert_eq!(state, LeaseState::Granted, "{rule}");
}

async fn held<S: TokenStore>(
    harness: &Harness<S>,
    lease: &Lease,
    ttl: Duration,
    rule: &str,
) -> Duration {
    match acquire(harness, lease, ttl).await {
        LeaseState::Held { remaining } => remaining,
        LeaseState::Granted => panic!("a lease was granted that is another's: {rule}"),
    }
}

async fn acquire<S: TokenStore>(harness: &Harness<S>, lease: &Lease, ttl: Duration) -> LeaseState {
    let state = harness.store().acquire_lease(lease, ttl).await;
    state.unwrap_or_else(|error| panic!("a lease failed: {error:?}"))
}

async fn renew<S: TokenStore>(harness: &Harness<S>, lease: &Lease, ttl: Duration) -> bool {
    let renewed = harness.store().renew_lease(lease, ttl).await;
    renewed.unwrap_or_else(|error| panic!("renewing a lease failed: {error:?}"))
}

async fn release<S: TokenStore>(harness: &Harness<S>, lease: &Lease) -> bool {
    let released = harness.store().release_lease(lease).await;
    released.unwrap_or_else(|error| panic!("freeing a lease failed: {error:?}"))
}
