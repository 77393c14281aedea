//! What an acquire function's error means to the cache.

use std::error::Error as StdError;
use std::time::Duration;

use super::{AcquireErrorKind, ProviderError};

/// What can be done about this error, and for how long the provider asked to be left alone.
///
/// The first error in the chain of sources that is understood decides. Others are failures that
/// may pass.
pub(crate) fn classify(error: &(dyn StdError + 'static)) -> (AcquireErrorKind, Option<Duration>) {
    if let Some(known) = ProviderError::find(error) {
        return (known.kind(), known.retry_after());
    }
    #[cfg(feature = "oauth2")]
    if let Some(kind) = crate::oauth2::kind_of(error) {
        return (kind, None);
    }
    (AcquireErrorKind::Failed, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct Own(Box<dyn StdError>);
    impl fmt::Display for Own {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("own")
        }
    }
    impl StdError for Own {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn a_provider_error_is_found_behind_the_callers_own() {
        let pause = Duration::from_secs(7);
        let refused = ProviderError::refused("invalid_grant");
        let busy = ProviderError::status(http::StatusCode::TOO_MANY_REQUESTS);
        let wrap = |error: ProviderError| Own(Box::new(Own(Box::new(error))));
        let (kind, after) = classify(&wrap(refused));
        assert_eq!(kind, AcquireErrorKind::ReauthenticationRequired);
        assert_eq!(after, None);
        let (kind, after) = classify(&wrap(busy.with_retry_after(pause)));
        assert_eq!((kind, after), (AcquireErrorKind::RetryLater, Some(pause)));
        let (kind, _) = classify(&Own(Box::new(fmt::Error)));
        assert_eq!(kind, AcquireErrorKind::Failed);
    }
}
