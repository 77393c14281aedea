//! The number of a namespace, where the new store has begun one of its own.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::fence::is_fence;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::names::Names;
use crate::store::{PartitionId, Revision};

const TWO_NUMBERS: &str = "both stores have a number of the namespace: the new one was used alone before, and all users of \
    the old one would be signed out. Empty the new store of the namespace; or an instance has run on the old store alone \
    since its number has moved: end it, and empty the old store of that number";

/// Whether this is the record of a namespace's number.
pub(super) fn is_number(id: &PartitionId) -> bool {
    *id == Names::namespace_epoch(id.namespace())
}

/// The numbers of which the stores were of one mind once, and whether the log says that they no longer are.
#[derive(Default)]
pub(super) struct Agreed(Mutex<HashMap<[u8; 32], bool>>);

impl Agreed {
    /// Whether the number of the new store counts. One that has moved, or was begun behind a fence, is the only one: the
    /// old store has the fence, or nothing.
    ///
    /// An instance that has seen the stores agree goes on: one that runs on the old store alone must not stop the others.
    pub(super) fn check(
        &self,
        id: &PartitionId,
        in_old: &Revision,
        in_new: &Revision,
    ) -> Result<(), StoreError> {
        let agree = *in_old == Revision::default()
            || is_fence(id, in_old.commit)
            || in_old.generation == in_new.generation;
        let mut agreed = self.0.lock();
        if agree {
            agreed.insert(*id.digest(), false);
            return Ok(());
        }
        let refused = || StoreError::with_source(StoreErrorKind::Refused, TWO_NUMBERS);
        let told = agreed.get_mut(id.digest()).ok_or_else(refused)?;
        if !std::mem::replace(told, true) {
            tracing::warn!("{TWO_NUMBERS}");
        }
        Ok(())
    }
}
