//! Checks of moves: one partition is signed out and another written, both or neither.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::harness::{Draft, Harness, Subject};
use crate::store::{Lifetime, Origin, Outcome, TokenStore};

/// A move writes the one partition and signs the other out for good.
pub async fn moves_sign_the_old_partition_out<S: TokenStore>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "moved");
    old.commit(&harness.draft(&old).put("a", "1").put("b", "1"))
        .await;
    new.commit(&harness.draft(&new).put("c", "1")).await;
    let from = origin(&old).await;
    let outcome = relocate(&old, &from, &harness.draft(&new).put("a", "2")).await;
    assert!(
        matches!(outcome, Outcome::Committed { version: 2, .. }),
        "a move is a commit to the other partition: {outcome:?}"
    );
    let values = new.values(["a", "c"]).await;
    assert_eq!(
        values,
        [Some("2".into()), Some("1".into())],
        "rule 4: a move changes what its commit names"
    );
    let loaded = old.load().await;
    assert!(
        loaded.entries.is_empty(),
        "a move leaves no entry in the old partition"
    );
    assert_eq!(loaded.generation, 1, "a move leaves a tombstone");
    assert!(loaded.cleared_for.is_some(), "a move leaves a tombstone");
    let late = harness.draft(&old).put("a", "late");
    assert_eq!(
        old.refused(&late).await,
        1,
        "rule 1: commits to the old partition from before the move are stale"
    );
}

/// An absent partition can be moved, too, and is signed out by it.
pub async fn moves_of_nothing_leave_a_tombstone<S: TokenStore>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "moved, absent");
    let from = origin(&old).await;
    let outcome = relocate(&old, &from, &harness.draft(&new).put("a", "1")).await;
    assert!(
        matches!(outcome, Outcome::Committed { version: 1, .. }),
        "an absent partition can be moved: {outcome:?}"
    );
    let late = harness.draft(&old).put("a", "late");
    assert_eq!(old.refused(&late).await, 1, "a move leaves a tombstone");
    // Signed out, it has ended: there is nothing in it, and it can be moved again.
    let from = Origin {
        generation: 1,
        ..from
    };
    let outcome = relocate(&old, &from, &harness.draft(&new).put("a", "2")).await;
    assert!(
        matches!(outcome, Outcome::Committed { version: 2, .. }),
        "a partition that has ended can be moved as such: {outcome:?}"
    );
    assert_eq!(old.load().await.generation, 2, "a move signs out again");
}

/// Nothing is moved when the old partition was changed, signed out or has ended since it was read.
pub async fn moves_of_what_has_changed_conflict<S: TokenStore>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "moved, changed");
    let draft = harness.draft(&new).put("a", "2");
    let absent = origin(&old).await;
    old.commit(&harness.draft(&old).put("a", "1")).await;
    unmoved(&old, &absent, &draft, &new).await;
    let read = origin(&old).await;
    old.commit(&harness.draft(&old).put("a", "newer")).await;
    unmoved(&old, &read, &draft, &new).await;
    let read = origin(&old).await;
    for generation in [1, 2] {
        let of_another = Origin {
            generation,
            ..read.clone()
        };
        unmoved(&old, &of_another, &draft, &new).await;
    }
    let values = old.values(["a"]).await;
    assert_eq!(
        values,
        [Some("newer".into())],
        "a conflict leaves the old partition as it is"
    );
    let read = origin(&old).await;
    old.clear(None).await;
    unmoved(&old, &read, &draft, &new).await;

    let (ended, new) = pair(harness, "moved, ended");
    let short = Lifetime {
        since_write: Some(harness.units(1)),
        ..Lifetime::default()
    };
    let first = harness.draft(&ended).put("a", "1").living(short);
    ended.commit(&first).await;
    let read = origin(&ended).await;
    harness.pass_units(2).await;
    let draft = harness.draft(&new).put("a", "2");
    unmoved(&ended, &read, &draft, &new).await;

    // A session after a sign-out, whose record outlives it as the tombstone.
    ended.clear(None).await;
    let second = harness.draft(&ended).under(1).put("a", "1").living(short);
    ended.commit(&second).await;
    let read = origin(&ended).await;
    harness.pass_units(2).await;
    unmoved(&ended, &read, &draft, &new).await;
}

/// What a move expects of the other partition is compared, and nothing is moved in a conflict.
pub async fn moves_compare_what_they_expect<S: TokenStore>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "moved, expecting");
    old.commit(&harness.draft(&old).put("a", "1")).await;
    let from = origin(&old).await;
    let draft = harness.draft(&new).put("a", "2");
    unmoved(&old, &from, &draft.clone().expecting("a", 1), &new).await;
    let kept = old.values(["a"]).await;
    assert_eq!(
        kept,
        [Some("1".into())],
        "a conflict leaves the old partition as it is"
    );
    let outcome = relocate(&old, &from, &draft.expecting("a", 0)).await;
    assert!(
        matches!(outcome, Outcome::Committed { .. }),
        "a conflict is not remembered as a commit: {outcome:?}"
    );
}

/// A move that is sent again is answered and not made again, and spares the session that has begun
/// in the old partition since.
pub async fn repeated_moves_are_not_made_again<S: TokenStore>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "moved, repeated");
    old.commit(&harness.draft(&old).put("a", "1")).await;
    let from = origin(&old).await;
    let draft = harness.draft(&new).put("a", "2");
    relocate(&old, &from, &draft).await;
    new.commit(&harness.draft(&new).put("a", "3")).await;
    old.commit(&harness.draft(&old).under(1).put("a", "new"))
        .await;
    let outcome = relocate(&old, &from, &draft).await;
    assert!(
        matches!(outcome, Outcome::Committed { version: 2, .. }),
        "rule 3: a repeated move is answered with the version now: {outcome:?}"
    );
    let values = new.values(["a"]).await;
    assert_eq!(
        values,
        [Some("3".into())],
        "rule 3: a repeated move is not made again"
    );
    let values = old.values(["a"]).await;
    assert_eq!(
        values,
        [Some("new".into())],
        "a repeated move spares the new session"
    );
}

/// Nothing is moved to a partition that was signed out since.
pub async fn moves_to_a_signed_out_partition_are_stale<S: TokenStore>(harness: &Harness<S>) {
    let (old, new) = pair(harness, "moved, stale");
    old.commit(&harness.draft(&old).put("a", "1")).await;
    let from = origin(&old).await;
    let draft = harness.draft(&new).put("a", "2");
    new.clear(None).await;
    let stale = Outcome::Stale { generation: 1 };
    let outcome = relocate(&old, &from, &draft).await;
    assert_eq!(
        outcome, stale,
        "rule 1: a move to a signed-out partition is stale"
    );
    let values = old.values(["a"]).await;
    assert_eq!(
        values,
        [Some("1".into())],
        "a stale move leaves the old partition as it is"
    );
    old.commit(&harness.draft(&old).put("a", "newer")).await;
    let outcome = relocate(&old, &from, &draft).await;
    assert_eq!(outcome, stale, "stale goes before conflict");
    assert!(
        new.load().await.entries.is_empty(),
        "a stale move changes nothing"
    );
}

/// Of several concurrent moves of one partition exactly one is made.
pub async fn concurrent_moves_have_one_winner<S: TokenStore>(harness: &Harness<S>) {
    let old = Arc::new(harness.partition("moved, concurrent"));
    old.commit(&harness.draft(&old).put("a", "1")).await;
    let from = origin(&old).await;
    let mut tasks = JoinSet::new();
    let targets: Vec<_> = (0..20)
        .map(|i| harness.partition(&format!("moved, concurrent, {i}")))
        .collect();
    for new in &targets {
        let draft = harness.draft(new).put("a", "2");
        let (old, from) = (old.clone(), from.clone());
        tasks.spawn(async move { relocate(&old, &from, &draft).await });
    }
    let outcomes = tasks.join_all().await;
    let lost = outcomes.iter().filter(|o| **o == Outcome::Conflict).count();
    assert_eq!(lost, 19, "a partition is moved once: {outcomes:?}");
    let mut written = 0;
    for new in &targets {
        written += new.load().await.entries.len();
    }
    assert_eq!(written, 1, "a partition is moved once");
    assert_eq!(old.load().await.generation, 1, "a partition is moved once");
}

fn pair<S: TokenStore>(harness: &Harness<S>, name: &str) -> (Subject<S>, Subject<S>) {
    (
        harness.partition(&format!("{name}, from")),
        harness.partition(&format!("{name}, to")),
    )
}

async fn origin<S: TokenStore>(subject: &Subject<S>) -> Origin {
    let loaded = subject.load().await;
    Origin {
        partition: subject.id.clone(),
        generation: loaded.generation,
        version: loaded.version,
    }
}

async fn relocate<S: TokenStore>(old: &Subject<S>, from: &Origin, draft: &Draft) -> Outcome {
    let outcome = old.store().relocate(from, &draft.0).await;
    outcome.unwrap_or_else(|error| panic!("a move failed: {error:?}"))
}

async fn unmoved<S: TokenStore>(old: &Subject<S>, from: &Origin, draft: &Draft, new: &Subject<S>) {
    let generation = old.load().await.generation;
    let outcome = relocate(old, from, draft).await;
    assert_eq!(
        outcome,
        Outcome::Conflict,
        "a partition that has changed since it was read is not moved"
    );
    assert_eq!(
        new.load().await.version,
        0,
        "a conflict changes neither partition"
    );
    assert_eq!(
        old.load().await.generation,
        generation,
        "a conflict changes neither partition"
    );
}
