//! Moves over stores that have no move of their own, that answer late, and whose answers are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::store::Least;
use common::support::*;
use tower_token_cache::store::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision,
};
use tower_token_cache::{MemoryStore, StoreError, StoreErrorKind, TokenSet, TokenStore};

/// Answers late, can lose the answer of the n-th call; has no move of its own.
#[derive(Clone)]
pub struct Slow {
    inner: MemoryStore,
    latency: Duration,
    /// It moves in one step.
    moves: bool,
    /// Calls until the one whose answer is lost; negative: none.
    lose: Arc<AtomicI64>,
}

impl Slow {
    pub fn new(latency: Duration) -> Self {
        Self {
            inner: MemoryStore::new(),
            latency,
            moves: false,
            lose: Arc::new(AtomicI64::new(-1)),
        }
    }

    pub fn lose(&self, n: i64) {
        self.lose.store(n, Ordering::SeqCst);
    }

    async fn answer<T>(&self, call: impl Future<Output = T>) -> Result<T, StoreError> {
        tokio::time::sleep(self.latency / 2).await;
        let answer = call.await;
        tokio::time::sleep(self.latency / 2).await;
        match self.lose.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(StoreError::new(StoreErrorKind::Timeout)),
            _ => Ok(answer),
        }
    }
}

fn all<T>(
    answers: Result<Vec<Result<T, StoreError>>, StoreError>,
    count: usize,
) -> Vec<Result<T, StoreError>> {
    answers.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
}

impl TokenStore for Slow {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        all(self.answer(self.inner.load(group)).await, group.len())
    }
    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        all(self.answer(self.inner.revisions(group)).await, group.len())
    }
    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        all(self.answer(self.inner.commit(group)).await, group.len())
    }
    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        all(self.answer(self.inner.touch(group)).await, group.len())
    }
    async fn clear(
        &self,
        p: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        self.answer(self.inner.clear(p, expected, id)).await?
    }
    async fn raise(
        &self,
        p: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        self.answer(self.inner.raise(p, raise, keep)).await?
    }
    fn feed(&self, namespace: &str) -> Option<Feed> {
        self.inner.feed(namespace)
    }
    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        match self.moves {
            true => self.answer(self.inner.relocate(from, commit)).await?,
            // What the trait does by default.
            false => Least(self.clone()).relocate(from, commit).await,
        }
    }
    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        self.answer(self.inner.acquire_lease(lease, ttl)).await?
    }
    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.answer(self.inner.renew_lease(lease, ttl)).await?
    }
    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.answer(self.inner.release_lease(lease)).await?
    }
}

async fn signed_in(store: &Slow, clients: usize) -> tower_token_cache::TokenCache {
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    for client in 0..clients {
        let tokens = tokens.client(format!("c{client}")).unwrap();
        let set = TokenSet::from(token("t")).with_refresh_token(format!("r{client}"));
        tokens.insert("api", set).await.unwrap();
    }
    assert_stored(tokens.commit().await.unwrap());
    cache
}

/// Who finds what: the refresh tokens of two clients in the old session, and in the new one.
async fn found(store: &Slow) -> [bool; 4] {
    let fresh = builder(store.clone()).build().unwrap();
    let mut found = Vec::new();
    for sid in ["s", "new"] {
        for client in ["c0", "c1"] {
            let tokens = fresh.tokens(session(sid)).client(client).unwrap();
            found.push(tokens.refresh_token().await.unwrap().is_hit());
        }
    }
    found.try_into().unwrap()
}

/// Two instances move one session by the default, to two ids, while a third signs it out: it lives on under one
/// id at most, and a move that has succeeded has its tokens unless that was signed out first.
#[tokio::test(start_paused = true)]
async fn a_session_lives_on_under_one_id_however_many_move_it_by_the_default() {
    for late in 0..30_u64 {
        let store = Slow::new(Duration::from_millis(4));
        let one = signed_in(&store, 2).await;
        let two = cache(store.clone());
        let three = cache(store.clone());
        let (a, b, c) = (
            one.tokens(session("s")),
            two.tokens(session("s")),
            three.tokens(session("s")),
        );
        // All three have seen the session that is moved.
        for tokens in [&a, &b, &c] {
            let _ = tokens.refresh_token().await;
        }
        let (a, b, out) = tokio::join!(
            a.move_to(session("a")),
            async {
                tokio::time::sleep(Duration::from_millis(late)).await;
                b.move_to(session("b")).await
            },
            async {
                tokio::time::sleep(Duration::from_millis(late * 3 / 2)).await;
                match late % 3 {
                    0 => Some(c.sign_out().await),
                    _ => None,
                }
            }
        );
        let fresh = cache(store.clone());
        let mut found = Vec::new();
        for sid in ["s", "a", "b"] {
            let tokens = fresh.tokens(session(sid)).client("c1").unwrap();
            found.push(tokens.refresh_token().await.unwrap().is_hit());
        }
        let said = [false, a.is_ok(), b.is_ok()];
        assert!(
            found.iter().filter(|it| **it).count() <= 1,
            "{late}: {found:?}"
        );
        assert!(!found[0], "{late}: {found:?} {out:?}");
        // Whoever was told that it is done has it, and nobody else.
        if out.is_none() {
            assert_eq!(found, said, "{late}: {:?} {:?}", a.err(), b.err());
        }
    }
}

/// Answers fewer or more than it was asked.
struct Miscounts(MemoryStore, i64);

impl Miscounts {
    fn bend<T>(&self, mut answers: Vec<T>) -> Vec<T> {
        match self.1 {
            0 => answers.clear(),
            _ => answers.truncate(answers.len().saturating_sub(1)),
        }
        answers
    }
}

impl TokenStore for Miscounts {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        self.bend(self.0.load(group).await)
    }
    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        self.bend(self.0.revisions(group).await)
    }
    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        self.bend(self.0.commit(group).await)
    }
    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        self.bend(self.0.touch(group).await)
    }
    common::passes_on!(clear, raise, leases);
}

#[tokio::test]
async fn a_store_that_miscounts_is_one_that_fails() {
    for bend in [0, 1] {
        let cache = cache(Miscounts(MemoryStore::new(), bend));
        let all = async {
            let mut reads = Vec::new();
            for n in 0..20 {
                let cache = cache.clone();
                reads.push(tokio::spawn(async move {
                    cache.tokens(session(&format!("s{n}"))).get("x").await
                }));
            }
            for read in reads {
                let read = read.await.unwrap().unwrap();
                assert!(!read.is_hit(), "{read:?}");
            }
            let tokens = cache.tokens(session("s"));
            tokens.insert("x", token("t")).await.unwrap();
            let _ = tokens.commit().await.unwrap();
            let _ = tokens.sign_out().await;
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(10), all)
                .await
                .is_ok()
        );
    }
}

/// `Timeouts::attempt`: "How long one attempt at an L2 operation may take … 250 ms"; `TokenStore::relocate`: the
/// default, in four round-trips. No call fails here, and each takes a third of an attempt.
#[tokio::test(start_paused = true)]
async fn a_session_is_moved_by_the_default_relocate_over_a_store_of_which_each_call_is_in_time() {
    let store = Slow::new(Duration::from_millis(80));
    let cache = signed_in(&store, 2).await;
    let moved = cache.tokens(session("s")).move_to(session("new")).await;
    let found = found(&store).await;
    let error = moved.err();
    assert_eq!(found, [false, false, true, true], "{error:?}");
    assert!(error.is_none(), "{error:?}");
}

/// `TokenStore::relocate`: "A failure in between ends the old session, and the move can be repeated until it is
/// done."
#[tokio::test(start_paused = true)]
async fn a_move_by_the_default_that_failed_in_between_can_be_repeated_until_it_is_done() {
    let mut lost = Vec::new();
    for call in 0..16 {
        let store = Slow::new(Duration::from_millis(2));
        let cache = signed_in(&store, 2).await;
        store.lose(call);
        let tokens = cache.tokens(session("s"));
        let mut moved = tokens.move_to(session("new")).await;
        store.lose(-1);
        let first = format!("{:?}", moved.as_ref().err());
        for _ in 0..3 {
            if moved.is_err() {
                moved = tokens.move_to(session("new")).await;
            }
        }
        let found = found(&store).await;
        if found != [false, false, true, true] {
            let again = moved.err();
            lost.push(format!(
                "answer {call} is lost: {found:?}; {first}, and when repeated {again:?}"
            ));
        }
    }
    assert!(lost.is_empty(), "\n{}", lost.join("\n"));
}

/// `Tokens::client`: "The partition is one: … `move_to` … concern all clients". A store that moves in one step.
#[tokio::test(start_paused = true)]
async fn a_session_of_many_clients_can_be_moved_while_each_attempt_is_in_time() {
    let mut failed = Vec::new();
    for latency in [20, 50, 100, 150] {
        for clients in [1, 3, 5, 8, 12] {
            let store = Slow {
                moves: true,
                ..Slow::new(Duration::from_millis(latency))
            };
            let cache = signed_in(&store, clients).await;
            let began = tokio::time::Instant::now();
            let moved = cache.tokens(session("s")).move_to(session("new")).await;
            if let Err(error) = moved {
                failed.push(format!(
                    "{clients} clients, {latency} ms: {error:?} after {:?}",
                    began.elapsed()
                ));
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}
