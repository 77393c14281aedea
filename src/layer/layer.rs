//! `TokenCacheLayer`.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::{Exchange, TokenCacheService};
use crate::cache::TokenCache;
#[cfg(feature = "cookie")]
use crate::cookie::CookieStore;
use crate::key::{KeyError, KeyExtractor, PartitionKey, RequestHead};
use crate::policy::{FailurePolicy, MissingKey, WriteMode};
use crate::tokens::{RequestGuard, Tokens};

/// Gives every request of the wrapped service a [`Tokens`] handle; see the [module](super).
///
/// A tower [`Layer`] for axum, tonic and any other tower stack, and with feature `actix` an
/// actix-web middleware (`Transform`) as well.
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_token_cache::{MemoryStore, TokenCache, TokenCacheLayer, Tokens, key};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = TokenCache::builder(MemoryStore::new()).build()?;
/// let service = ServiceBuilder::new()
///     .layer(TokenCacheLayer::new(cache, key::cookie("sid")))
///     .service(service_fn(async |request: http::Request<String>| {
///         let tokens = request.extensions().get::<Tokens>().expect("set by the layer");
///         Ok::<_, std::convert::Infallible>(http::Response::new(format!("{tokens:?}")))
///     }));
/// # let _ = service;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenCacheLayer(Arc<Settings>);

/// Chooses something by the head of a request; `None` keeps the default.
type Choice<T> = Arc<dyn Fn(&RequestHead<'_>) -> Option<T> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Settings {
    cache: TokenCache,
    key: Source,
    missing_key: MissingKey,
    failure_policy: FailurePolicy,
    failure_policy_for: Option<Choice<FailurePolicy>>,
    write_mode: WriteMode,
    write_mode_for: Option<Choice<WriteMode>>,
}

/// Where the partition of a request comes from.
#[derive(Clone)]
enum Source {
    Key(Arc<dyn KeyExtractor>),
    /// The request brings it along.
    #[cfg(feature = "cookie")]
    Cookies(CookieStore),
}

/// Why a request does not reach the inner service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No key, where one is required: 401.
    Missing,
    /// A key that cannot be accepted: 400.
    Invalid,
}

impl TokenCacheLayer {
    /// A layer over this cache; `key` says whose tokens a request is about.
    pub fn new(cache: TokenCache, key: impl KeyExtractor) -> Self {
        Self::from_source(cache, Source::Key(Arc::new(key)))
    }

    /// A layer over sessions in cookies, and the cache that works on them.
    #[cfg(feature = "cookie")]
    pub(crate) fn with_cookies(cache: TokenCache, store: CookieStore) -> Self {
        Self::from_source(cache, Source::Cookies(store))
    }

    fn from_source(cache: TokenCache, key: Source) -> Self {
        Self(Arc::new(Settings {
            failure_policy: cache.0.failure_policy,
            write_mode: cache.0.write_mode,
            cache,
            key,
            missing_key: MissingKey::default(),
            failure_policy_for: None,
            write_mode_for: None,
        }))
    }

    /// What happens to requests without a key. Defaults to [`MissingKey::Anonymous`].
    pub fn missing_key(self, policy: MissingKey) -> Self {
        self.set(|settings| settings.missing_key = policy)
    }

    /// What requests do when L2 fails. Defaults to the cache's policy.
    pub fn failure_policy(self, policy: FailurePolicy) -> Self {
        self.set(|settings| settings.failure_policy = policy)
    }

    /// Chooses the failure policy per request; `None` keeps the layer's.
    pub fn failure_policy_for(
        self,
        choose: impl Fn(&RequestHead<'_>) -> Option<FailurePolicy> + Send + Sync + 'static,
    ) -> Self {
        self.set(|settings| settings.failure_policy_for = Some(Arc::new(choose)))
    }

    /// When changes reach L2. Defaults to the cache's mode.
    pub fn write_mode(self, mode: WriteMode) -> Self {
        self.set(|settings| settings.write_mode = mode)
    }

    /// Chooses the write mode per request; `None` keeps the layer's.
    pub fn write_mode_for(
        self,
        choose: impl Fn(&RequestHead<'_>) -> Option<WriteMode> + Send + Sync + 'static,
    ) -> Self {
        self.set(|settings| settings.write_mode_for = Some(Arc::new(choose)))
    }

    /// The cache, for its [`stats`](TokenCache::stats) and its [`shutdown`](TokenCache::shutdown).
    pub fn cache(&self) -> &TokenCache {
        &self.0.cache
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.0.clone()
    }
}

impl Settings {
    /// The handle of this request, the guard that ends it, and what it owes to its cookies.
    #[inline]
    pub(crate) fn begin(
        &self,
        head: &RequestHead<'_>,
    ) -> Result<(RequestGuard, Exchange), Refusal> {
        #[cfg_attr(
            not(feature = "cookie"),
            expect(clippy::infallible_destructuring_match, reason = "one of two")
        )]
        let extractor = match &self.key {
            Source::Key(key) => key,
            #[cfg(feature = "cookie")]
            Source::Cookies(store) => {
                let (exchange, key) = crate::cookie::Exchange::begin(store, &self.cache, head);
                let tokens = self
                    .tokens(Some(key), head)
                    .in_cookies(exchange.pinned(), exchange.limit());
                return Ok((RequestGuard(tokens), Exchange(Some(exchange))));
            }
        };
        let key = match extractor.extract(head) {
            Ok(None) if self.missing_key == MissingKey::Reject => return Err(Refusal::Missing),
            Ok(key) => key,
            Err(error) => return Err(Refusal::invalid(error)),
        };
        Ok((RequestGuard(self.tokens(key, head)), Exchange::default()))
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
    #[cold]
    fn invalid(error: KeyError) -> Self {
        tracing::debug!(%error, "a request has an invalid partition key");
        Self::Invalid
    }

    pub(crate) fn status(self) -> http::StatusCode {
        match self {
            Self::Missing => http::StatusCode::UNAUTHORIZED,
            Self::Invalid => http::StatusCode::BAD_REQUEST,
        }
    }
}

impl<S> Layer<S> for TokenCacheLayer {
    type Service = TokenCacheService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TokenCacheService::new(inner, self.settings())
    }
}

impl fmt::Debug for TokenCacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheLayer")
            .field("missing_key", &self.0.missing_key)
            .field("failure_policy", &self.0.failure_policy)
            .field("write_mode", &self.0.write_mode)
            .finish_non_exhaustive()
    }
}
