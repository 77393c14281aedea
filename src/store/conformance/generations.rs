//! Checks of rule 1: generations are final.

use super::harness::Harness;
use crate::store::{Cleared, CommitId, Lifetime, TOMBSTONE, TokenStore};

/// Sign-out removes every entry and raises the generation; a commit from before it changes
/// nothing, whether it is new or repeated, and one under the new generation is applied.
pub async fn sign_out_is_final<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("sign-out");
    let before = harness.draft(&subject).put("a", "old").put("b", "old");
    let (version, _) = subject.commit(&before).await;
    let asked_at = harness.now();
    assert_eq!(
        subject.clear(Some(0)).await,
        1,
        "sign-out raises the generation by one"
    );

    let loaded = subject.load().await;
    assert!(loaded.entries.is_empty(), "sign-out removes every entry");
    assert_eq!(loaded.generation, 1, "the tombstone keeps the generation");
    let Some(age) = loaded.cleared_for else {
        panic!("the tombstone says how long ago the partition was signed out");
    };
    let most = harness.now().since(asked_at) + harness.units(1);
    assert!(
        age <= most,
        "the sign-out is {age:?} old, and was made {most:?} ago at most"
    );

    let late = harness.draft(&subject).put("c", "late");
    assert_eq!(
        subject.refused(&late).await,
        1,
        "a stale commit is told the generation in force"
    );
    assert_eq!(
        subject.refused(&before).await,
        1,
        "a repeated commit does not undo a sign-out"
    );
    assert!(
        subject.load().await.entries.is_empty(),
        "a stale commit changes nothing"
    );

    let next = harness.draft(&subject).under(1).put("a", "new");
    let (after, _) = subject.commit(&next).await;
    assert!(
        after > version,
        "rule 2: versions do not start anew while the tombstone is kept"
    );
    let new = [Some("new".into())];
    assert_eq!(
        subject.values(["a"]).await,
        new,
        "a new session begins empty"
    );
    assert_eq!(
        subject.refused(&late).await,
        1,
        "old commits stay stale in the new session"
    );
    assert_eq!(
        subject.values(["a"]).await,
        new,
        "a stale commit changes nothing"
    );
}

/// Signing out a partition that was never written leaves a tombstone, too: its first commit may
/// still be under way.
pub async fn sign_out_of_an_absent_partition_is_final<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("sign-out of nothing");
    assert_eq!(
        subject.clear(None).await,
        1,
        "an absent partition has generation 0"
    );
    assert_eq!(
        subject
            .refused(&harness.draft(&subject).put("a", "late"))
            .await,
        1
    );
    assert_eq!(
        subject.load().await.generation,
        1,
        "the tombstone keeps the generation"
    );
    let known = harness.partition("sign-out of nothing known");
    let generation = known.clear(Some(3)).await;
    assert!(
        generation > 3,
        "sign-out ends the expected generation even when it was lost"
    );
    let late = harness.draft(&known).under(3).put("a", "late");
    assert_eq!(known.refused(&late).await, generation);
}

/// A sign-out that names a generation of the past is answered and does not end the session since.
pub async fn repeated_sign_out_spares_the_new_session<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("repeated sign-out");
    subject
        .commit(&harness.draft(&subject).put("a", "old"))
        .await;
    assert_eq!(subject.clear(Some(0)).await, 1);
    assert_eq!(
        subject.clear(Some(0)).await,
        1,
        "a repeated sign-out raises no generation"
    );
    let (version, _) = subject
        .commit(&harness.draft(&subject).under(1).put("a", "new"))
        .await;
    assert_eq!(
        subject.clear(Some(0)).await,
        1,
        "a repeated sign-out raises no generation"
    );
    let loaded = subject.load().await;
    assert_eq!(
        loaded.entries.len(),
        1,
        "a repeated sign-out spares the new session"
    );
    assert_eq!(
        loaded.version, version,
        "a repeated sign-out changes nothing"
    );
    assert_eq!(
        subject.clear(Some(1)).await,
        2,
        "a sign-out of the session in force counts"
    );
    assert!(
        subject.load().await.entries.is_empty(),
        "sign-out removes every entry"
    );
}

/// Without an expected generation each sign-out counts.
pub async fn unconditional_sign_out_always_counts<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("unconditional sign-out");
    subject
        .commit(&harness.draft(&subject).put("a", "old"))
        .await;
    for generation in 1..4 {
        assert_eq!(
            subject.clear(None).await,
            generation,
            "each sign-out raises the generation"
        );
        let late = harness
            .draft(&subject)
            .under(generation - 1)
            .put("a", "late");
        assert_eq!(subject.refused(&late).await, generation);
    }
    assert!(
        subject.load().await.entries.is_empty(),
        "a stale commit changes nothing"
    );
}

/// A store that holds a lower generation than a commit names has lost data: what it holds is
/// replaced.
pub async fn lower_generations_are_replaced<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("lost data");
    subject
        .commit(
            &harness
                .draft(&subject)
                .put("a", "of the past")
                .put("b", "of the past"),
        )
        .await;
    subject
        .commit(&harness.draft(&subject).under(3).put("b", "now"))
        .await;
    let values = subject.values(["a", "b"]).await;
    assert_eq!(
        values,
        [None, Some("now".into())],
        "a lower generation is replaced as a whole"
    );
    assert_eq!(
        subject.load().await.generation,
        3,
        "the commit's generation is in force"
    );
    assert_eq!(
        subject
            .refused(&harness.draft(&subject).put("a", "late"))
            .await,
        3
    );
    assert_eq!(
        subject.clear(Some(3)).await,
        4,
        "sign-out counts on from the new generation"
    );
}

/// A commit under any generation is applied to an absent partition, which then has it.
pub async fn absent_partitions_take_any_generation<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("lost altogether");
    subject
        .commit(&harness.draft(&subject).under(2).put("a", "x"))
        .await;
    assert_eq!(
        subject.load().await.generation,
        2,
        "the commit's generation is in force"
    );
    assert_eq!(
        subject
            .refused(&harness.draft(&subject).under(1).put("a", "late"))
            .await,
        2
    );
    assert_eq!(
        subject.values(["a"]).await,
        [Some("x".into())],
        "a stale commit changes nothing"
    );
}

/// The generation stays in force when all else in the partition has ended, also when a session
/// has begun and ended since.
pub async fn tombstones_outlive_the_partition<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("tombstone");
    let by_entry = harness.partition("tombstone, by entry");
    let late = harness.draft(&subject).put("a", "late");
    let late_by_entry = harness.draft(&by_entry).put("a", "late");
    let short = Lifetime {
        since_write: Some(harness.units(1)),
        ..Lifetime::default()
    };
    subject.clear(None).await;
    by_entry.clear(None).await;
    for session in ["first", "second"] {
        let draft = harness
            .draft(&subject)
            .under(1)
            .put(session, "x")
            .living(short);
        subject.commit(&draft).await;
        let draft = harness.draft(&by_entry).under(1);
        by_entry
            .commit(&draft.put_until(session, "x", harness.after(1)))
            .await;
        harness.pass_units(2).await;
        for (subject, late) in [(&subject, &late), (&by_entry, &late_by_entry)] {
            let loaded = subject.load().await;
            assert!(loaded.entries.is_empty(), "the {session} session has ended");
            assert_eq!(
                loaded.generation, 1,
                "the tombstone outlives the {session} session"
            );
            let generation = subject.refused(late).await;
            assert_eq!(
                generation, 1,
                "the tombstone outlives the {session} session"
            );
        }
    }
    let next = harness.draft(&subject).under(1).put("third", "x");
    let (version, _) = subject.commit(&next).await;
    assert_eq!(
        version, 4,
        "while a tombstone is kept, a new session goes on with the versions"
    );
    let alone = subject.values(["third"]).await;
    assert_eq!(alone, [Some("x".into())], "a new session begins empty");
    if harness.is_manual() {
        harness.pass(TOMBSTONE - harness.units(10)).await;
        let generation = by_entry.refused(&late_by_entry).await;
        assert_eq!(generation, 1, "the tombstone is kept for a day");
    }
}

/// A sign-out says whether it has ended the generation, also when it is repeated because its answer
/// was lost; and repeated, with an expected generation or without, it ends nothing more.
pub async fn sign_outs_are_idempotent<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("sign-outs by id");
    let ids = [1, 2, 3].map(|number| CommitId([number; 8]));
    let cleared = |generation, ended| Cleared { generation, ended };
    subject
        .commit(&harness.draft(&subject).put("a", "old"))
        .await;
    let first = cleared(1, true);
    assert_eq!(subject.clear_as(ids[0], Some(0)).await, first);
    assert_eq!(
        subject.clear_as(ids[0], Some(0)).await,
        first,
        "a repeated sign-out is answered as the first time"
    );
    assert_eq!(
        subject.clear_as(ids[1], Some(0)).await,
        cleared(1, false),
        "who comes second has ended nothing"
    );
    subject
        .commit(&harness.draft(&subject).under(1).put("a", "new"))
        .await;
    for expected in [Some(0), None] {
        assert_eq!(
            subject.clear_as(ids[0], expected).await,
            first,
            "it is remembered with the commits that came after it"
        );
    }
    let values = subject.values(["a"]).await;
    assert_eq!(
        values,
        [Some("new".into())],
        "a repeated sign-out spares the new session"
    );
    assert_eq!(subject.clear_as(ids[2], None).await, cleared(2, true));
    assert_eq!(
        subject.clear_as(ids[0], Some(0)).await,
        cleared(2, false),
        "one of the past has not raised the generation in force"
    );
}
