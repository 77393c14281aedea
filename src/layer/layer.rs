//! `TokenCacheLayer`: its settings. What it does with a request is in `service.rs`.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::TokenCacheService;
use super::settings::{Settings, Source};
use crate::cache::TokenCache;
use crate::key::{KeyExtractor, RequestHead};
use crate::policy::{FailurePolicy, InvalidKey, MissingKey, WriteMode};

/// Gives every request of the wrapped service a [`Tokens`](crate::Tokens) handle; see the [module](super).
///
/// A tower [`Layer`] for axum, tonic and any other tower stack, and with feature `actix` an
/// actix-web middleware (`Transform`) as well.
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_token_cache::{MemoryStore, TokenCache, TokenCacheLayer, Tokens, session};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = TokenCache::builder(MemoryStore::new()).build()?;
/// let service = ServiceBuilder::new()
///     .layer(TokenCacheLayer::new(cache, session::Cookie::new("sid")?))
///     .service(service_fn(async |request: http::Request<String>| {
///         let tokens = request.extensions().get::<Tokens>().expect("set by the layer");
///         Ok::<_, std::convert::Infallible>(http::Response::new(format!("{tokens:?}")))
///     }));
/// # let _ = service;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until a service is layered with it"]
pub struct TokenCacheLayer(Arc<Settings>);

impl TokenCacheLayer {
    /// A layer over this cache; `key` says whose tokens a request is about. Over a
    /// [`session::Cookie`](crate::session::Cookie) the layer also issues session ids.
    pub fn new(cache: TokenCache, key: impl KeyExtractor) -> Self {
        Self::from_source(cache, Source::Key(Arc::new(key)))
    }

    /// A layer over this cache, for the requests of this source.
    pub(crate) fn from_source(cache: TokenCache, key: Source) -> Self {
        let issues = match &key {
            Source::Key(key) => key.issues().cloned(),
            Source::Cookies(_) => None,
        };
        let takes_bearer = matches!(&key, Source::Key(key) if key.takes_bearer());
        let invalid_key = match issues {
            Some(_) => InvalidKey::Anonymous,
            None => InvalidKey::Reject,
        };
        Self(Arc::new(Settings {
            failure_policy: cache.0.failure_policy,
            write_mode: cache.0.write_mode,
            cache,
            key,
            issues,
            takes_bearer,
            invalid_key,
            missing_key: MissingKey::default(),
            failure_policy_for: None,
            write_mode_for: None,
        }))
    }

    /// What happens to requests without a key. Defaults to [`MissingKey::Anonymous`].
    pub fn missing_key(self, policy: MissingKey) -> Self {
        self.set(|settings| settings.missing_key = policy)
    }

    /// What happens to requests whose key is invalid. Defaults to [`InvalidKey::Anonymous`] over a
    /// [`session::Cookie`](crate::session::Cookie), and else to [`InvalidKey::Reject`].
    pub fn invalid_key(self, policy: InvalidKey) -> Self {
        self.set(|settings| settings.invalid_key = policy)
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
            .field("invalid_key", &self.0.invalid_key)
            .field("failure_policy", &self.0.failure_policy)
            .field("write_mode", &self.0.write_mode)
            .finish_non_exhaustive()
    }
}
