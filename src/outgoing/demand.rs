//! A source that is asked for scopes which an API demands.

use std::error::Error as StdError;
use std::iter::successors;
use std::sync::Arc;

use crate::acquire::{Acquire, AcquireFuture, BoxError, Prior, ProviderError};

/// A provider that does not give the scopes (`invalid_scope`, RFC 6749 §6) has not been allowed to by the user.
pub(super) struct Demanded(pub(super) Arc<dyn Acquire>);

impl Acquire for Demanded {
    fn acquire(&self, prior: Prior) -> AcquireFuture {
        let answer = self.0.acquire(prior);
        Box::pin(async { answer.await.map_err(consent_required) })
    }
}

fn consent_required(error: BoxError) -> BoxError {
    let first: &(dyn StdError + 'static) = &*error;
    let mut chain = successors(Some(first), |&error| error.source());
    let refused = chain.find_map(|error| error.downcast_ref::<ProviderError>());
    match refused.map(ProviderError::code) {
        Some("invalid_scope") => ProviderError::refused("consent_required").into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_are_not_given_need_the_user() {
        let code = |error: BoxError| {
            let error = consent_required(error).downcast::<ProviderError>();
            error.map(|error| error.code().to_owned()).ok()
        };
        let refused = |code: &str| ProviderError::refused(code);
        assert_eq!(
            code(refused("invalid_scope").into()).as_deref(),
            Some("consent_required")
        );
        let wrapped = anyhow::Error::from(refused("invalid_scope")).context("more");
        assert_eq!(code(wrapped.into()).as_deref(), Some("consent_required"));
        assert_eq!(
            code(refused("invalid_client").into()).as_deref(),
            Some("invalid_client")
        );
        assert_eq!(code("another".into()), None);
    }
}
