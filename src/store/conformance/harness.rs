//! What the checks need: a store, time that passes, and short forms of its operations.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::store::{
    Change, Cleared, Commit, CommitId, EntryId, Expected, Lifetime, Loaded, Outcome, PartitionId,
    Put, Raise, Remaining, Revision, StoredEntry, TokenStore,
};
use crate::time::{Clock, Timestamp};

/// Long enough for every check, short enough to leave nothing behind on a server.
const AN_HOUR: Lifetime = Lifetime {
    sliding: None,
    since_write: Some(Duration::from_secs(3600)),
    since_creation: None,
};

/// A store to check, and how time passes for it.
pub struct Harness<S> {
    store: Arc<S>,
    clock: Clock,
    manual: bool,
    unit: Duration,
    largest: usize,
    keeps_lives: bool,
    counts_raises: bool,
    namespace: String,
    commits: Arc<AtomicU64>,
}

impl<S: TokenStore> Harness<S> {
    /// For a store that takes its time from this manual clock, which the checks advance. Nothing
    /// is waited for.
    pub fn manual(store: S, clock: Clock) -> Self {
        Self::new(store, clock, true)
    }

    /// For a store that takes its time elsewhere. The checks wait, and assume that the store's
    /// clock and this machine's differ by less than the [unit](Self::with_unit).
    pub fn real_time(store: S) -> Self {
        Self::new(store, Clock::system(), false)
    }

    /// The step of time of the checks: lifetimes are two to four units, and looked at one unit
    /// before and after their end. Defaults to 500 ms, enough for a store on the same network.
    pub fn with_unit(mut self, unit: Duration) -> Self {
        self.unit = unit;
        self
    }

    /// The largest value that the checks write, in bytes. Defaults to 1 MiB, which the engine
    /// allows; a store that takes less has a documented exception.
    pub fn with_largest_value(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }

    /// Leaves the checks of rule 6 out: for a store whose partitions are brought by requests, which
    /// say whether there is one. It has a documented exception.
    pub fn without_lives(mut self) -> Self {
        self.keeps_lives = false;
        self
    }

    /// Lets [`raise`](TokenStore::raise) leave numbers out: for a store that may raise twice for one call, as
    /// [`MigratingStore`](crate::store::MigratingStore) does where another instance moves the epoch meanwhile.
    pub fn without_counting_raises(mut self) -> Self {
        self.counts_raises = false;
        self
    }

    fn new(store: S, clock: Clock, manual: bool) -> Self {
        let random = getrandom::u64().unwrap_or_else(|_| Timestamp::now().as_millis());
        Self {
            store: Arc::new(store),
            clock,
            manual,
            unit: Duration::from_millis(500),
            largest: 1 << 20,
            keeps_lives: true,
            counts_raises: true,
            namespace: format!("conformance-{random:016x}"),
            commits: Arc::new(AtomicU64::new(random)),
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Lets this much time pass for the store.
    pub async fn pass(&self, time: Duration) {
        if self.manual {
            self.clock.advance(time);
        } else {
            tokio::time::sleep(time).await;
        }
    }

    pub(super) fn counts_raises(&self) -> bool {
        self.counts_raises
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) async fn pass_units(&self, units: u32) {
        self.pass(self.units(units)).await;
    }

    pub(super) fn units(&self, units: u32) -> Duration {
        self.unit * units
    }

    pub(super) fn largest_value(&self) -> usize {
        self.largest
    }

    /// Whether hours can pass.
    pub(super) fn keeps_lives(&self) -> bool {
        self.keeps_lives
    }

    pub(super) fn is_manual(&self) -> bool {
        self.manual
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time in that many units.
    pub(super) fn after(&self, units: u32) -> Timestamp {
        self.now().saturating_add(self.units(units))
    }

    /// A partition of this check alone.
    pub(super) fn partition(&self, name: &str) -> Subject<S> {
        Subject {
            store: self.store.clone(),
            sign_outs: self.commits.clone(),
            id: PartitionId::for_tests(&self.namespace, name),
        }
    }

    /// An empty commit under generation 0, living for an hour.
    pub(super) fn draft(&self, subject: &Subject<S>) -> Draft {
        let id = CommitId(self.commits.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Draft(Commit {
            lifetime: AN_HOUR,
            ..Commit::new(subject.id.clone(), id, 0)
        })
    }
}

impl<S> fmt::Debug for Harness<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("namespace", &self.namespace)
            .field("manual", &self.manual)
            .field("unit", &self.unit)
            .finish_non_exhaustive()
    }
}

/// One partition of the store.
pub(super) struct Subject<S> {
    store: Arc<S>,
    pub(super) id: PartitionId,
    sign_outs: Arc<AtomicU64>,
}

impl<S: TokenStore> Subject<S> {
    pub(super) fn store(&self) -> &S {
        &self.store
    }

    pub(super) async fn load(&self) -> Loaded {
        let mut loaded = load_group(&*self.store, std::slice::from_ref(&self.id)).await;
        let loaded = loaded.remove(0);
        assert_eq!(
            loaded.damaged, 0,
            "what the checks write must not be loaded as damaged"
        );
        loaded
    }

    /// The values by name, `None` for those that are absent.
    pub(super) async fn values<const N: usize>(&self, names: [&str; N]) -> [Option<Bytes>; N] {
        let loaded = self.load().await;
        let known: Vec<_> = names.iter().map(|name| EntryId::of(name)).collect();
        let stray = loaded
            .entries
            .iter()
            .find(|entry| !known.contains(&entry.entry));
        assert!(
            stray.is_none(),
            "an entry was loaded that must not be there: {stray:?}"
        );
        names.map(|name| entry(&loaded, name).map(|entry| entry.value.clone()))
    }

    pub(super) async fn send(&self, draft: &Draft) -> Outcome {
        let mut answers = send_group(&*self.store, std::slice::from_ref(&draft.0)).await;
        answers.remove(0)
    }

    /// Sends a commit that must be applied: its version and remaining life.
    pub(super) async fn commit(&self, draft: &Draft) -> (u64, Remaining) {
        match self.send(draft).await {
            Outcome::Committed {
                version, remaining, ..
            } => (version, remaining),
            Outcome::Stale { generation } => panic!(
                "a commit under generation {} was refused as stale, with {generation} in force",
                draft.0.generation
            ),
            Outcome::Conflict => panic!(
                "a commit was in conflict that expected {:?}",
                draft.0.expected
            ),
            Outcome::Lost => panic!("a commit was refused as of the life {:?}", draft.0.life),
        }
    }

    /// Sends a commit that must be refused: the generation in force.
    pub(super) async fn refused(&self, draft: &Draft) -> u64 {
        match self.send(draft).await {
            Outcome::Stale { generation } => generation,
            Outcome::Committed { .. } | Outcome::Conflict | Outcome::Lost => panic!(
                "sign-out is final: a commit under generation {} must be stale",
                draft.0.generation
            ),
        }
    }

    pub(super) async fn touch(&self) -> Remaining {
        let answers = self.store.touch(std::slice::from_ref(&self.id)).await;
        assert_eq!(
            answers.len(),
            1,
            "a touch must be answered once per partition"
        );
        let mut answers = answers.into_iter().flatten();
        answers.next().unwrap_or_else(|| panic!("a touch failed"))
    }

    /// Raises its generation; the one in force.
    pub(super) async fn raise(&self, raise: Raise, keep: Option<Duration>) -> u64 {
        let raised = self.store.raise(&self.id, raise, keep).await;
        raised.unwrap_or_else(|error| panic!("an epoch is raised: {error}"))
    }

    pub(super) async fn revision(&self) -> Revision {
        let group = std::slice::from_ref(&self.id);
        let answer = self.store.revisions(group).await.pop();
        let Some(Ok(revision)) = answer else {
            panic!("a revision is answered");
        };
        revision
    }

    /// Signs out under an id of its own: the generation in force.
    pub(super) async fn clear(&self, expected: Option<u64>) -> u64 {
        let id = CommitId(self.sign_outs.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        self.clear_as(id, expected).await.generation
    }

    pub(super) async fn clear_as(&self, id: CommitId, expected: Option<u64>) -> Cleared {
        let cleared = self.store.clear(&self.id, expected, id).await;
        cleared.unwrap_or_else(|error| panic!("a sign-out failed: {error:?}"))
    }
}

pub(super) async fn load_group<S: TokenStore>(store: &S, group: &[PartitionId]) -> Vec<Loaded> {
    let answers = store.load(group).await;
    assert_eq!(
        answers.len(),
        group.len(),
        "a group must be answered once per partition"
    );
    let answers = answers.into_iter();
    let answers =
        answers.map(|answer| answer.unwrap_or_else(|error| panic!("a load failed: {error:?}")));
    answers.collect()
}

pub(super) async fn send_group<S: TokenStore>(store: &S, group: &[Commit]) -> Vec<Outcome> {
    let answers = store.commit(group).await;
    assert_eq!(
        answers.len(),
        group.len(),
        "a group must be answered once per commit"
    );
    let answers = answers.into_iter();
    let answers =
        answers.map(|answer| answer.unwrap_or_else(|error| panic!("a commit failed: {error:?}")));
    answers.collect()
}

pub(super) fn entry<'a>(loaded: &'a Loaded, name: &str) -> Option<&'a StoredEntry> {
    let id = EntryId::of(name);
    let mut found = loaded.entries.iter().filter(|entry| entry.entry == id);
    let first = found.next();
    assert!(found.next().is_none(), "an entry must be loaded once");
    first
}

/// A commit in the making.
#[derive(Clone)]
pub(super) struct Draft(pub(super) Commit);

impl Draft {
    pub(super) fn put(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.change(name, Some((value.as_ref(), None)))
    }

    pub(super) fn put_until(self, name: &str, value: impl AsRef<[u8]>, end: Timestamp) -> Self {
        self.change(name, Some((value.as_ref(), Some(end))))
    }

    pub(super) fn remove(self, name: &str) -> Self {
        self.change(name, None)
    }

    fn change(mut self, name: &str, put: Option<(&[u8], Option<Timestamp>)>) -> Self {
        self.0.changes.push(Change {
            entry: EntryId::of(name),
            put: put.map(|(value, expires_at)| Put {
                value: Bytes::copy_from_slice(value),
                expires_at,
            }),
        });
        self
    }

    pub(super) fn under(mut self, generation: u64) -> Self {
        self.0.generation = generation;
        self
    }

    pub(super) fn expecting(mut self, name: &str, version: u64) -> Self {
        self.0.expected = Some(Expected {
            entry: EntryId::of(name),
            version,
        });
        self
    }

    pub(super) fn living(mut self, lifetime: Lifetime) -> Self {
        self.0.lifetime = lifetime;
        self
    }
}
