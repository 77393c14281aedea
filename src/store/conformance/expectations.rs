//! Checks of rule 5: what a commit expects is compared atomically.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::harness::{Draft, Harness, Subject, entry, send_group};
use crate::store::{Lifetime, Outcome, REMEMBERED_COMMITS, TokenStore};

/// A commit that expects an entry as it is is applied; one that expects another version changes
/// nothing, whether the entry is there or not.
pub async fn expectations_are_compared<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("expected");
    let draft = |value: &str| harness.draft(&subject).put("a", value).put("b", value);
    conflict(&subject, &draft("0").expecting("a", 1)).await;
    assert_eq!(
        subject.load().await.version,
        0,
        "rule 5: a conflict changes nothing"
    );
    subject.commit(&draft("1").expecting("a", 0)).await;
    conflict(&subject, &draft("2").expecting("a", 0)).await;
    conflict(&subject, &draft("2").expecting("a", 2)).await;
    conflict(&subject, &draft("2").expecting("absent", 1)).await;
    unchanged(&subject, 1, "1").await;

    subject.commit(&draft("2").expecting("a", 1)).await;
    unchanged(&subject, 2, "2").await;
    subject.commit(&draft("3").expecting("absent", 0)).await;
    unchanged(&subject, 3, "3").await;
    let other = harness.draft(&subject).put("c", "4");
    subject.commit(&other).await;
    let (version, _) = subject.commit(&draft("5").expecting("a", 3)).await;
    assert_eq!(
        version, 5,
        "rule 5: it is the entry's version that is expected, not the partition's"
    );
    subject.commit(&harness.draft(&subject).remove("a")).await;
    conflict(&subject, &draft("7").expecting("a", 5)).await;
    subject.commit(&draft("7").expecting("a", 0)).await;
}

/// A commit in conflict is not remembered: sent again when its expectation holds, it is applied.
/// One that was applied is answered without looking at what it expects.
pub async fn conflicts_are_not_remembered<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("expected, repeated");
    let second = harness.draft(&subject).put("a", "2").expecting("a", 1);
    for _ in 0..=REMEMBERED_COMMITS {
        conflict(&subject, &second).await;
    }
    let first = harness.draft(&subject).put("a", "1").expecting("a", 0);
    subject.commit(&first).await;
    for _ in 0..REMEMBERED_COMMITS {
        let draft = harness.draft(&subject).put("a", "x").expecting("a", 7);
        conflict(&subject, &draft).await;
    }
    let (version, _) = subject.commit(&first).await;
    assert_eq!(
        version, 1,
        "rule 3: a repeated commit is answered as such, whatever it expects"
    );
    let (version, _) = subject.commit(&second).await;
    assert_eq!(version, 2, "rule 5: a conflict raises no version");
    let values = subject.values(["a"]).await;
    assert_eq!(
        values,
        [Some("2".into())],
        "rule 5: a conflict is not remembered as a commit"
    );
}

/// An entry that has expired is absent, and is what it was, until the store frees it.
pub async fn expired_entries_are_expected_as_absent<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("expected, expired");
    let draft = harness.draft(&subject).put("kept", "x");
    let draft = draft.put_until("a", "old", harness.after(1));
    subject.commit(&draft).await;
    let next = harness.draft(&subject).put("a", "new");
    conflict(&subject, &next.clone().expecting("a", 0)).await;
    harness.pass_units(2).await;
    conflict(&subject, &next.clone().expecting("a", 2)).await;
    subject.commit(&next.expecting("a", 0)).await;
    let values = subject.values(["a", "kept"]).await;
    assert_eq!(values, [Some("new".into()), Some("x".into())]);
}

/// Where nothing that was stored counts any more every entry is absent: in a partition that has
/// ended, was signed out, or belongs to a generation of the past.
pub async fn entries_of_the_past_are_expected_as_absent<S: TokenStore>(harness: &Harness<S>) {
    let lost = harness.partition("expected, lost");
    lost.commit(&harness.draft(&lost).put("a", "1")).await;
    let next = harness.draft(&lost).under(1).put("a", "2");
    conflict(&lost, &next.clone().expecting("a", 1)).await;
    assert_eq!(
        lost.values(["a"]).await,
        [Some("1".into())],
        "rule 5: a conflict changes nothing"
    );
    lost.commit(&next.expecting("a", 0)).await;

    let ended = harness.partition("expected, ended");
    let short = Lifetime {
        since_write: Some(harness.units(1)),
        ..Lifetime::default()
    };
    let draft = harness.draft(&ended).put("a", "1").living(short);
    ended.commit(&draft).await;
    harness.pass_units(2).await;
    let next = harness.draft(&ended).put("a", "2");
    conflict(&ended, &next.clone().expecting("a", 1)).await;
    ended.commit(&next.expecting("a", 0)).await;

    let signed_out = harness.partition("expected, signed out");
    let before = harness.draft(&signed_out).put("a", "1");
    signed_out.commit(&before).await;
    signed_out.clear(None).await;
    let late = harness.draft(&signed_out).put("a", "2").expecting("a", 9);
    assert_eq!(
        signed_out.refused(&late).await,
        1,
        "rule 5: stale goes before conflict"
    );
    let next = harness.draft(&signed_out).under(1).put("a", "2");
    conflict(&signed_out, &next.clone().expecting("a", 1)).await;
    signed_out.commit(&next.expecting("a", 0)).await;
}

/// In a group a conflict is its own commit's alone.
pub async fn conflicts_in_a_group_stand_alone<S: TokenStore>(harness: &Harness<S>) {
    let subjects = ["1", "2", "3"].map(|name| harness.partition(&format!("conflict {name}")));
    let drafts = subjects.each_ref().map(|subject| harness.draft(subject));
    let [one, two, three] = drafts.map(|draft| draft.put("a", "x"));
    let group = [one.0, two.expecting("a", 1).0, three.expecting("a", 0).0];
    let answers = send_group(harness.store(), &group).await;
    assert_eq!(answers[1], Outcome::Conflict, "the second is in conflict");
    for (subject, applied) in subjects.iter().zip([1, 0, 1]) {
        let version = subject.load().await.version;
        assert_eq!(version, applied, "a conflict does not affect its group");
    }
}

/// Of fifty concurrent commits that expect the same version of an entry exactly one is applied.
pub async fn concurrent_expectations_have_one_winner<S: TokenStore>(harness: &Harness<S>) {
    let subject = Arc::new(harness.partition("expected, concurrent"));
    for version in 0..3 {
        let mut tasks = JoinSet::new();
        for i in 0..50 {
            let draft = harness.draft(&subject).put("a", i.to_string());
            let draft = draft.expecting("a", version);
            let subject = subject.clone();
            tasks.spawn(async move { (i, subject.send(&draft).await) });
        }
        let answers = tasks.join_all().await;
        let winners: Vec<_> = answers
            .iter()
            .filter(|(_, answer)| *answer != Outcome::Conflict)
            .collect();
        let [(winner, Outcome::Committed { version: after, .. })] = winners[..] else {
            panic!("rule 5: exactly one of several may win, not {winners:?}");
        };
        assert_eq!(*after, version + 1, "rule 5: the others raise no version");
        let loaded = subject.load().await;
        let value = entry(&loaded, "a").map(|entry| entry.value.to_vec());
        assert_eq!(
            value,
            Some(winner.to_string().into_bytes()),
            "rule 5: what the winner wrote is there"
        );
    }
}

pub(super) async fn conflict<S: TokenStore>(subject: &Subject<S>, draft: &Draft) {
    let answer = subject.send(draft).await;
    assert_eq!(
        answer,
        Outcome::Conflict,
        "rule 5: a commit is in conflict when the entry has another version: {:?}",
        draft.0.expected
    );
}

async fn unchanged<S: TokenStore>(subject: &Subject<S>, version: u64, value: &str) {
    let loaded = subject.load().await;
    assert_eq!(
        loaded.version, version,
        "rule 5: a conflict changes nothing"
    );
    for name in ["a", "b"] {
        let found = entry(&loaded, name).map(|entry| entry.value.to_vec());
        assert_eq!(
            found,
            Some(value.into()),
            "rule 5: a conflict changes nothing"
        );
    }
}
