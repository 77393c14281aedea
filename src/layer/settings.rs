//! What a layer does with a request.

use std::sync::Arc;

use super::Exchange;
use crate::cache::TokenCache;
use crate::challenge::{BEARER, SESSION};
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
    pub(super) takes_bearer: bool,
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

/// A request that goes on to the inner service.
pub(crate) struct Begun {
    pub(crate) tokens: Tokens,
    /// What ends the request, and what it owes to its cookies. `None` within a layer that has begun the same one.
    pub(crate) owned: Option<(RequestGuard, Exchange)>,
}

/// Why a request does not reach the inner service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// No key, where one is required: 401.
    Missing,
    /// A key that cannot be accepted: 400.
    Invalid,
}

/// The answer to a request that does not reach the inner service.
#[derive(Debug)]
pub(crate) struct Refusal {
    reason: Reason,
    /// What it asks for where it is a 401.
    asks_for: &'static str,
    /// The `Set-Cookie` line, which removes a broken cookie.
    line: Option<String>,
}

impl Settings {
    /// The handle of this request, the guard that ends it, and what it owes to its cookies.
    #[inline]
    pub(crate) fn begin(&self, head: &RequestHead<'_>) -> Result<Begun, Refusal> {
        let extractor = match &self.key {
            Source::Key(key) => key,
            Source::Cookies(store) => {
                if let Some(outer) = self.outer(head, Tokens::is_in_cookies) {
                    return Ok(self.within(outer, head));
                }
                let (exchange, key) = cookie::Exchange::begin(store, &self.cache, head);
                let tokens = self
                    .tokens(Some(key), head)
                    .in_cookies(exchange.pinned(), exchange.limit());
                return Ok(Begun::own(tokens, Exchange(Some(exchange))));
            }
        };
        let key = extractor.extract(head);
        let Some(cookie) = &self.issues else {
            let key = key.or_else(|error| self.without_key(error));
            let key = key.and_then(|key| self.or_refused(key));
            let key = key.map_err(|reason| self.refusal(reason, None))?;
            return Ok(Begun::own(self.tokens(key, head), Exchange::default()));
        };
        let came_with = key.as_ref().ok().and_then(Option::as_ref);
        let is_same = |outer: &Tokens| outer.is_issued(cookie) && outer.came_with(came_with);
        if let Some(outer) = self.outer(head, is_same) {
            // The layer around this one has counted an invalid key, and removes a broken cookie.
            let reason = match key {
                Err(_) if self.invalid_key == InvalidKey::Reject => Some(Reason::Invalid),
                _ if self.missing_key == MissingKey::Reject && outer.is_anonymous() => {
                    Some(Reason::Missing)
                }
                _ => None,
            };
            return match reason {
                Some(reason) => Err(self.refusal(reason, None)),
                None => Ok(self.within(outer, head)),
            };
        }
        let found = cookie.find(head);
        if let (Ok(_), Err(error)) = (&key, &found) {
            self.count_invalid(error);
        }
        let issue = Issue::new(cookie.clone(), found);
        let key = key.or_else(|error| self.without_key(error));
        match key.and_then(|key| self.or_refused(key)) {
            Ok(key) => {
                let tokens = self.tokens(key, head).issuing(issue);
                Ok(Begun::own(tokens, Exchange::default()))
            }
            Err(reason) => Err(self.refusal(reason, issue.of_refusal())),
        }
    }

    #[cold]
    fn refusal(&self, reason: Reason, line: Option<String>) -> Refusal {
        Refusal {
            reason,
            asks_for: match self.takes_bearer {
                true => BEARER,
                false => SESSION,
            },
            line,
        }
    }

    /// The handle that a layer around this one has made, if it is of the same cache and `is_same`.
    fn outer(
        &self,
        head: &RequestHead<'_>,
        is_same: impl FnOnce(&Tokens) -> bool,
    ) -> Option<Tokens> {
        let of_this_cache = |outer: &Tokens| Arc::ptr_eq(outer.engine(), &self.cache.0);
        let found =
            |outer: &Tokens| (of_this_cache(outer) && is_same(outer)).then(|| outer.clone());
        head.extension(found).flatten()
    }

    /// The request goes on with the handle that it has: two of them would begin two sessions, and set the cookie twice.
    #[cold]
    fn within(&self, outer: Tokens, head: &RequestHead<'_>) -> Begun {
        outer.set_failure_policy(self.failure_policy_of(head));
        outer.set_write_mode(self.write_mode_of(head));
        Begun {
            tokens: outer.of_default_client(),
            owned: None,
        }
    }

    /// What a request with an invalid key goes on with.
    #[cold]
    fn without_key(&self, error: KeyError) -> Result<Option<PartitionKey>, Reason> {
        self.count_invalid(&error);
        match self.invalid_key {
            InvalidKey::Anonymous => Ok(None),
            InvalidKey::Reject => Err(Reason::Invalid),
        }
    }

    #[cold]
    fn count_invalid(&self, error: &KeyError) {
        tracing::debug!(%error, "a request has an invalid partition key");
        self.cache.0.counters.invalid_keys.add(1);
    }

    /// The key, unless it is missing and required.
    #[inline]
    fn or_refused(&self, key: Option<PartitionKey>) -> Result<Option<PartitionKey>, Reason> {
        match key.is_none() && self.missing_key == MissingKey::Reject {
            true => Err(Reason::Missing),
            false => Ok(key),
        }
    }

    #[inline]
    fn tokens(&self, key: Option<PartitionKey>, head: &RequestHead<'_>) -> Tokens {
        let policy = self.failure_policy_of(head);
        let tokens = Tokens::new(self.cache.0.clone(), key, policy, self.write_mode_of(head));
        match self.takes_bearer {
            true => tokens.by_bearer(),
            false => tokens,
        }
    }

    #[inline]
    fn failure_policy_of(&self, head: &RequestHead<'_>) -> FailurePolicy {
        chosen(&self.failure_policy_for, head, self.failure_policy)
    }

    #[inline]
    fn write_mode_of(&self, head: &RequestHead<'_>) -> WriteMode {
        chosen(&self.write_mode_for, head, self.write_mode)
    }
}

impl Begun {
    #[inline]
    fn own(tokens: Tokens, exchange: Exchange) -> Self {
        Self {
            tokens: tokens.clone(),
            owned: Some((RequestGuard(tokens), exchange)),
        }
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
    pub(crate) fn status(&self) -> http::StatusCode {
        match self.reason {
            Reason::Missing => http::StatusCode::UNAUTHORIZED,
            Reason::Invalid => http::StatusCode::BAD_REQUEST,
        }
    }

    /// The value of its `WWW-Authenticate`.
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        (self.reason == Reason::Missing).then_some(self.asks_for)
    }

    /// The values of its `Set-Cookie` lines.
    pub(crate) fn into_lines(self) -> Vec<String> {
        Vec::from_iter(self.line)
    }
}
