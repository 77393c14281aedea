//! Checks of how partitions and entries end.

use std::time::Duration;

use super::harness::{Draft, Harness, Subject, entry};
use crate::store::{Lifetime, Remaining, TokenStore};

const NO_END: Lifetime = Lifetime {
    sliding: None,
    since_write: None,
    since_creation: None,
};

/// A partition ends when its lifetime since the last write since the last commit is over, and the next commit
/// finds nothing of it.
pub async fn lifetime_since_write_ends<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("absolute");
    let lifetime = Lifetime {
        since_write: Some(harness.units(2)),
        ..NO_END
    };
    let draft = || harness.draft(&subject).living(lifetime);
    let (_, remaining) = subject.commit(&draft().put("a", "x")).await;
    about(harness, remaining.hard, 2);
    about(harness, remaining.idle, 2);
    harness.pass_units(1).await;
    about(harness, subject.load().await.remaining.hard, 1);
    present(
        &subject,
        "a partition lives for its lifetime since the last write",
    )
    .await;
    harness.pass_units(2).await;
    absent(
        &subject,
        "a partition ends with its lifetime since the last write",
    )
    .await;
    let (version, _) = subject.commit(&draft().put("b", "y")).await;
    assert_eq!(
        version, 1,
        "a partition that has ended starts at version 1 again"
    );
    let values = subject.values(["a", "b"]).await;
    assert_eq!(
        values,
        [None, Some("y".into())],
        "a commit does not revive what has ended"
    );
}

/// Each commit starts the lifetime since the last write anew.
pub async fn commits_renew_the_lifetime_since_write<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("renewed");
    let lifetime = Lifetime {
        since_write: Some(harness.units(3)),
        ..NO_END
    };
    let draft = || harness.draft(&subject).living(lifetime);
    subject.commit(&draft().put("a", "x")).await;
    harness.pass_units(2).await;
    let (_, remaining) = subject.commit(&draft().put("b", "x")).await;
    about(harness, remaining.hard, 3);
    harness.pass_units(2).await;
    present(
        &subject,
        "a commit starts the lifetime since the last write anew",
    )
    .await;
}

/// Each touch starts the sliding lifetime anew; without one, the partition ends.
pub async fn touches_renew_the_sliding_lifetime<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("touched");
    let (_, remaining) = subject.commit(&sliding(harness, &subject)).await;
    about(harness, remaining.idle, 3);
    assert_eq!(
        remaining.hard, None,
        "a sliding lifetime alone sets no hard end"
    );
    for _ in 0..2 {
        harness.pass_units(2).await;
        let remaining = subject.touch().await;
        about(harness, remaining.idle, 3);
        present(&subject, "a touch starts the sliding lifetime anew").await;
    }
    harness.pass_units(4).await;
    absent(&subject, "a partition ends with its sliding lifetime").await;
}

/// Only touches and commits start the sliding lifetime anew.
pub async fn loads_do_not_renew<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("loaded");
    subject.commit(&sliding(harness, &subject)).await;
    harness.pass_units(2).await;
    about(harness, subject.load().await.remaining.idle, 1);
    harness.pass_units(2).await;
    absent(&subject, "a load does not start the sliding lifetime anew").await;
}

/// Touches move the end up to the hard end, never beyond.
pub async fn touches_stop_at_the_hard_end<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("touched to the end");
    let lifetime = Lifetime {
        sliding: Some(harness.units(3)),
        since_write: Some(harness.units(4)),
        since_creation: None,
    };
    let draft = harness.draft(&subject).living(lifetime);
    let (_, remaining) = subject.commit(&draft.put("a", "x")).await;
    about(harness, remaining.idle, 3);
    about(harness, remaining.hard, 4);
    harness.pass_units(2).await;
    let remaining = subject.touch().await;
    about(harness, remaining.idle, 2);
    about(harness, remaining.hard, 2);
    assert!(
        remaining.idle <= remaining.hard,
        "the hard end is never before the idle end"
    );
    harness.pass_units(1).await;
    subject.touch().await;
    present(&subject, "a touched partition lives up to its hard end").await;
    harness.pass_units(2).await;
    absent(&subject, "a touch does not move the hard end").await;
}

/// A touch of an absent, an ended or a signed-out partition does nothing, and touches are answered
/// in order.
pub async fn touches_change_nothing_that_has_ended<S: TokenStore>(harness: &Harness<S>) {
    let absent_one = harness.partition("touched, absent");
    let ended = harness.partition("touched, ended");
    let ended_again = harness.partition("touched, ended after a sign-out");
    let signed_out = harness.partition("touched, signed out");
    let live = harness.partition("touched, live");
    let short = Lifetime {
        sliding: Some(harness.units(1)),
        ..NO_END
    };
    ended
        .commit(&harness.draft(&ended).put("a", "x").living(short))
        .await;
    ended_again.clear(None).await;
    let second = harness.draft(&ended_again).under(1).put("a", "x");
    ended_again.commit(&second.living(short)).await;
    signed_out.commit(&sliding(harness, &signed_out)).await;
    signed_out.clear(None).await;
    harness.pass_units(2).await;
    live.commit(&sliding(harness, &live)).await;
    let group = [&absent_one, &ended, &ended_again, &signed_out, &live];
    let group = group.map(|subject| subject.id.clone());
    let answers = harness.store().touch(&group).await;
    assert_eq!(
        answers.len(),
        group.len(),
        "a touch must be answered once per partition"
    );
    let Some(Ok(answer)) = answers.last() else {
        panic!("the touch of a live partition failed");
    };
    about(harness, answer.idle, 3);
    absent(&absent_one, "a touch does not create a partition").await;
    absent(&ended, "a touch does not revive a partition").await;
    let loaded = ended_again.load().await;
    assert!(
        loaded.entries.is_empty(),
        "a touch does not revive a partition"
    );
    assert_eq!(loaded.generation, 1, "a touch keeps the tombstone");
    let loaded = signed_out.load().await;
    assert!(
        loaded.entries.is_empty(),
        "a touch does not undo a sign-out"
    );
    assert_eq!(loaded.generation, 1, "a touch keeps the tombstone");
    signed_out
        .refused(&harness.draft(&signed_out).put("a", "late"))
        .await;
}

/// The maximal age counts from the partition's creation, whatever is committed later; what is
/// committed after it, begins a new life.
pub async fn commits_do_not_renew_the_maximal_age<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("aged");
    let lifetime = Lifetime {
        sliding: Some(harness.units(3)),
        since_write: Some(harness.units(100)),
        since_creation: Some(harness.units(4)),
    };
    let draft = || harness.draft(&subject).living(lifetime).put("a", "x");
    about(harness, subject.commit(&draft()).await.1.hard, 4);
    harness.pass_units(2).await;
    let (_, remaining) = subject.commit(&draft()).await;
    about(harness, remaining.hard, 2);
    about(harness, remaining.idle, 2);
    harness.pass_units(1).await;
    present(&subject, "a partition lives up to its maximal age").await;
    harness.pass_units(2).await;
    absent(&subject, "a commit does not renew the maximal age").await;
    about(harness, subject.commit(&draft()).await.1.hard, 4);
}

/// An entry that has expired is not loaded; the others are, and it can be written again.
pub async fn entries_expire_alone<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("expiring");
    let draft = harness.draft(&subject).put("a", "x");
    subject
        .commit(&draft.put_until("brief", "x", harness.after(2)))
        .await;
    harness.pass_units(1).await;
    assert!(
        entry(&subject.load().await, "brief").is_some(),
        "an entry lives until its expiry"
    );
    harness.pass_units(2).await;
    let x = || Some("x".into());
    assert_eq!(
        subject.values(["a", "brief"]).await,
        [x(), None],
        "an expired entry is absent"
    );
    subject.commit(&harness.draft(&subject).put("b", "x")).await;
    let values = subject.values(["a", "brief", "b"]).await;
    assert_eq!(
        values,
        [x(), None, x()],
        "a commit does not revive an expired entry"
    );
    subject
        .commit(&harness.draft(&subject).put("brief", "x"))
        .await;
    let values = subject.values(["a", "brief", "b"]).await;
    assert_eq!(
        values,
        [x(), x(), x()],
        "an expired entry can be written again, without expiry"
    );
}

/// A partition whose entries all expire ends with the last of them; one entry without an expiry
/// keeps it.
pub async fn partitions_end_with_their_last_entry<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("emptied");
    let kept = harness.partition("not emptied");
    let draft = harness
        .draft(&subject)
        .put_until("a", "x", harness.after(4));
    subject.commit(&draft).await;
    let draft = harness
        .draft(&subject)
        .put_until("b", "x", harness.after(2));
    let (_, remaining) = subject.commit(&draft).await;
    about(harness, remaining.hard, 4);
    let draft = harness
        .draft(&kept)
        .put_until("b", "x", harness.after(2))
        .put("a", "x");
    let (_, remaining) = kept.commit(&draft).await;
    let beyond = remaining.hard.is_none_or(|hard| hard > harness.units(6));
    assert!(
        beyond,
        "an entry without an expiry lives as long as its partition"
    );
    harness.pass_units(3).await;
    present(&subject, "a partition lives until its last entry expires").await;
    present(
        &kept,
        "an entry without an expiry lives as long as its partition",
    )
    .await;
    harness.pass_units(2).await;
    absent(&subject, "a partition ends with its last entry").await;
    present(&kept, "an entry without an expiry keeps its partition").await;
}

/// Without lifetimes and expiries a partition has no end.
pub async fn without_lifetimes_there_is_no_end<S: TokenStore>(harness: &Harness<S>) {
    let subject = harness.partition("endless");
    let (_, remaining) = subject
        .commit(&harness.draft(&subject).put("a", "x").living(NO_END))
        .await;
    assert_eq!(
        remaining,
        Remaining::default(),
        "without lifetimes there is no end"
    );
    harness.pass_units(1).await;
    let remaining = subject.load().await.remaining;
    assert_eq!(
        remaining,
        Remaining::default(),
        "without lifetimes there is no end"
    );
    present(&subject, "without lifetimes there is no end").await;
    let draft = harness.draft(&subject).put("b", "x");
    let hard = subject.commit(&draft).await.1.hard;
    assert!(hard.is_some(), "the last commit's lifetime counts");
}

/// A commit of one entry that lives for three units since its last use.
fn sliding<S: TokenStore>(harness: &Harness<S>, subject: &Subject<S>) -> Draft {
    let lifetime = Lifetime {
        sliding: Some(harness.units(3)),
        ..NO_END
    };
    harness.draft(subject).put("a", "x").living(lifetime)
}

async fn present<S: TokenStore>(subject: &Subject<S>, rule: &str) {
    assert!(entry(&subject.load().await, "a").is_some(), "{rule}");
}

async fn absent<S: TokenStore>(subject: &Subject<S>, rule: &str) {
    let loaded = subject.load().await;
    assert!(loaded.entries.is_empty(), "{rule}");
    let numbers = (loaded.generation, loaded.version, loaded.cleared_for);
    assert_eq!(
        numbers,
        (0, 0, None),
        "a partition that has ended is loaded as absent: {rule}"
    );
}

/// A remaining life, less what the checks themselves took, and off by the clocks' difference.
#[track_caller]
fn about<S: TokenStore>(harness: &Harness<S>, remaining: Option<Duration>, units: u32) {
    let Some(remaining) = remaining else {
        panic!("a partition with a lifetime of {units} units must not be without end");
    };
    let (least, most) = (harness.units(units - 1), harness.units(units + 1));
    assert!(
        least < remaining && remaining < most,
        "the remaining life must be about {units} units of {:?}, not {remaining:?}",
        harness.units(1)
    );
}
