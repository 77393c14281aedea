//! The engine under an L2 that hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use crate::cache::{Timeouts, TokenCache};
use crate::engine::journal::record::Record;
use crate::error::{Error, StoreError};
use crate::key::PartitionKey;
use crate::policy::{FailurePolicy, WriteMode};
use crate::store::{
    Cleared, Commit, CommitId, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId, Raise,
    Remaining, TokenStore,
};
use crate::time::Timestamp;
use crate::token::Token;
use crate::tokens::Tokens;

/// Answers loads with nothing; every write hangs.
struct Hanging;

impl TokenStore for Hanging {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        let absent = group.iter().map(|_| Ok(Loaded::default()));
        absent.collect()
    }

    async fn commit(&self, _: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        std::future::pending().await
    }

    async fn touch(&self, _: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        std::future::pending().await
    }

    async fn clear(
        &self,
        _: &PartitionId,
        _: Option<u64>,
        _: CommitId,
    ) -> Result<Cleared, StoreError> {
        std::future::pending().await
    }

    async fn raise(
        &self,
        _: &PartitionId,
        raise: Raise,
        _: Option<Duration>,
    ) -> Result<u64, StoreError> {
        Ok(raise.number())
    }

    async fn relocate(&self, _: &Origin, _: &Commit) -> Result<Outcome, StoreError> {
        std::future::pending().await
    }

    async fn acquire_lease(&self, _: &Lease, _: Duration) -> Result<LeaseState, StoreError> {
        std::future::pending().await
    }

    async fn renew_lease(&self, _: &Lease, _: Duration) -> Result<bool, StoreError> {
        std::future::pending().await
    }

    async fn release_lease(&self, _: &Lease) -> Result<bool, StoreError> {
        std::future::pending().await
    }
}

/// The handle of a running request.
fn request(cache: &TokenCache, number: usize) -> Tokens {
    let key = PartitionKey::user(number.to_string()).expect("a key");
    let (policy, mode) = (FailurePolicy::Degrade, WriteMode::AfterResponse);
    Tokens::new(cache.0.clone(), Some(key), policy, mode)
}

#[tokio::test(start_paused = true)]
async fn a_change_that_finds_no_room_costs_the_same_however_many_wait() {
    const ROOM: usize = 2000;
    const MORE: usize = 200;
    let cache = TokenCache::builder(Hanging)
        .max_pending_changes(ROOM as u32)
        .timeouts(Timeouts::new().attempt(Duration::from_secs(1)))
        .build()
        .expect("valid settings");
    let all: Vec<_> = (0..ROOM + MORE).map(|it| request(&cache, it)).collect();
    let change = |tokens: &Tokens| {
        let tokens = tokens.clone();
        async move { tokens.insert("graph", Token::new("t")).await }
    };
    for tokens in &all[..ROOM] {
        change(tokens).await.expect("there is room");
    }
    let before = cache.0.queue.pushes.load(Ordering::Relaxed);
    let late = join_all(all[ROOM..].iter().map(change)).await;
    assert!(late.iter().all(|it| matches!(it, Err(Error::Overloaded))));
    let pushes = cache.0.queue.pushes.load(Ordering::Relaxed) - before;
    assert!((ROOM..=2 * ROOM).contains(&pushes), "{pushes}");
}

/// An error under any failure policy: the sign-out would be lost with this process.
#[tokio::test]
async fn a_sign_out_that_the_journal_cannot_take_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = TokenCache::builder(Hanging)
        .timeouts(
            Timeouts::new()
                .operation(Duration::from_millis(20))
                .attempt(Duration::from_millis(20)),
        )
        .journal(folder.path().join("journal"))
        .build()
        .expect("valid settings");
    let journal = cache.0.journal.as_ref().expect("there is one");
    let other = Record::new([7; 32], None, CommitId([7; 8]), Timestamp::now());
    let full = journal
        .add(vec![other; crate::engine::journal::disk::MAX_RECORDS])
        .await;
    assert!(full.is_ok());
    let refused = request(&cache, 1).sign_out().await;
    let Err(Error::Unavailable(error)) = refused else {
        panic!("{refused:?}");
    };
    let reason = std::error::Error::source(&error).expect("it says why");
    assert_eq!(reason.to_string(), "it is full");
    assert_eq!(cache.stats().pending_sign_outs, 1);
    let report = cache.shutdown(Duration::ZERO).await;
    assert_eq!(
        (report.sign_outs_abandoned, report.sign_outs_journaled),
        (1, 0)
    );
}

/// A flight that begins while the cache shuts down is waited for, or does not begin.
#[tokio::test]
async fn nothing_is_acquired_after_the_shutdown_has_seen_no_flight() {
    let cache = TokenCache::builder(Hanging)
        .build()
        .expect("valid settings");
    let cache = Arc::new(cache);
    cache.shutdown(Duration::ZERO).await;
    let acquired = request(&cache, 1)
        .get_or_acquire("graph", async |_| {
            Ok::<_, std::io::Error>(Token::new("t").into())
        })
        .await;
    assert!(matches!(acquired, Err(Error::ShutDown)), "{acquired:?}");
}
