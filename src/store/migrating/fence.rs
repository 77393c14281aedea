//! The fence: what the old store has of a partition that has moved.

use sha2::{Digest, Sha256};

use crate::store::{CommitId, PartitionId, Portable};

/// Each half of the id of a fence: which partition, and which state of it has moved.
const HALF: usize = 4;

/// The tombstone that a partition leaves in the old store, by the id of its sign-out. A sign-out that has such an id by
/// chance is one of four thousand million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence(CommitId);

/// Whether the last commit or sign-out of a partition is a fence.
pub(super) fn is_fence(partition: &PartitionId, commit: Option<CommitId>) -> bool {
    Fence::read(partition, commit).is_some()
}

impl Fence {
    /// The fence of a partition as it was read; the same for all who have read the same.
    pub(super) fn of(partition: &PartitionId, state: &Portable) -> Self {
        let last = state.recent.last().copied().unwrap_or_default();
        let state = Sha256::new()
            .chain_update(b"tower-token-cache moved state v1\0")
            .chain_update(partition.digest())
            .chain_update(state.generation.to_be_bytes())
            .chain_update(state.version.to_be_bytes())
            .chain_update(last.0)
            .finalize();
        let mut id = [0; 8];
        id[..HALF].copy_from_slice(&mark(partition));
        id[HALF..].copy_from_slice(&state[..HALF]);
        Self(CommitId(id))
    }

    pub(super) fn read(partition: &PartitionId, commit: Option<CommitId>) -> Option<Self> {
        let commit = commit.filter(|id| id.0[..HALF] == mark(partition))?;
        Some(Self(commit))
    }

    pub(super) fn id(self) -> CommitId {
        self.0
    }

    /// Where the new store has the copy until the move is done. Each state has a place of its own, so that a copy that
    /// came too late replaces none that counts.
    pub(super) fn aside(self, partition: &PartitionId) -> PartitionId {
        let digest = Sha256::new()
            .chain_update(b"tower-token-cache moved copy v1\0")
            .chain_update(partition.digest())
            .chain_update(self.0.0)
            .finalize();
        PartitionId::from_digest(partition.namespace.clone(), digest.into())
    }
}

fn mark(partition: &PartitionId) -> [u8; HALF] {
    let digest = Sha256::new()
        .chain_update(b"tower-token-cache moved v1\0")
        .chain_update(partition.digest())
        .finalize();
    let mut mark = [0; HALF];
    mark.copy_from_slice(&digest[..HALF]);
    mark
}
