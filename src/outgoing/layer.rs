//! `BearerLayer`.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::bearer::Settings;
use super::{BearerService, CloneBody, Origins};
use crate::acquire::Acquire;
use crate::error::Error;
use crate::key::{ClientName, TokenKey};
use crate::tokens::Tokens;

/// Puts a token on every request that goes out; see the [module](super).
#[derive(Clone)]
#[must_use = "a layer does nothing until a service is layered with it"]
pub struct BearerLayer<C = CloneBody> {
    settings: Settings,
    replay: C,
}

impl BearerLayer {
    /// A layer that sends the token under this key, a name or a [`TokenKey`], to these origins. When
    /// the cache has none, it comes from this source, or from the `Arc<dyn Acquire>` in the
    /// extensions of the outgoing request, if there is one: for sources that are made per request.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for a text that is no key.
    pub fn new<K>(key: K, source: impl Acquire, origins: Origins) -> Result<Self, Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        let settings = Settings {
            key: key.try_into()?,
            origins,
            source: Arc::new(source),
            tokens: None,
            client: None,
            on_demand: [].into(),
        };
        Ok(Self {
            settings,
            replay: CloneBody,
        })
    }
}

impl<C> BearerLayer<C> {
    /// Sends the tokens of this handle, whatever the request says: the application's own.
    /// Defaults to those of the handle in the request's extensions.
    pub fn for_tokens(mut self, tokens: Tokens) -> Self {
        self.settings.tokens = Some(tokens);
        self
    }

    /// Sends the tokens of this [client](Tokens::client). Defaults to that of the handle.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for a name that [`Tokens::client`] refuses.
    pub fn for_client(mut self, name: impl AsRef<str>) -> Result<Self, Error> {
        self.settings.client = Some(ClientName::new(name.as_ref())?);
        Ok(self)
    }

    /// The scopes that the service may demand (`insufficient_scope`) and gets a token with, without the user. All else is
    /// [`Error::StepUp`]. Defaults to none: the service, not the application, chooses what it demands, and a provider gives the
    /// application tokens for other services, too.
    pub fn scopes_on_demand<S: Into<Box<str>>>(
        mut self,
        scopes: impl IntoIterator<Item = S>,
    ) -> Self {
        self.settings.on_demand = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// How a body is sent a second time. Defaults to [`CloneBody`].
    pub fn replay_body<D>(self, replay: D) -> BearerLayer<D> {
        BearerLayer {
            settings: self.settings,
            replay,
        }
    }

    #[cfg(any(feature = "grants", feature = "reqwest-middleware"))]
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl<S, C: Clone> Layer<S> for BearerLayer<C> {
    type Service = BearerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerService::new(inner, self.settings.clone(), self.replay.clone())
    }
}

impl<C> fmt::Debug for BearerLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerLayer")
            .field("origins", &self.settings.origins)
            .field("tokens", &self.settings.tokens)
            .finish_non_exhaustive()
    }
}
