//! How the client proves who it is.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use url::Url;

use super::assertion::DynClientAssertion;
use super::request::{Form, authorize};
use crate::acquire::ProviderError;
use crate::secret::Secret;

/// Where the client's name and secret go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthStyle {
    /// Into the `Authorization` header (`client_secret_basic`), as every provider has to accept
    /// (RFC 6749 §2.3.1). A client without a secret is named in the form all the same.
    #[default]
    Basic,
    /// Into the form (`client_secret_post`).
    Body,
}

/// What proves who the client is.
#[derive(Clone, Default)]
pub(super) enum Proof {
    /// Nothing: a public client.
    #[default]
    None,
    Secret(Secret),
    Assertion(Arc<dyn DynClientAssertion>),
}

/// How the client proves who it is.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    pub(super) proof: Proof,
    pub(super) style: AuthStyle,
}

impl Credentials {
    /// The request that posts this form as this client.
    pub(super) async fn post(
        &self,
        client_id: &str,
        endpoint: &Url,
        mut form: Form,
    ) -> Result<Request<Bytes>, ProviderError> {
        match (&self.proof, self.style) {
            (Proof::Secret(secret), AuthStyle::Basic) => {
                let mut request = form.post_to(endpoint)?;
                authorize(&mut request, client_id, secret);
                return Ok(request);
            }
            (Proof::Secret(secret), AuthStyle::Body) => {
                form.push("client_id", client_id);
                form.push("client_secret", secret.expose());
            }
            (Proof::None, _) => form.push("client_id", client_id),
            (Proof::Assertion(assertion), _) => {
                let assertion = assertion.assertion(client_id, endpoint.as_str());
                let assertion = assertion.await.map_err(ProviderError::no_assertion)?;
                form.push("client_id", client_id);
                form.push("client_assertion_type", JWT_BEARER);
                form.push("client_assertion", assertion.expose());
            }
        }
        form.post_to(endpoint)
    }
}

/// The type of assertions that are JWTs (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
