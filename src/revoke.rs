//! `Revoke`: how a provider is told that a refresh token is no longer used.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::acquire::BoxError;
use crate::key::ClientName;
use crate::secret::Secret;

/// Revokes refresh tokens at a provider (RFC 7009): what [`Builder::revoke_with`](crate::Builder::revoke_with) takes.
///
/// ```
/// use tower_token_cache::{BoxError, ProviderError, Revoke, Secret};
///
/// struct Provider {
///     http: reqwest::Client,
/// }
///
/// impl Revoke for Provider {
///     async fn revoke(&self, refresh_token: &Secret) -> Result<(), BoxError> {
///         let form = [("token", refresh_token.expose()), ("client_id", "app")];
///         let request = self.http.post("https://login.example/revoke").form(&form);
///         let answer = request.send().await.map_err(reqwest::Error::without_url)?;
///         match answer.status() {
///             status if status.is_success() => Ok(()),
///             status => Err(ProviderError::status(status).into()),
///         }
///     }
/// }
/// ```
pub trait Revoke: Send + Sync + 'static {
    /// Revokes this refresh token. It may be one that the provider does not know any more, which is a success (§2.2).
    /// It runs on the cache's [runtime](crate::Builder::runtime), and must not block. After ten seconds it is dropped,
    /// which counts as a failure.
    ///
    /// # Errors
    /// Whatever has happened; it is logged, and so must not hold the token. It is tried again, unless it is, or
    /// wraps, a [`ProviderError::refused`](crate::ProviderError::refused) whose code does not ask for time.
    fn revoke(&self, refresh_token: &Secret) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// The same, boxed.
pub(crate) trait DynRevoke: Send + Sync {
    fn revoke_boxed<'a>(
        &'a self,
        refresh_token: &'a Secret,
    ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;
}

impl<R: Revoke> DynRevoke for R {
    fn revoke_boxed<'a>(
        &'a self,
        refresh_token: &'a Secret,
    ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>> {
        Box::pin(self.revoke(refresh_token))
    }
}

/// Who revokes the refresh tokens of one client.
#[derive(Clone)]
pub(crate) struct Revoker {
    /// `None` for the default client.
    pub(crate) client: Option<ClientName>,
    pub(crate) provider: Arc<dyn DynRevoke>,
}

impl fmt::Debug for Revoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoker")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
