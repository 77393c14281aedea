//! A partition moves between the look of one that follows and what it does.

use super::*;

/// An old store whose partitions move just before they are changed.
struct Overtaken(MemoryStore, MigratingStore<MemoryStore, MemoryStore>);

impl Overtaken {
    fn between(old: &MemoryStore, new: &MemoryStore) -> MigratingStore<Self, MemoryStore> {
        let overtaken = Self(
            old.clone(),
            MigratingStore::moving(old.clone(), new.clone()),
        );
        MigratingStore::following(overtaken, new.clone())
    }

    async fn inner(&self) -> &MemoryStore {
        move_all(&self.1).await;
        &self.0
    }
}

impl TokenStore for Overtaken {
    passes_on!(load, leases);

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        self.inner().await.commit(group).await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        self.inner().await.touch(group).await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        self.inner().await.clear(partition, expected, id).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        self.inner().await.raise(partition, raise, keep).await
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        self.inner().await.relocate(from, commit).await
    }
}

impl Movable for Overtaken {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        self.0.export(partition).await
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        self.0.adopt(partition, it).await
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        self.inner().await.withdraw(from, id).await
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        self.0.remove(partition, last).await
    }
}

async fn begun() -> (MemoryStore, MigratingStore<Overtaken, MemoryStore>) {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    put(&old, "ada", 1, "first").await;
    old.raise(&id("epoch"), Raise::Begin(9), None)
        .await
        .unwrap();
    let following = Overtaken::between(&old, &new);
    (new, following)
}

#[tokio::test]
async fn a_change_that_a_move_overtakes_is_made_in_the_new_store() {
    let (new, following) = begun().await;
    let outcome = put(&following, "ada", 2, "second").await;
    assert!(
        matches!(outcome, Outcome::Committed { version: 2, .. }),
        "{outcome:?}"
    );
    assert_eq!(value(&new, "ada").await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_sign_out_that_a_move_overtakes_is_made_in_the_new_store() {
    for expected in [None, Some(0)] {
        let (new, following) = begun().await;
        let cleared = following
            .clear(&id("ada"), expected, CommitId([9; 8]))
            .await;
        assert_eq!(cleared.unwrap(), Cleared::new(1, true), "{expected:?}");
        assert_eq!(value(&new, "ada").await, None);
        assert_eq!(value(&following, "ada").await, None);
        let late = put(&following, "ada", 2, "late").await;
        assert!(matches!(late, Outcome::Stale { .. }), "{late:?}");
    }
}

#[tokio::test]
async fn a_number_that_a_move_overtakes_rises_in_the_new_store() {
    let (new, following) = begun().await;
    let raised = following.raise(&id("epoch"), Raise::Beyond(0), None).await;
    assert_eq!(raised.unwrap(), 10);
    assert_eq!(load(&new, "epoch").await.generation, 10);
    assert_eq!(load(&following, "epoch").await.generation, 10);
}

#[tokio::test]
async fn a_move_to_another_key_that_is_overtaken_is_made_in_the_new_store() {
    let (new, following) = begun().await;
    let from = Origin::new(id("ada"), 0, 1);
    let to = commit("ada's next", 2, "moved");
    let outcome = following.relocate(&from, &to).await.unwrap();
    assert!(
        matches!(outcome, Outcome::Committed { version: 1, .. }),
        "{outcome:?}"
    );
    assert_eq!(value(&new, "ada").await, None);
    assert_eq!(value(&new, "ada's next").await.as_deref(), Some("moved"));
}

#[tokio::test]
async fn a_use_that_a_move_overtakes_counts_in_the_new_store() {
    let (old, new, clock) = conformance_stores();
    let mut lasting = commit("ada", 1, "first");
    lasting.lifetime.sliding = Some(Duration::from_secs(60));
    old.commit(&[lasting]).await.remove(0).unwrap();
    let following = Overtaken::between(&old, &new);
    clock.advance(Duration::from_secs(30));
    let remaining = following.touch(&[id("ada")]).await.remove(0).unwrap();
    assert_eq!(remaining.idle, Some(Duration::from_secs(60)));
    assert_eq!(load(&new, "ada").await.remaining, remaining);
}

/// An old store in which a partition changes between the copy and the fence, a few times.
struct Busy(MemoryStore, AtomicU64);

impl TokenStore for Busy {
    common::passes_on!(load, commit, touch, clear, raise, relocate, leases);
}

impl Movable for Busy {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        self.0.export(partition).await
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        self.0.adopt(partition, it).await
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        if number < 3 {
            put(&self.0, "ada", 100 + number, &format!("meanwhile {number}")).await;
        }
        self.0.withdraw(from, id).await
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        self.0.remove(partition, last).await
    }
}

#[tokio::test]
async fn a_change_between_the_copy_and_the_fence_is_not_lost() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    put(&old, "ada", 1, "first").await;
    let moving = MigratingStore::moving(Busy(old, AtomicU64::new(0)), new.clone());
    // It expects nothing, and adds an entry.
    let mut other = commit("ada", 2, "other");
    other.changes[0].entry = [2; 16].into();
    moving.commit(&[other]).await.remove(0).unwrap();
    let loaded = load(&new, "ada").await;
    assert_eq!((loaded.version, loaded.entries.len()), (5, 2));
    let values = loaded.entries.iter().map(|entry| entry.value.to_vec());
    assert!(
        values
            .collect::<Vec<_>>()
            .contains(&b"meanwhile 2".to_vec())
    );
}

/// An old store whose copies arrive late.
struct Late(MemoryStore, Duration);

impl TokenStore for Late {
    common::passes_on!(load, commit, touch, clear, raise, relocate, leases);
}

impl Movable for Late {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        let found = self.0.export(partition).await;
        tokio::time::sleep(self.1).await;
        found
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        self.0.adopt(partition, it).await
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        self.0.withdraw(from, id).await
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        self.0.remove(partition, last).await
    }
}

/// As of an instance that stands still in the middle of a move.
#[tokio::test]
async fn a_session_lives_no_longer_because_its_copy_is_late() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    let (hour, late) = (Duration::from_secs(3600), Duration::from_millis(1500));
    let mut lasting = commit("ada", 1, "first");
    lasting.lifetime.since_creation = Some(hour);
    old.commit(&[lasting]).await.remove(0).unwrap();
    let moving = MigratingStore::moving(Late(old, late), new.clone());
    // A sign-out that was made before moves it, and changes nothing.
    let (ada, first) = (id("ada"), CommitId(1_u64.to_be_bytes()));
    assert!(moving.clear(&ada, None, first).await.unwrap().ended);
    let hard = load(&new, "ada").await.remaining.hard.unwrap();
    assert!(hard <= hour - late + Duration::from_millis(100), "{hard:?}");
}
