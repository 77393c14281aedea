//! The change feed.

use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::harness::{Harness, send_group};
use crate::store::{
    EntryId, Feed, FeedEvent, Lease, Lifetime, Origin, PartitionId, Raise, TokenStore,
};

/// Longer than a feed that is alive takes to prove that it is complete.
const PATIENCE: Duration = Duration::from_secs(20);

/// A feed that is listened to.
struct Listener(Feed);

/// What was told before the proof that was waited for.
struct Told {
    changed: Vec<[u8; 32]>,
    everything: bool,
}

impl Listener {
    /// One that has begun.
    async fn on<S: TokenStore>(harness: &Harness<S>) -> Option<Self> {
        let mut feed = harness.store().feed(harness.namespace())?;
        let first = tokio::time::timeout(PATIENCE, feed.next()).await;
        let first = first.ok().flatten();
        assert_eq!(first, Some(FeedEvent::Everything), "how a feed begins");
        Some(Self(feed))
    }

    /// What is told until it is proven that all of now has been.
    async fn until_now(&mut self) -> Told {
        let now = Instant::now();
        let mut told = Told {
            changed: Vec::new(),
            everything: false,
        };
        let listens = async {
            loop {
                match self.0.next().await.expect("a feed does not end") {
                    FeedEvent::Changed(changed) => told.changed.extend(changed),
                    FeedEvent::Everything => told.everything = true,
                    FeedEvent::CompleteUntil(until) if until >= now => return,
                    FeedEvent::CompleteUntil(_) => {}
                    FeedEvent::Lost => panic!("a feed was lost although nothing happened"),
                }
            }
        };
        let proven = tokio::time::timeout(PATIENCE, listens).await;
        proven.expect("a feed that is alive proves it each second");
        told
    }
}

impl Told {
    fn names(&self, partition: &PartitionId) -> bool {
        self.everything || self.changed.contains(partition.digest())
    }
}

/// Each change is told before the proof that everything acknowledged by then was.
///
/// A store without a feed passes, here and in the other checks.
pub async fn changes_are_told_before_the_proof<S: TokenStore>(harness: &Harness<S>) {
    let Some(mut listener) = Listener::on(harness).await else {
        return;
    };
    let partition = harness.partition("fed");
    for round in 0..3 {
        partition
            .commit(&harness.draft(&partition).put("a", "1"))
            .await;
        let told = listener.until_now().await;
        assert!(told.names(&partition.id), "commit {round} was not told");
    }
    partition.clear(None).await;
    let told = listener.until_now().await;
    assert!(told.names(&partition.id), "a sign-out was not told");
}

/// All that changes a partition is told.
pub async fn changes_of_all_kinds_are_told<S: TokenStore>(harness: &Harness<S>) {
    let Some(mut listener) = Listener::on(harness).await else {
        return;
    };
    let store = harness.store();
    let (source, target) = (
        harness.partition("fed source"),
        harness.partition("fed target"),
    );
    source.commit(&harness.draft(&source).put("a", "1")).await;
    let loaded = source.load().await;
    let begun = harness.partition("a fed epoch that begins");
    let raised = harness.partition("a fed epoch that is raised");
    store
        .raise(&raised.id, Raise::Begin(7), None)
        .await
        .expect("begun");
    listener.until_now().await;

    let from = Origin {
        partition: source.id.clone(),
        generation: loaded.generation,
        version: loaded.version,
    };
    let moved = harness.draft(&target).put("a", "1");
    store.relocate(&from, &moved.0).await.expect("moved");
    store
        .raise(&begun.id, Raise::Begin(7), None)
        .await
        .expect("begun");
    store
        .raise(&raised.id, Raise::Beyond(9), None)
        .await
        .expect("raised");
    let told = listener.until_now().await;
    for (partition, what) in [
        (&source, "the source of a move"),
        (&target, "the target of a move"),
        (&begun, "the beginning of an epoch"),
        (&raised, "a raised epoch"),
    ] {
        assert!(told.names(&partition.id), "{what} was not told");
    }
}

/// A life is told that begins where one has ended, although the first commit of either has the same version.
pub async fn new_lives_are_told<S: TokenStore>(harness: &Harness<S>) {
    let Some(mut listener) = Listener::on(harness).await else {
        return;
    };
    let partition = harness.partition("fed again");
    let short = Lifetime {
        sliding: None,
        since_write: Some(harness.units(2)),
        since_creation: None,
    };
    let first = harness.draft(&partition).put("a", "1").living(short);
    partition.commit(&first).await;
    harness.pass_units(3).await;
    listener.until_now().await;
    partition
        .commit(&harness.draft(&partition).put("a", "2"))
        .await;
    let told = listener.until_now().await;
    assert!(told.names(&partition.id), "a new life was not told");
}

/// Many changes at once are told, by name or as a whole, to each of several listeners.
pub async fn many_changes_are_told_to_all<S: TokenStore>(harness: &Harness<S>) {
    let Some(mut first) = Listener::on(harness).await else {
        return;
    };
    let mut second = Listener::on(harness).await.expect("as the first");
    let partitions: Vec<_> = (0..1500)
        .map(|number| harness.partition(&format!("one of many, {number}")))
        .collect();
    let drafts = partitions.iter();
    let drafts: Vec<_> = drafts
        .map(|one| harness.draft(one).put("a", "1").0)
        .collect();
    for group in drafts.chunks(64) {
        send_group(harness.store(), group).await;
    }
    for listener in [&mut first, &mut second] {
        let told = listener.until_now().await;
        let all = partitions.iter().all(|one| told.names(&one.id));
        assert!(all, "some of many changes were not told");
    }
}

/// Neither reads nor leases are changes.
pub async fn only_changes_are_told<S: TokenStore>(harness: &Harness<S>) {
    let partition = harness.partition("fed once");
    partition
        .commit(&harness.draft(&partition).put("a", "1"))
        .await;
    let Some(mut listener) = Listener::on(harness).await else {
        return;
    };
    listener.until_now().await;
    let lease = Lease {
        partition: partition.id.clone(),
        entry: EntryId::of("a"),
        owner: [1; 16],
    };
    let ttl = Duration::from_secs(60);
    partition.load().await;
    let granted = harness.store().acquire_lease(&lease, ttl).await;
    granted.expect("granted");
    let told = listener.until_now().await;
    assert!(!told.names(&partition.id), "a read or a lease was told");
    let released = harness.store().release_lease(&lease).await;
    released.expect("released");
}
