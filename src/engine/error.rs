//! An operation on L2 that failed for good.

use crate::error::{StoreError, StoreErrorKind};
use crate::policy::OnFailure;

/// An operation that failed for good, and what the hook wants done about it.
#[derive(Clone, Debug)]
pub(crate) struct L2Error {
    pub(crate) error: StoreError,
    pub(crate) decision: OnFailure,
}

impl L2Error {
    /// A failure that the hook has not seen.
    pub(crate) fn of(kind: StoreErrorKind) -> Self {
        StoreError::new(kind).into()
    }

    /// The task that was to ask the store has ended without an answer.
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
