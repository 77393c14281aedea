//! `Mover`: moves the partitions that no request comes for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, Stream};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use super::split::{Place, first};
use super::stores::{Stores, is_absent};
use crate::error::{StoreError, StoreErrorKind};
use crate::random;
use crate::store::{Change, Commit, CommitId, EntryId, Listed, Movable, Outcome, PartitionId, Put};
use crate::time::Timestamp;

/// How long it is remembered where a mover was.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// The entry that says where.
const POSITION: [u8; 16] = [0; 16];
/// Partitions that are moved at a time.
const AT_A_TIME: usize = 16;

/// Moves all partitions of a namespace from the old store to the new one, in passes over the list of the old
/// store, until a pass has found nothing to move. Made by
/// [`MigratingStore::mover`](super::MigratingStore::mover).
///
/// Where it is stands in the new store: another mover of the namespace goes on from there, after a crash or on another
/// machine. Any number may run at once.
#[must_use = "it moves while its stream is polled"]
pub struct Mover<O, N> {
    stores: Arc<Stores<O, N>>,
    namespace: String,
    per_second: u32,
}

/// How far a [`Mover`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Partitions that were looked at since this mover began, those that had moved before included.
    pub seen: u64,
    /// Partitions that it has moved, tombstones and numbers of sign-outs included.
    pub moved: u64,
    /// The passes that it has finished.
    pub passes: u32,
    /// The last pass went over the whole list, and found nothing to move.
    pub done: bool,
}

impl<O: Movable + Listed, N: Movable> Mover<O, N> {
    pub(super) fn new(stores: Arc<Stores<O, N>>, namespace: String) -> Self {
        Self {
            stores,
            namespace,
            per_second: 500,
        }
    }

    /// How many partitions it moves in a second, at most; at least 1. Defaults to 500: some 3,000 round-trips, a
    /// fraction of what a Redis does.
    pub fn per_second(mut self, partitions: u32) -> Self {
        self.per_second = partitions.max(1);
        self
    }

    /// Moves while it is polled, and tells how far it is after each page of the list, some hundred partitions. It ends
    /// once it is [done](Progress::done), and after an error; run another one then. Dropped anywhere, it leaves each
    /// partition in one of the two stores.
    ///
    /// What the new store has no room for ([`TooLarge`](StoreErrorKind::TooLarge)) stays in the old one, and all others
    /// move before that is the error.
    pub fn run(self) -> impl Stream<Item = Result<Progress, StoreError>> + Send {
        let run = Run {
            mover: self,
            progress: Progress::default(),
            pass: None,
            over: false,
        };
        stream::unfold(run, async |mut run| {
            if run.over {
                return None;
            }
            let progress = run.page().await;
            run.over = progress.as_ref().map_or(true, |progress| progress.done);
            Some((progress, run))
        })
    }
}

struct Run<O, N> {
    mover: Mover<O, N>,
    progress: Progress,
    pass: Option<Pass>,
    over: bool,
}

/// A way through the list.
struct Pass {
    cursor: Option<Vec<u8>>,
    /// It began with the first page, and has found nothing to move so far.
    is_clean: bool,
    /// Why a partition stays in the old store.
    refused: Option<StoreError>,
}

impl Pass {
    fn from(cursor: Option<Vec<u8>>) -> Self {
        Self {
            is_clean: cursor.is_none(),
            cursor,
            refused: None,
        }
    }
}

impl<O: Movable + Listed, N: Movable> Run<O, N> {
    async fn page(&mut self) -> Result<Progress, StoreError> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => Pass::from(self.remembered().await?),
        };
        let (stores, namespace) = (&self.mover.stores, &self.mover.namespace);
        let mut page = match stores.old.list(namespace, pass.cursor.as_deref()).await {
            // A cursor of another store, or of a server that was started anew.
            Err(error) if error.kind() == StoreErrorKind::Refused && pass.cursor.is_some() => {
                pass = Pass::from(None);
                stores.old.list(namespace, None).await?
            }
            listed => listed?,
        };
        // Where a mover to the old store was, when that was a new one.
        let own = position(namespace);
        page.partitions.retain(|id| *id != own);
        let looks = stores.look(&page.partitions).await;
        let mut waiting = Vec::new();
        for (id, look) in page.partitions.iter().zip(looks) {
            let look = look?;
            // What has ended since it was listed is left alone.
            if look.place == Place::Old && !is_absent(&look.revision) {
                waiting.push(id);
            }
        }
        self.progress.seen += page.partitions.len() as u64;
        for some in waiting.chunks(AT_A_TIME) {
            let next =
                Instant::now() + Duration::from_secs(some.len() as u64) / self.mover.per_second;
            for moved in join_all(some.iter().map(|id| stores.bring(id))).await {
                let moved = match moved {
                    Ok(moved) => moved,
                    // It holds up none of the others.
                    Err(error) if error.kind() == StoreErrorKind::TooLarge => {
                        pass.refused.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                self.progress.moved += u64::from(moved);
                pass.is_clean &= !moved;
            }
            sleep_until(next).await;
        }
        self.remember(page.next.as_deref()).await?;
        if page.next.is_some() {
            pass.cursor = page.next;
            self.pass = Some(pass);
            return Ok(self.progress);
        }
        self.progress.passes += 1;
        if let Some(refused) = pass.refused {
            return Err(refused);
        }
        self.progress.done = pass.is_clean;
        self.pass = Some(Pass::from(None));
        Ok(self.progress)
    }

    async fn remembered(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let position = position(&self.mover.namespace);
        let loaded = self.mover.stores.new.load(&[position]).await;
        let entries = first(loaded)?.entries;
        let cursor = entries.iter().find(|it| it.entry.as_bytes() == &POSITION);
        let cursor = cursor.map(|it| it.value.to_vec());
        Ok(cursor.filter(|cursor| !cursor.is_empty()))
    }

    /// Nothing is the beginning.
    async fn remember(&self, cursor: Option<&[u8]>) -> Result<(), StoreError> {
        let refused = |error| StoreError::with_source(StoreErrorKind::Refused, error);
        let id = CommitId(random::number().map_err(refused)?.to_be_bytes());
        let mut commit = Commit::new(position(&self.mover.namespace), id, 0);
        let put = Put::new(cursor.unwrap_or_default().to_vec(), None::<Timestamp>);
        commit.changes = vec![Change::new(EntryId::from(POSITION), Some(put))];
        commit.lifetime.since_write = Some(REMEMBERED);
        match first(self.mover.stores.new.commit(&[commit]).await)? {
            Outcome::Committed { .. } => Ok(()),
            _ => Err(StoreError::new(StoreErrorKind::Refused)),
        }
    }
}

/// Where the new store says how far the mover of a namespace is.
fn position(namespace: &str) -> PartitionId {
    let digest = Sha256::new()
        .chain_update(b"tower-token-cache mover v1\0")
        .chain_update(namespace)
        .finalize();
    PartitionId::from_digest(namespace, digest.into())
}

impl<O, N> fmt::Debug for Mover<O, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mover")
            .field("namespace", &self.namespace)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}
