//! Checks of what a [`CasStore`] has to do.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::harness::Harness;
use crate::store::{CasAdapter, CasStore};

/// How many writers come at once.
const WRITERS: usize = 8;

/// Checks the rules of [`CasStore`], beyond what partitions and leases happen to use of it. It is none of
/// [`CHECKS`](super::CHECKS), which are for any store.
pub async fn cas_store<C: CasStore>(harness: &Harness<CasAdapter<C>>) {
    bytes_come_back(harness).await;
    keys_stand_alone(harness).await;
    changes_compare_revisions(harness).await;
    revisions_are_not_used_again(harness).await;
    concurrent_changes_have_one_winner(harness).await;
    values_are_kept_for_their_time(harness).await;
}

/// A key of these checks.
struct Key<'a, C> {
    store: &'a C,
    name: String,
}

impl<'a, C: CasStore> Key<'a, C> {
    fn new(harness: &'a Harness<CasAdapter<C>>, name: &str) -> Self {
        let name = format!("{}:{name}", harness.namespace());
        let store = harness.store().inner();
        Self { store, name }
    }

    async fn get(&self) -> Option<(Bytes, C::Revision)> {
        let found = self.store.get(&self.name).await;
        found.unwrap_or_else(|error| panic!("a read failed: {error:?}"))
    }

    async fn value(&self) -> Option<Bytes> {
        self.get().await.map(|(bytes, _)| bytes)
    }

    /// What was written just now.
    async fn revision(&self) -> C::Revision {
        let found = self.get().await.map(|(_, revision)| revision);
        found.unwrap_or_else(|| panic!("what was written is in every read that begins later"))
    }

    async fn put(&self, value: impl Into<Bytes>, expected: Option<&C::Revision>) -> bool {
        let hour = Some(Duration::from_secs(3600));
        self.put_for(value, expected, hour).await
    }

    async fn put_for(
        &self,
        value: impl Into<Bytes>,
        expected: Option<&C::Revision>,
        keep: Option<Duration>,
    ) -> bool {
        let put = self.store.put(&self.name, value.into(), expected, keep);
        let put = put.await;
        put.unwrap_or_else(|error| panic!("a write failed: {error:?}"))
    }

    async fn delete(&self, expected: &C::Revision) -> bool {
        let deleted = self.store.delete(&self.name, expected).await;
        deleted.unwrap_or_else(|error| panic!("a deletion failed: {error:?}"))
    }
}

async fn bytes_come_back<C: CasStore>(harness: &Harness<CasAdapter<C>>) {
    let key = Key::new(harness, "bytes");
    assert!(key.get().await.is_none(), "nothing is there yet");
    let all: Vec<u8> = (0..=255).collect();
    for value in [&all[..], b"\0", b" \r\n", &[]] {
        if let Some((_, revision)) = key.get().await {
            assert!(key.delete(&revision).await, "it is as it was read");
        }
        assert!(key.put(value.to_vec(), None).await, "nothing is there");
        assert_eq!(key.value().await.as_deref(), Some(value), "any bytes");
    }
}

async fn keys_stand_alone<C: CasStore>(harness: &Harness<CasAdapter<C>>) {
    let longest = |last: char| {
        let name = "k".repeat(131 - harness.namespace().len() - 1);
        Key::new(harness, &format!("{name}{last}"))
    };
    let keys = [
        longest('a'),
        longest('b'),
        Key::new(harness, "a"),
        Key::new(harness, "A"),
        Key::new(harness, "a.b_c-d:e"),
    ];
    for key in &keys {
        assert!(key.put(key.name.clone(), None).await, "{} is new", key.name);
    }
    for key in &keys {
        let value = key.value().await;
        assert_eq!(value.as_deref(), Some(key.name.as_bytes()));
    }
}

async fn changes_compare_revisions<C: CasStore>(harness: &Harness<CasAdapter<C>>) {
    let key = Key::new(harness, "compared");
    assert!(key.put("1", None).await);
    let first = key.revision().await;
    assert!(!key.put("x", None).await, "something is there");
    assert!(key.put("2", Some(&first)).await, "it is as it was read");
    assert!(!key.put("x", Some(&first)).await, "it has changed since");
    assert!(!key.delete(&first).await, "it has changed since");
    assert_eq!(key.value().await.as_deref(), Some(&b"2"[..]));
    let second = key.revision().await;
    assert!(key.delete(&second).await, "it is as it was read");
    assert!(key.get().await.is_none(), "it is deleted");
    assert!(!key.delete(&second).await, "nothing is there");
    assert!(!key.put("x", Some(&second)).await, "nothing is there");
    assert!(key.get().await.is_none(), "nothing has changed");
}

async fn revisions_are_not_used_again<C: CasStore>(harness: &Harness<CasAdapter<C>>) {
    let key = Key::new(harness, "begun-again");
    assert!(key.put("1", None).await);
    let first = key.revision().await;
    assert!(key.delete(&first).await);
    assert!(key.put("2", None).await);
    assert!(
        !key.put("x", Some(&first)).await && !key.delete(&first).await,
        "equal revisions stand for equal bytes"
    );
    assert_eq!(key.value().await.as_deref(), Some(&b"2"[..]));
}

async fn concurrent_changes_have_one_winner<C: CasStore>(harness: &Harness<CasAdapter<C>>) {
    let key = Key::new(harness, "concurrent");
    let wins = async |round: &str, expected: Option<&C::Revision>| {
        let all = (0..WRITERS).map(|writer| key.put(format!("{round} {writer}"), expected));
        let won = join_all(all).await.into_iter();
        won.filter(|won| *won).count()
    };
    assert_eq!(wins("first", None).await, 1, "one begins");
    let begun = key.revision().await;
    assert_eq!(wins("second", Some(&begun)).await, 1, "one comes first");
    let changed = key.revision().await;
    let all = (0..WRITERS).map(|_| key.delete(&changed));
    let deleted = join_all(all).await.into_iter();
    assert_eq!(deleted.filter(|deleted| *deleted).count(), 1);
}

async fn values_are_kept_for_their_time<C: CasStore>(harness: &Harness<CasAdapter<C>>) {
    let [lasting, kept, longer, for_ever] =
        ["lasting", "kept", "longer", "for-ever"].map(|name| Key::new(harness, name));
    assert!(lasting.put_for("1", None, None).await);
    assert!(kept.put_for("1", None, Some(harness.units(6))).await);
    for key in [&longer, &for_ever] {
        assert!(key.put_for("1", None, Some(harness.units(1))).await);
    }
    let (short, ending) = (longer.revision().await, for_ever.revision().await);
    let six = Some(harness.units(6));
    assert!(longer.put_for("2", Some(&short), six).await);
    assert!(for_ever.put_for("2", Some(&ending), None).await);
    harness.pass_units(5).await;
    for key in [&lasting, &kept, &longer, &for_ever] {
        let name = &key.name;
        assert!(key.get().await.is_some(), "{name} is kept for its time");
    }
}
