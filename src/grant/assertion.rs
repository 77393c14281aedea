//! `ClientAssertion`: what proves who the client is, in place of a secret.

use std::future::Future;
use std::pin::Pin;

use crate::acquire::BoxError;
use crate::secret::Secret;

/// What proves who the client is, in place of a secret: a JWT that is sent as `client_assertion` (RFC 7523 §2.2), for
/// [`Client::assertion`](super::Client::assertion).
///
/// [`PrivateKeyJwt`](super::PrivateKeyJwt) signs one for each request, [`AssertionFile`](super::AssertionFile) reads one
/// that the platform puts into a file. Anything else is a closure:
///
/// ```
/// use tower_token_cache::BoxError;
/// use tower_token_cache::grant::Client;
///
/// async fn identity_of_this_machine() -> Result<String, BoxError> {
///     // … ask the platform …
///     # Ok("e30.e30.c2ln".into())
/// }
/// let client = Client::new("https://login.example/token", "app")?.assertion(identity_of_this_machine);
/// # let _ = client;
/// # Ok::<(), tower_token_cache::ConfigError>(())
/// ```
pub trait ClientAssertion: Send + Sync + 'static {
    /// An assertion for one request: who asks, and the URL of the endpoint that is asked.
    ///
    /// It counts towards the [timeout](super::Client::timeout) of the request. After an error the provider is not
    /// asked: the acquisition fails with the code `no_client_assertion`, with this error as a source, and is tried again
    /// after a pause.
    fn assertion(
        &self,
        client_id: &str,
        endpoint: &str,
    ) -> impl Future<Output = Result<Secret, BoxError>> + Send;
}

impl<F, Fut, S, E> ClientAssertion for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<S, E>> + Send,
    S: Into<Secret>,
    E: Into<BoxError>,
{
    async fn assertion(&self, _: &str, _: &str) -> Result<Secret, BoxError> {
        match self().await {
            Ok(assertion) => Ok(assertion.into()),
            Err(error) => Err(error.into()),
        }
    }
}

type Assertion<'a> = Pin<Box<dyn Future<Output = Result<Secret, BoxError>> + Send + 'a>>;

/// The same with a boxed future.
pub(super) trait DynClientAssertion: Send + Sync {
    fn assertion<'a>(&'a self, client_id: &'a str, endpoint: &'a str) -> Assertion<'a>;
}

impl<T: ClientAssertion> DynClientAssertion for T {
    fn assertion<'a>(&'a self, client_id: &'a str, endpoint: &'a str) -> Assertion<'a> {
        Box::pin(ClientAssertion::assertion(self, client_id, endpoint))
    }
}
