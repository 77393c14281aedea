//! What the engine calls partitions and entries in a store, learnt from watching one.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use tower_token_cache::store::{Commit, EntryId, Outcome, PartitionId, Raise};
use tower_token_cache::{
    Clock, MemoryStore, PartitionKey, StoreError, Timestamp, Token, TokenCache, TokenSet,
    TokenStore,
};

use super::users::{USERS, user};

/// Partitions of a world.
pub const PARTITIONS: usize = 3;
/// Entries of a partition: two access tokens, and the refresh token.
pub const KEYS: [&str; 2] = ["k0", "k1"];
pub const REFRESH: usize = KEYS.len();
pub const ENTRIES: usize = KEYS.len() + 1;

pub struct Names {
    partitions: Vec<PartitionId>,
    entries: Vec<EntryId>,
    /// The epoch of the namespace, and the number that all of these are under.
    namespace: (PartitionId, u64),
    /// The epochs of users.
    users: Vec<PartitionId>,
}

pub fn partition(number: usize) -> PartitionKey {
    PartitionKey::session(format!("p{number}")).expect("a valid id")
}

/// The same for all worlds.
pub fn names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| {
        // The same in each process: what is done to all partitions is done in the order of their names.
        tower_token_cache::seed_randomness(Some(0));
        let names = runtime().block_on(learn());
        tower_token_cache::seed_randomness(None);
        names
    })
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

/// What partitions are called under another number, learnt beside the world that asks.
pub fn partitions_under(number: u64) -> Vec<PartitionId> {
    let learns = async move {
        let store = MemoryStore::new();
        let begin = store.raise(names().namespace().0, Raise::Begin(number), None);
        begin.await.expect("memory never fails");
        let builder = TokenCache::builder(store).runtime(tokio::runtime::Handle::current());
        let cache = builder.build().expect("valid");
        let mut ids = Vec::new();
        for number in 0..PARTITIONS {
            let id = cache.partition_id(&partition(number)).await;
            ids.push(id.expect("memory never fails"));
        }
        ids
    };
    let thread = std::thread::spawn(|| runtime().block_on(learns));
    thread.join().expect("no panic")
}

impl Names {
    pub fn partitions(&self) -> &[PartitionId] {
        &self.partitions
    }

    pub fn user(&self, number: usize) -> &PartitionId {
        &self.users[number]
    }

    pub fn namespace(&self) -> (&PartitionId, u64) {
        (&self.namespace.0, self.namespace.1)
    }

    pub fn entry(&self, id: &EntryId) -> Option<usize> {
        self.entries.iter().position(|known| known == id)
    }
}

async fn learn() -> Names {
    let watched = Watched::default();
    let clock = Clock::manual(Timestamp::from_millis(1));
    let builder = TokenCache::builder(watched.clone()).clock(clock);
    let builder = builder.runtime(tokio::runtime::Handle::current());
    let cache = builder.build().expect("valid");
    let asked = cache.partition_id(&partition(0)).await;
    asked.expect("asks for the number first");
    let namespace = watched.2.lock().expect("whole").take();
    let mut names = Names {
        namespace: namespace.expect("begun"),
        partitions: Vec::new(),
        entries: Vec::new(),
        users: Vec::new(),
    };
    for number in 0..PARTITIONS {
        let tokens = cache.tokens(partition(number));
        for key in KEYS {
            tokens.insert(key, Token::new("t")).await.expect("kept");
            assert_eq!(
                tokens.commit().await.expect("stored"),
                tower_token_cache::Durability::Stored
            );
            note(&mut names.entries, &watched.take());
        }
        let set = TokenSet::from(Token::new("t")).with_refresh_token("r");
        tokens.insert(KEYS[0], set).await.expect("kept");
        assert_eq!(
            tokens.commit().await.expect("stored"),
            tower_token_cache::Durability::Stored
        );
        let commit = watched.take();
        note(&mut names.entries, &commit);
        names.partitions.push(commit.partition);
    }
    for number in 0..USERS {
        let ended = cache.sign_out_user(&user(number)).await;
        assert_eq!(ended.expect("told"), tower_token_cache::Durability::Stored);
        let raised = watched.2.lock().expect("whole").take();
        names.users.push(raised.expect("raised").0);
    }
    names
}

fn note(known: &mut Vec<EntryId>, commit: &Commit) {
    for change in &commit.changes {
        if !known.contains(&change.entry) {
            known.push(change.entry);
        }
    }
}

/// Remembers the last commit, and what was raised last.
#[derive(Clone, Default)]
struct Watched(
    MemoryStore,
    Arc<Mutex<Option<Commit>>>,
    Arc<Mutex<Option<(PartitionId, u64)>>>,
);

impl Watched {
    fn take(&self) -> Commit {
        let commit = self.1.lock().expect("whole").take();
        commit.expect("committed")
    }
}

impl TokenStore for Watched {
    common::passes_on!(load, touch, clear, relocate, leases);

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        *self.1.lock().expect("whole") = group.last().cloned();
        self.0.commit(group).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let number = self.0.raise(partition, raise, keep).await?;
        *self.2.lock().expect("whole") = Some((partition.clone(), number));
        Ok(number)
    }
}

/// What the store in memory answers, which never waits.
pub fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer
        .now_or_never()
        .expect("a store in memory never waits")
}
