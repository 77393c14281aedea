//! The failure of an operation on L2, after its last attempt.

use crate::error::{StoreError, StoreErrorKind};
use crate::policy::OnFailure;

/// The store's error after the last attempt, and what the hook decided.
#[derive(Clone, Debug)]
pub(crate) struct L2Error {
    pub(crate) error: StoreError,
    pub(crate) decision: OnFailure,
}

impl L2Error {
    /// A failure that was not shown to the hook.
    pub(crate) fn of(kind: StoreErrorKind) -> Self {
        StoreError::new(kind).into()
    }

    /// The task that asked the store ended without an answer.
    pub(crate) fn lost() -> Self {
        Self::of(StoreErrorKind::Unreachable)
    }
}

impl From<StoreError> for L2Error {
    fn from(error: StoreError) -> Self {
        let decision = OnFailure::Policy;
        Self { error, decision }
    }
}
