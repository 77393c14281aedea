//! Checks of rules 2 to 4: versions, idempotence, and entries that stand alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::harness::{Draft, Harness, entry, load_group, send_group};
use crate::store::{
    Commit, CommitId, Outcome, REMEMBERED_COMMITS, Remaining, Revision, TokenStore,
};

/// A partition that was never written is loaded as absent.
pub async fn absent_partitions_load_empty<S: TokenStore>(harness: &Harness<S>) {
    let loaded = harness.partition("absent").load().await;
    assert!(
        loaded.entries.is_empty(),
        "an absent partition has no entries"
    );
    assert_eq!(loaded.generation, 0, "an absent partition has generation 0");
    assert_eq!(loaded.version, 0, "an absent partition has version 0");
    assert_eq!(
        loaded.cleared_for, None,
        "an absent partition was not signed out"
    );
}

/// Any bytes come back as they were: none at all, every byte there is, and a mebibyte of them
/// (unless the [harness](Harness::with_largest_value) says less). So does an entry's expiry.
pub async fn values_come_back_as_they_were<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("values");
    let every: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    let large: Vec<u8> = every
        .iter()
        .copied()
        .cycle()
        .take(harness.largest_value())
        .collect();
    let expiry = harness.after(1000);
    let draft = harness.draft(&subject);
    let draft = draft
        .put("empty", [])
        .put("every", &every)
        .put_until("large", &large, expiry);
    subject.commit(&draft).await;
    let loaded = subject.load().await;
    assert_eq!(loaded.entries.len(), 3, "every entry of a commit is stored");
    let value = |name| entry(&loaded, name).map(|entry| entry.value.to_vec());
    assert_eq!(value("empty"), Some(vec![]), "an empty value is a value");
    assert_eq!(value("every"), Some(every), "values are arbitrary bytes");
    assert!(
        value("large") == Some(large),
        "a large value comes back as it was"
    );
    let expires_at = |name| entry(&loaded, name).and_then(|entry| entry.expires_at);
    assert_eq!(
        expires_at("large"),
        Some(expiry),
        "an entry's expiry comes back as it was"
    );
    assert_eq!(
        expires_at("every"),
        None,
        "an entry without an expiry has none"
    );
}

/// What the writer takes the partition's version for has no effect, right or wrong.
pub async fn bases_are_hints<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("bases");
    let expiry = harness.after(1000);
    let bases = [0, 7, 2, 0, u64::MAX, 5];
    for (version, base) in (1..).zip(bases) {
        let mut draft = harness.draft(&subject);
        draft.0.base = base;
        let value = format!("version {version}");
        let draft = draft.put("a", &value).put_until("b", &value, expiry);
        assert_eq!(subject.commit(&draft).await.0, version, "base {base}");
        let loaded = subject.load().await;
        for (name, end) in [("a", None), ("b", Some(expiry))] {
            let stored = entry(&loaded, name).map(|it| (&it.value[..], it.version, it.expires_at));
            assert_eq!(
                stored,
                Some((value.as_bytes(), version, end)),
                "base {base}"
            );
        }
    }
}

/// Rule 4: a commit writes and removes what it names, and leaves all else as it is.
pub async fn commits_change_only_what_they_name<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("named");
    let draft = || harness.draft(&subject);
    subject
        .commit(
            &draft()
                .put("kept", "1")
                .put("changed", "1")
                .put("removed", "1"),
        )
        .await;
    subject
        .commit(
            &draft()
                .put("changed", "2")
                .remove("removed")
                .remove("unknown"),
        )
        .await;
    let values = subject
        .values(["kept", "changed", "removed", "unknown"])
        .await;
    let values = values.map(|value| value.map(|bytes| bytes.to_vec()));
    let [kept, changed, removed, unknown] = values;
    assert_eq!(
        kept.as_deref(),
        Some(&b"1"[..]),
        "rule 4: other entries stay as they are"
    );
    assert_eq!(
        changed.as_deref(),
        Some(&b"2"[..]),
        "rule 4: the named entry is replaced"
    );
    assert_eq!(removed, None, "rule 4: the named entry is removed");
    assert_eq!(unknown, None, "removing an absent entry does nothing");
}

/// Rule 2: each commit raises the version by one, and the entries it writes carry it.
pub async fn versions_rise_by_one<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("versions");
    for (expected, name) in [(1, "a"), (2, "b"), (3, "a")] {
        let (version, _) = subject
            .commit(&harness.draft(&subject).put(name, "x"))
            .await;
        assert_eq!(
            version, expected,
            "rule 2: each commit raises the version by one"
        );
    }
    let (version, _) = subject
        .commit(&harness.draft(&subject).remove("none"))
        .await;
    assert_eq!(
        version, 4,
        "rule 2: a commit that only removes raises the version, too"
    );
    let loaded = subject.load().await;
    assert_eq!(
        loaded.version, 4,
        "the loaded version is that of the last commit"
    );
    let version = |name| entry(&loaded, name).map(|entry| entry.version);
    assert_eq!(
        version("a"),
        Some(3),
        "rule 2: an entry carries its commit's version"
    );
    assert_eq!(
        version("b"),
        Some(2),
        "rule 2: an entry not named keeps its version"
    );
}

/// What happens to one partition does not happen to another.
pub async fn partitions_stand_alone<S: TokenStore>(harness: &Harness<S>) {
    let (one, other) = (harness.partition("one"), harness.partition("other"));
    one.commit(&harness.draft(&one).put("a", "1")).await;
    other.commit(&harness.draft(&other).put("a", "2")).await;
    one.clear(None).await;
    let loaded = other.load().await;
    assert_eq!(
        (loaded.generation, loaded.version),
        (0, 1),
        "partitions stand alone"
    );
    assert_eq!(loaded.entries.len(), 1, "a sign-out ends one partition");
}

/// A hundred commits in one group are answered in order, and one that is stale does not affect the
/// others.
pub async fn groups_are_answered_in_order<S: TokenStore>(harness: &Harness<S>) {
    assert!(
        send_group(harness.store(), &[]).await.is_empty(),
        "an empty group has no answers"
    );
    let subjects: Vec<_> = (0..100)
        .map(|i| harness.partition(&format!("group {i}")))
        .collect();
    let stale = 50;
    subjects[stale].clear(None).await;
    let mut group: Vec<Commit> = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        // The number of earlier commits tells the answers apart.
        for _ in 0..i % 4 {
            subject
                .send(&harness.draft(subject).put("before", "x"))
                .await;
        }
        group.push(harness.draft(subject).put("a", i.to_string()).0);
    }
    let answers = send_group(harness.store(), &group).await;
    for (i, (answer, subject)) in answers.iter().zip(&subjects).enumerate() {
        let a = entry(&subject.load().await, "a").map(|entry| entry.value.to_vec());
        if i == stale {
            assert_eq!(
                *answer,
                Outcome::Stale { generation: 1 },
                "only the 51st is stale"
            );
            assert_eq!(a, None, "a stale commit changes nothing, in a group, too");
            continue;
        }
        let expected = 1 + i as u64 % 4;
        match answer {
            Outcome::Committed { version, .. } => {
                assert_eq!(
                    *version, expected,
                    "a group's answers come in its order ({i})"
                );
            }
            Outcome::Stale { .. } | Outcome::Conflict | Outcome::Lost => {
                panic!("a stale commit affected another one ({i})")
            }
        }
        assert_eq!(
            a,
            Some(i.to_string().into_bytes()),
            "every commit is applied ({i})"
        );
    }
}

/// Rule 3: a commit that is sent again is answered and not applied again, not even when others
/// have committed in between.
pub async fn repeated_commits_are_not_applied_again<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("repeated");
    let first = harness.draft(&subject).put("a", "first").remove("b");
    assert_eq!(subject.commit(&first).await.0, 1);
    assert_eq!(
        subject.commit(&first).await.0,
        1,
        "rule 3: a repeated commit raises no version"
    );
    subject
        .commit(
            &harness
                .draft(&subject)
                .put("a", "second")
                .put("b", "second"),
        )
        .await;
    let (version, remaining) = subject.commit(&first).await;
    assert_eq!(
        version, 2,
        "rule 3: a repeated commit is answered with the version now"
    );
    assert_ne!(
        remaining,
        Remaining::default(),
        "a repeated commit is told its remaining life"
    );
    let second = || Some("second".into());
    let values = subject.values(["a", "b"]).await;
    assert_eq!(
        values,
        [second(), second()],
        "rule 3: a repeated commit is not applied again"
    );
    assert_eq!(
        subject.load().await.version,
        2,
        "rule 3: a repeated commit raises no version"
    );
}

/// Rule 3: the last sixteen commits of a partition are remembered.
pub async fn sixteen_commits_are_remembered<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("remembered");
    subject
        .commit(&harness.draft(&subject).put("a", "too old"))
        .await;
    let drafts: Vec<Draft> = (0..REMEMBERED_COMMITS)
        .map(|i| harness.draft(&subject).put("a", i.to_string()))
        .collect();
    for draft in &drafts {
        subject.commit(draft).await;
    }
    let expected = 1 + REMEMBERED_COMMITS as u64;
    for (i, draft) in drafts.iter().enumerate() {
        let (version, _) = subject.commit(draft).await;
        assert_eq!(
            version, expected,
            "rule 3: 16 commits are remembered, not only after {i}"
        );
    }
    let newest = (REMEMBERED_COMMITS - 1).to_string();
    assert_eq!(
        subject.values(["a"]).await,
        [Some(newest.into())],
        "rule 3: nothing is undone"
    );
}

/// No lost update: fifty concurrent commits to different entries of one partition all survive, and
/// each has a version of its own.
pub async fn concurrent_commits_all_survive<S: TokenStore>(harness: &Harness<S>) {
    let subject = Arc::new(harness.partition("concurrent"));
    let mut tasks = JoinSet::new();
    for i in 0..50 {
        let draft = harness.draft(&subject).put(&i.to_string(), i.to_string());
        let subject = subject.clone();
        tasks.spawn(async move { subject.commit(&draft).await.0 });
    }
    let versions: BTreeSet<u64> = tasks.join_all().await.into_iter().collect();
    assert_eq!(
        versions,
        (1..=50).collect(),
        "rule 2: concurrent commits have distinct versions"
    );
    let loaded = subject.load().await;
    assert_eq!(
        loaded.version, 50,
        "rule 2: each concurrent commit raises the version"
    );
    for i in 0..50 {
        let value = entry(&loaded, &i.to_string()).map(|entry| entry.value.to_vec());
        assert_eq!(
            value,
            Some(i.to_string().into_bytes()),
            "no lost update (entry {i})"
        );
    }
}

/// A group of loads is answered in its order, whatever is absent, signed out or asked for twice.
pub async fn loads_are_answered_in_order<S: TokenStore>(harness: &Harness<S>) {
    let mut group = Vec::new();
    for i in 0..12 {
        let subject = harness.partition(&format!("load {i}"));
        match i % 3 {
            0 => drop(
                subject
                    .commit(&harness.draft(&subject).put("a", i.to_string()))
                    .await,
            ),
            1 => drop(subject.clear(None).await),
            _ => {}
        }
        group.push(subject.id.clone());
    }
    group.push(group[0].clone());
    let loaded = load_group(harness.partition("load 0").store(), &group).await;
    for (i, loaded) in loaded.iter().enumerate() {
        let i = i % 12;
        let value = entry(loaded, "a").map(|entry| entry.value.to_vec());
        let expected = (i % 3 == 0).then(|| i.to_string().into_bytes());
        assert_eq!(value, expected, "loads are answered in order");
        let signed_out = u64::from(i % 3 == 1);
        assert_eq!(loaded.generation, signed_out, "loads are answered in order");
    }
    let none = load_group(harness.partition("load 0").store(), &[]).await;
    assert!(none.is_empty(), "nothing asked, nothing answered");
}

/// States of one number are told apart by the id of what came last, and a commit says what came
/// before it.
pub async fn ids_tell_states_apart<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("ids");
    let previous = async |draft: &Draft| match subject.send(draft).await {
        Outcome::Committed { previous, .. } => previous,
        other => panic!("a commit was refused: {other:?}"),
    };
    let last = async || {
        let loaded = subject.load().await.revision();
        let revisions = subject
            .store()
            .revisions(std::slice::from_ref(&subject.id))
            .await;
        let alone = revisions.into_iter().next();
        let alone = alone.unwrap_or_else(|| panic!("each partition has an answer"));
        let alone = alone.unwrap_or_else(|error| panic!("a look failed: {error:?}"));
        assert_eq!(alone, loaded, "a revision is what a load says");
        loaded.commit
    };
    assert_eq!(last().await, None, "nothing was committed");
    let one = harness.draft(&subject).put("a", "1");
    let two = harness.draft(&subject).put("a", "2");
    assert_eq!(previous(&one).await, None, "the first comes after nothing");
    assert_eq!(last().await, Some(one.0.id));
    for _ in 0..2 {
        let before = previous(&two).await;
        assert_eq!(before, Some(one.0.id), "once or again, it came after that");
        assert_eq!(last().await, Some(two.0.id));
    }
    let sign_out = CommitId([7; 8]);
    subject.clear_as(sign_out, None).await;
    assert_eq!(last().await, Some(sign_out), "a sign-out counts, too");
    let three = harness.draft(&subject).under(1).put("a", "3");
    assert_eq!(previous(&three).await, Some(sign_out));
    assert_eq!(last().await, Some(three.0.id));
}

/// A commit that is sent again when its id may be forgotten does not overwrite what came after it.
pub async fn late_repetitions_spare_what_is_newer<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("late repetitions");
    subject.commit(&harness.draft(&subject).put("a", "0")).await;
    let mut late = harness.draft(&subject).put("a", "old").put("b", "old");
    subject.commit(&late).await;
    for number in 0..20 {
        let value = number.to_string();
        let other = harness.draft(&subject).put("a", &value);
        subject.commit(&other).await;
    }
    late.0.repeats = Some(1);
    subject.commit(&late).await;
    let [a, b] = subject.values(["a", "b"]).await;
    assert_eq!(
        a.as_deref(),
        Some(&b"19"[..]),
        "rule 3: the later one stays"
    );
    assert_eq!(
        b.as_deref(),
        Some(&b"old"[..]),
        "what it wrote itself stays"
    );
    let mut soon = harness.draft(&subject).put("a", "soon");
    soon.0.repeats = Some(20);
    subject.commit(&soon).await;
    let [a, _] = subject.values(["a", "b"]).await;
    assert_eq!(
        a.as_deref(),
        Some(&b"soon"[..]),
        "its id would be remembered, so that it was not applied"
    );
}

/// A commit that goes on with a life is not applied in another one, or where there is none.
pub async fn nothing_goes_on_in_another_life<S: TokenStore>(harness: &Harness<S>) {
    if !harness.keeps_lives() {
        return;
    }
    let subject = harness.partition("another life");
    let other = Some(CommitId([9; 8]));
    let with = |life| {
        let mut draft = harness.draft(&subject).put("a", "1");
        draft.0.life = life;
        draft
    };
    let draft = with(other);
    assert_eq!(subject.send(&draft).await, Outcome::Lost, "rule 6: absent");
    assert_eq!(subject.load().await.revision(), Revision::default());
    let first = with(None);
    subject.commit(&first).await;
    let life = subject.load().await.life;
    assert_eq!(life, Some(first.0.id));
    subject.commit(&with(life)).await;
    let draft = with(other);
    assert_eq!(subject.send(&draft).await, Outcome::Lost, "rule 6: another");
    assert_eq!(subject.load().await.version, 2, "nothing was changed");
    subject.clear_as(CommitId([8; 8]), None).await;
    assert_eq!(subject.refused(&with(life)).await, 1, "stale goes first");
    let draft = with(life).under(1);
    assert_eq!(subject.send(&draft).await, Outcome::Lost, "rule 6: ended");
    subject.commit(&with(None).under(1)).await;
}

/// A life is known by its first commit however many have come since, and each commit tells.
pub async fn lives_last_from_the_first_commit<S: TokenStore>(harness: &Harness<S>) {
    if !harness.keeps_lives() {
        return;
    }
    let subject = harness.partition("one life");
    let first = harness.draft(&subject).put("a", "0");
    subject.commit(&first).await;
    for number in 1..40 {
        let value = number.to_string();
        let mut draft = harness.draft(&subject).put("a", &value);
        draft.0.life = Some(first.0.id);
        for _ in 0..2 {
            let Outcome::Committed { life, .. } = subject.send(&draft).await else {
                panic!("commit {number} was refused");
            };
            assert_eq!(life, Some(first.0.id), "after {number} commits");
        }
        assert_eq!(subject.load().await.life, Some(first.0.id));
    }
}
