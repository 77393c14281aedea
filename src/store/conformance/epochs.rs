//! Checks of epochs: numbers that never fall.

use std::time::Duration;

use super::harness::Harness;
use crate::store::{Raise, TokenStore};

const AN_HOUR: Option<Duration> = Some(Duration::from_secs(3600));

/// An epoch takes the greater of two numbers, and says which one is in force.
pub async fn epochs_never_fall<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("epoch");
    let steps = [
        (Raise::Begin(7), 7),
        (Raise::Begin(3), 7),
        (Raise::Begin(9), 7),
        (Raise::Beyond(5), 8),
        (Raise::Beyond(20), 20),
        (Raise::To(20), 20),
        (Raise::To(3), 20),
        (Raise::To(30), 30),
        (Raise::Beyond(1 << 52), 1 << 52),
        (Raise::Beyond(1), (1 << 52) + 1),
    ];
    for (raise, number) in steps {
        assert_eq!(subject.raise(raise, AN_HOUR).await, number, "{raise:?}");
        let revision = subject.revision().await;
        assert_eq!(revision.generation, number, "revisions tell it");
        let loaded = subject.load().await;
        assert_eq!((loaded.generation, loaded.damaged), (number, 0));
    }
}

/// An epoch says how long ago it rose, by the store's own clock.
pub async fn epochs_say_when_they_rose<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("epoch's age");
    let age = async || {
        let age = subject.load().await.cleared_for;
        age.expect("an epoch says how long ago it rose")
    };
    subject.raise(Raise::Begin(7), AN_HOUR).await;
    harness.pass_units(3).await;
    subject.raise(Raise::Begin(9), AN_HOUR).await;
    assert!(
        age().await > harness.units(2),
        "one that stays is as old as before"
    );
    let asked_at = harness.now();
    subject.raise(Raise::Beyond(9), AN_HOUR).await;
    let most = harness.now().since(asked_at) + harness.units(1);
    assert!(age().await <= most, "one that rises is new");
}

/// An epoch that is absent begins with the number that is asked for.
pub async fn absent_epochs_begin<S: TokenStore>(harness: &Harness<S>) {
    let raises = [Raise::Beyond(7), Raise::To(7), Raise::Begin(7)];
    for (number, raise) in raises.into_iter().enumerate() {
        let subject = harness.partition(&format!("absent epoch {number}"));
        assert_eq!(subject.raise(raise, AN_HOUR).await, 7, "{raise:?}");
        let loaded = subject.load().await;
        assert_eq!(loaded.generation, 7);
        assert!(loaded.entries.is_empty(), "an epoch holds nothing");
    }
}

/// Nothing of what was stored is left once the number rises.
pub async fn raised_partitions_hold_nothing<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("epoch of something");
    let before = harness.draft(&subject).put("a", "old");
    subject.commit(&before).await;
    assert_eq!(subject.raise(Raise::Beyond(0), AN_HOUR).await, 1);
    assert_eq!(subject.values(["a"]).await, [None]);
    assert_eq!(subject.refused(&before).await, 1, "a commit from before");
}

/// Those who raise it at once all get numbers of their own, and none is lost.
pub async fn concurrent_raises_all_count<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("concurrent epoch");
    subject.raise(Raise::Begin(10), AN_HOUR).await;
    let raises = (0..16).map(|_| subject.raise(Raise::Beyond(0), AN_HOUR));
    let mut numbers = futures_util::future::join_all(raises).await;
    numbers.sort_unstable();
    if harness.counts_raises() {
        assert_eq!(numbers, (11..27).collect::<Vec<_>>());
    }
    let are_own = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(are_own && numbers[0] > 10, "{numbers:?}");
    let last = numbers.last().copied();
    assert_eq!(Some(subject.revision().await.generation), last);
    let begun = harness.partition("epoch begun at once");
    let raises = (1..17).map(|number| begun.raise(Raise::Begin(number), AN_HOUR));
    let numbers = futures_util::future::join_all(raises).await;
    assert!(
        numbers.iter().all(|number| *number == numbers[0]),
        "whoever begins at once begins with one number: {numbers:?}"
    );
}

/// An epoch lives as long as it was ever to be kept.
pub async fn epochs_are_never_kept_shorter<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("epoch's life");
    let other = harness.partition("epoch without end");
    subject.raise(Raise::Begin(5), Some(harness.units(2))).await;
    subject
        .raise(Raise::Beyond(6), Some(harness.units(4)))
        .await;
    subject
        .raise(Raise::Beyond(7), Some(harness.units(1)))
        .await;
    other.raise(Raise::Begin(5), None).await;
    other.raise(Raise::Beyond(6), Some(harness.units(1))).await;
    let hard = other.load().await.remaining.hard;
    assert_eq!(hard, None, "without end is the longest");
    harness.pass_units(3).await;
    assert_eq!(subject.revision().await.generation, 7, "it was extended");
    subject.raise(Raise::Begin(1), Some(harness.units(4))).await;
    harness.pass_units(3).await;
    assert_eq!(subject.revision().await.generation, 7, "and again");
    assert_eq!(other.revision().await.generation, 6);
}
