//! Who takes turns: a store of ours, and what it is built on.

use std::collections::HashMap;
use std::time::Duration;

use peers::users::{USERS, session_id};
use tower_token_cache::store::{
    Change, Commit, CommitId, EntryId, Lifetime, Outcome, PartitionId, Put,
};
use tower_token_cache::{Timestamp, TokenStore};

/// Bytes of the entries of a user.
pub const VALUES: [usize; 3] = [4096, 2048, 2048];
pub const PAYLOAD: usize = VALUES[0] + VALUES[1] + VALUES[2];
/// As the engine's default.
pub const SLIDING: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a store waits for an answer: also on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Users whose tokens are stored at once where that is not what is measured.
const GROUP: usize = 100;

static TEXT: [u8; 4096] = [b'x'; 4096];

/// The value of an entry.
pub fn value(entry: usize) -> &'static [u8] {
    &TEXT[..VALUES[entry]]
}

pub fn entry(entry: usize) -> EntryId {
    EntryId::from([entry as u8 + 1; 16])
}

/// When an entry expires, in milliseconds since the Unix epoch.
pub fn expiry(entry: usize) -> Option<u64> {
    let hour = Duration::from_secs(3600);
    (entry == 0).then(|| Timestamp::now().saturating_add(hour).as_millis())
}

pub trait Side {
    /// Reads what these users have.
    async fn load(&mut self, users: &[usize]);

    /// Replaces all that these users have.
    async fn commit(&mut self, users: &[usize]);
}

/// A store of ours.
pub struct Ours<S> {
    store: S,
    pub ids: Vec<PartitionId>,
    /// By user.
    pub versions: Vec<u64>,
    commits: u64,
}

impl<S: TokenStore> Ours<S> {
    /// With all users, who have signed in.
    pub async fn filled(store: S, namespace: &str) -> Self {
        let id = |user| PartitionId::for_tests(namespace, &session_id(user));
        let mut ours = Self {
            store,
            ids: (0..USERS).map(id).collect(),
            versions: vec![0; USERS],
            commits: 0,
        };
        ours.change_all().await;
        ours
    }

    /// Replaces what all users have.
    pub async fn change_all(&mut self) {
        let users: Vec<_> = (0..USERS).collect();
        for some in users.chunks(GROUP) {
            self.commit(some).await;
        }
    }

    fn commit_of(&mut self, user: usize) -> Commit {
        self.commits += 1;
        let id = CommitId(self.commits.to_be_bytes());
        let mut commit = Commit::new(self.ids[user].clone(), id, 0);
        commit.base = self.versions[user];
        commit.lifetime = Lifetime::default();
        commit.lifetime.sliding = Some(SLIDING);
        let put = |at| Put::new(value(at), expiry(at).map(Timestamp::from_millis));
        let changes = (0..VALUES.len()).map(|at| Change::new(entry(at), Some(put(at))));
        commit.changes = changes.collect();
        commit
    }
}

impl<S: TokenStore> Side for Ours<S> {
    async fn load(&mut self, users: &[usize]) {
        let group: Vec<_> = users.iter().map(|user| self.ids[*user].clone()).collect();
        for loaded in self.store.load(&group).await {
            assert_eq!(loaded.expect("it answers").entries.len(), VALUES.len());
        }
    }

    async fn commit(&mut self, users: &[usize]) {
        let group: Vec<_> = users.iter().map(|user| self.commit_of(*user)).collect();
        for (user, outcome) in users.iter().zip(self.store.commit(&group).await) {
            let Ok(Outcome::Committed { version, .. }) = outcome else {
                panic!("{outcome:?}");
            };
            self.versions[*user] = version;
        }
    }
}

/// Numbers of the users by their digests.
pub fn by_digest(ids: &[PartitionId]) -> HashMap<Vec<u8>, usize> {
    let digests = ids.iter().map(|id| id.digest().to_vec());
    digests.zip(0..).collect()
}
