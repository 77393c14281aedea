//! What a layer does with a request.

use std::sync::Arc;

use super::Exchange;
use crate::cache::TokenCache;
use crate::cookie::{self, CookieStore};
use crate::key::{KeyError, KeyExtractor, PartitionKey, RequestHead};
use crate::policy::{FailurePolicy, InvalidKey, MissingKey, WriteMode};
use crate::session::{self, Issue};
use crate::tokens::{RequestGuard, Tokens};

/// Chooses something by the head of a request; `None` keeps the default.
pub(super) type Choice<T> = Arc<dyn Fn(&RequestHead<'_>) -> Option<T> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) cache: TokenCache,
    pub(super) key: Source,
    /// The cookie that new sessions are given.
    pub(super) issues: Option<session::Cookie>,
    pub(super) missing_key: MissingKey,
    pub(super) invalid_key: InvalidKey,
    pub(super) failure_policy: FailurePolicy,
    pub(super) failure_policy_for: Option<Choice<FailurePolicy>>,
    pub(super) write_mode: WriteMode,
    pub(super) write_mode_for: Option<Choice<WriteMode>>,
}

/// Where the partition of a request comes from.
#[derive(Clone)]
pub(crate) enum Source {
    Key(Arc<dyn KeyExtractor>),
    /// The request brings it along.
    Cookies(CookieStore),
}

impl From<CookieStore> for Source {
    fn from(store: CookieStore) -> Self {
        Self::Cookies(store)
    }
}

/// Why a request does not reach the inner service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No key, where one is required: 401.
    Missing,
    /// A key that cannot be accepted: 400.
    Invalid,
}

impl Settings {
    /// The handle of this request, the guard that ends it, and what it owes to its cookies.
    #[inline]
    pub(crate) fn begin(
        &self,
        head: &RequestHead<'_>,
    ) -> Result<(RequestGuard, Exchange), Refusal> {
        let extractor = match &self.key {
            Source::Key(key) => key,
            Source::Cookies(store) => {
                let (exchange, key) = cookie::Exchange::begin(store, &self.cache, head);
                let tokens = self
                    .tokens(Some(key), head)
                    .in_cookies(exchange.pinned(), exchange.limit());
                return Ok((RequestGuard(tokens), Exchange(Some(exchange))));
            }
        };
        let key = match extractor.extract(head) {
            Ok(key) => key,
            Err(error) => self.without_key(error)?,
        };
        if key.is_none() && self.missing_key == MissingKey::Reject {
            return Err(Refusal::Missing);
        }
        let mut tokens = self.tokens(key, head);
        if let Some(cookie) = &self.issues {
            tokens = tokens.issuing(Issue::new(cookie.clone(), cookie.find(head)));
        }
        Ok((RequestGuard(tokens), Exchange::default()))
    }

    /// What a request with an invalid key goes on with.
    #[cold]
    fn without_key(&self, error: KeyError) -> Result<Option<PartitionKey>, Refusal> {
        tracing::debug!(%error, "a request has an invalid partition key");
        self.cache.0.counters.invalid_keys.add(1);
        match self.invalid_key {
            InvalidKey::Anonymous => Ok(None),
            InvalidKey::Reject => Err(Refusal::Invalid),
        }
    }

    #[inline]
    fn tokens(&self, key: Option<PartitionKey>, head: &RequestHead<'_>) -> Tokens {
        let policy = chosen(&self.failure_policy_for, head, self.failure_policy);
        let mode = chosen(&self.write_mode_for, head, self.write_mode);
        Tokens::new(self.cache.0.clone(), key, policy, mode)
    }
}

/// What is chosen for this request, or else the default.
#[inline]
fn chosen<T>(choice: &Option<Choice<T>>, head: &RequestHead<'_>, default: T) -> T {
    match choice {
        Some(choose) => choose(head).unwrap_or(default),
        None => default,
    }
}

impl Refusal {
    pub(crate) fn status(self) -> http::StatusCode {
        match self {
            Self::Missing => http::StatusCode::UNAUTHORIZED,
            Self::Invalid => http::StatusCode::BAD_REQUEST,
        }
    }
}
