//! What an acquire function's error means to the cache.

use std::error::Error as StdError;

use crate::acquire::{AcquireError, AcquireErrorKind, Cause, Meaning, ProviderError};
use crate::error::StoreError;
use crate::time::Timestamp;

/// What this error means: the first error in its chain of sources that is understood decides. Others are
/// failures that may pass.
pub(crate) fn classify(error: &(dyn StdError + 'static), now: Timestamp) -> Meaning {
    let mut chain = std::iter::successors(Some(error), |&error| error.source());
    let known = chain.find_map(|error| meaning_of(error, now));
    known.unwrap_or(Meaning::of(AcquireErrorKind::Failed))
}

fn meaning_of(error: &(dyn StdError + 'static), now: Timestamp) -> Option<Meaning> {
    if let Some(error) = error.downcast_ref::<ProviderError>() {
        return Some(error.meaning());
    }
    if let Some(cause) = error.downcast_ref::<Cause>() {
        return Some(cause.meaning);
    }
    if let Some(error) = error.downcast_ref::<AcquireError>() {
        return Some(Meaning {
            retry_after: error.retry_at().map(|at| at.since(now)),
            ..Meaning::of(error.kind())
        });
    }
    if error.is::<StoreError>() {
        return Some(Meaning::of(AcquireErrorKind::RetryLater));
    }
    #[cfg(feature = "oauth2")]
    return crate::oauth2::meaning_of(error);
    #[cfg(not(feature = "oauth2"))]
    None
}
