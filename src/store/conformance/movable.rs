//! Checks of stores whose partitions can be moved.

use super::harness::{Draft, Harness, Subject};
use crate::store::{CommitId, Lifetime, Movable, Origin, Portable, Raise};

/// Checks what [`Movable`] demands beyond the contract. It is none of [`CHECKS`](super::CHECKS), which are for any store.
pub async fn movable<S: Movable>(harness: &Harness<S>) {
    partitions_are_the_same_after_a_move(harness).await;
    ends_are_the_same_after_a_move(harness).await;
    tombstones_move(harness).await;
    epochs_move(harness).await;
    nothing_is_replaced(harness).await;
    what_has_changed_is_not_withdrawn(harness).await;
    what_is_removed_leaves_no_trace(harness).await;
}

async fn export<S: Movable>(subject: &Subject<S>) -> Option<Portable> {
    let exported = subject.store().export(&subject.id).await;
    exported.unwrap_or_else(|error| panic!("an export failed: {error:?}"))
}

async fn taken<S: Movable>(subject: &Subject<S>) -> Portable {
    let exported = export(subject).await;
    exported.unwrap_or_else(|| panic!("what is there is exported"))
}

async fn adopt<S: Movable>(subject: &Subject<S>, portable: &Portable) -> bool {
    let adopted = subject.store().adopt(&subject.id, portable).await;
    adopted.unwrap_or_else(|error| panic!("an adoption failed: {error:?}"))
}

async fn withdraw<S: Movable>(subject: &Subject<S>, from: &Origin, id: u8) -> bool {
    let withdrawn = subject.store().withdraw(from, CommitId([id; 8])).await;
    withdrawn.unwrap_or_else(|error| panic!("a withdrawal failed: {error:?}"))
}

fn pair<S: Movable>(harness: &Harness<S>, name: &str) -> (Subject<S>, Subject<S>) {
    let other = format!("{name}, moved");
    (harness.partition(name), harness.partition(&other))
}

/// The same commit, of the other partition.
fn of<S: Movable>(subject: &Subject<S>, draft: &Draft) -> Draft {
    let mut draft = draft.clone();
    draft.0.partition = subject.id.clone();
    draft
}

async fn partitions_are_the_same_after_a_move<S: Movable>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "portable");
    assert!(
        export(&old).await.is_none(),
        "nothing is exported as nothing"
    );
    let first = harness.draft(&old).put("a", "1").put("b", "1");
    old.commit(&first).await;
    let second = harness.draft(&old);
    let second = second.put_until("b", "2", harness.after(60));
    old.commit(&second).await;
    let portable = taken(&old).await;
    assert!(adopt(&new, &portable).await, "there was none");

    let (before, after) = (old.load().await, new.load().await);
    assert_eq!(after.revision(), before.revision());
    assert_eq!(after.life, before.life, "its life goes on");
    let entries = |mut portable: Portable| {
        portable.entries.sort_by_key(|entry| entry.entry);
        let entries = portable.entries.into_iter();
        let parts = entries.map(|it| (it.entry, it.version, it.expires_at, it.value));
        parts.collect::<Vec<_>>()
    };
    let adopted = taken(&new).await;
    assert_eq!(adopted.recent, portable.recent);
    assert_eq!(entries(adopted), entries(portable));

    for repeated in [&first, &second] {
        let (version, _) = new.commit(&of(&new, repeated)).await;
        assert_eq!(version, 2, "a commit from before the move is known");
    }
    let mut third = harness.draft(&new).put("c", "3").expecting("b", 2);
    third.0.life = before.life;
    assert_eq!(new.commit(&third).await.0, 3, "commits go on");
    let values = new.values(["a", "b", "c"]).await;
    assert_eq!(
        values,
        [Some("1".into()), Some("2".into()), Some("3".into())]
    );
}

async fn ends_are_the_same_after_a_move<S: Movable>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "portable, ends");
    let lifetime = Lifetime {
        sliding: Some(harness.units(3)),
        since_write: None,
        since_creation: Some(harness.units(8)),
    };
    let lasting = harness.draft(&old).put("a", "1").living(lifetime);
    old.commit(&lasting).await;
    harness.pass_units(2).await;
    assert!(adopt(&new, &taken(&old).await).await);
    let idle = new.load().await.remaining.idle;
    let idle = idle.unwrap_or_else(|| panic!("it ends"));
    assert!(idle <= harness.units(1), "a move is no use: {idle:?}");
    let idle = new.touch().await.idle;
    let idle = idle.unwrap_or_else(|| panic!("it ends"));
    assert!(
        idle > harness.units(2) && idle <= harness.units(3),
        "a use renews the whole sliding lifetime: {idle:?}"
    );
    let again = harness.draft(&new).put("b", "1").living(lifetime);
    let hard = new.commit(&again).await.1.hard;
    let hard = hard.unwrap_or_else(|| panic!("it ends"));
    assert!(hard <= harness.units(6), "it is as old as it was: {hard:?}");
    harness.pass_units(4).await;
    assert!(new.load().await.entries.is_empty(), "it ends");
}

async fn tombstones_move<S: Movable>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "portable, signed out");
    let before = harness.draft(&old).put("a", "1");
    old.commit(&before).await;
    old.clear_as(CommitId([7; 8]), Some(0)).await;
    let tombstone = taken(&old).await;
    assert!(tombstone.has_ended() && tombstone.entries.is_empty());
    assert!(adopt(&new, &tombstone).await);
    let late = harness.draft(&new).put("a", "late");
    assert_eq!(new.refused(&late).await, 1, "rule 1: sign-outs are final");
    assert!(new.load().await.cleared_for.is_some(), "it says when");
    let repeated = new.clear_as(CommitId([7; 8]), Some(0)).await;
    assert!(repeated.ended, "it is the same sign-out");
    assert_eq!(repeated.generation, 1);
    let next = harness.draft(&new).put("a", "next").under(1);
    assert_eq!(
        new.commit(&next).await.0,
        3,
        "the version after the last one"
    );
}

async fn epochs_move<S: Movable>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "portable, an epoch");
    old.raise(Raise::Begin(7), None).await;
    assert!(adopt(&new, &taken(&old).await).await);
    assert_eq!(new.revision().await, old.revision().await);
    let begun = new.raise(Raise::Begin(9), None).await;
    assert_eq!(begun, 7, "it has begun before");
    assert_eq!(new.revision().await, old.revision().await);
    assert_eq!(new.raise(Raise::Beyond(7), None).await, 8);
}

async fn nothing_is_replaced<S: Movable>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "portable, late");
    old.commit(&harness.draft(&old).put("a", "old")).await;
    new.commit(&harness.draft(&new).put("a", "new")).await;
    let portable = taken(&old).await;
    assert!(!adopt(&new, &portable).await, "there is one");
    assert_eq!(new.values(["a"]).await, [Some("new".into())]);
    new.clear(Some(0)).await;
    assert!(!adopt(&new, &portable).await, "it was signed out");
    assert_eq!(new.values(["a"]).await, [None]);
}

async fn what_has_changed_is_not_withdrawn<S: Movable>(harness: &Harness<S>) {
    let subject = harness.partition("withdrawn");
    let absent = Origin::new(subject.id.clone(), 0, 0);
    subject.commit(&harness.draft(&subject).put("a", "1")).await;
    assert!(!withdraw(&subject, &absent, 1).await, "it is not absent");
    let as_read = taken(&subject).await.origin(subject.id.clone());
    subject.commit(&harness.draft(&subject).put("a", "2")).await;
    assert!(!withdraw(&subject, &as_read, 2).await, "it has changed");
    assert_eq!(subject.values(["a"]).await, [Some("2".into())]);

    let as_read = taken(&subject).await.origin(subject.id.clone());
    for _ in 0..2 {
        assert!(
            withdraw(&subject, &as_read, 3).await,
            "it is as it was read"
        );
        let loaded = subject.load().await;
        assert!(loaded.entries.is_empty(), "nothing is left of it");
        assert_eq!(loaded.generation, 1, "a repeated one changes nothing");
        assert_eq!(loaded.commit, Some(CommitId([3; 8])), "it is remembered");
    }
    assert!(!withdraw(&subject, &as_read, 4).await, "another was first");

    let nothing = harness.partition("withdrawn, absent");
    let absent = Origin::new(nothing.id.clone(), 0, 0);
    assert!(withdraw(&nothing, &absent, 5).await);
    let late = harness.draft(&nothing).put("a", "late");
    assert_eq!(nothing.refused(&late).await, 1, "a tombstone is left");
}

async fn what_is_removed_leaves_no_trace<S: Movable>(harness: &Harness<S>) {
    let subject = harness.partition("removed");
    let remove = async |last: CommitId| {
        let removed = subject.store().remove(&subject.id, last).await;
        removed.unwrap_or_else(|error| panic!("a removal failed: {error:?}"))
    };
    assert!(!remove(CommitId([1; 8])).await, "nothing is there");
    subject.commit(&harness.draft(&subject).put("a", "1")).await;
    let first = taken(&subject).await.recent;
    subject.commit(&harness.draft(&subject).put("a", "2")).await;
    let last = |recent: Vec<CommitId>| recent.last().copied().unwrap_or_default();
    assert!(!remove(last(first)).await, "it has changed");
    assert_eq!(subject.values(["a"]).await, [Some("2".into())]);
    assert!(remove(last(taken(&subject).await.recent)).await);
    assert!(export(&subject).await.is_none(), "nothing is left");

    subject.clear_as(CommitId([7; 8]), Some(0)).await;
    assert!(remove(CommitId([7; 8])).await, "a tombstone, too");
    subject.commit(&harness.draft(&subject).put("b", "1")).await;
    let values = subject.values(["a", "b"]).await;
    assert_eq!(values, [None, Some("1".into())], "it begins anew");
}
