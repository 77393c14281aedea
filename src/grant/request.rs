//! What is asked of a token endpoint.

use std::cell::Cell;
use std::fmt;

use http::header::AUTHORIZATION;
use oauth2::basic::BasicClient;
use oauth2::{EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, Scope, SyncHttpClient};

use crate::acquire::ProviderError;
use crate::secret::Secret;
use crate::wipe::Wiped;

/// The `oauth2` crate's client, with a token endpoint and no other.
pub(super) type Provider =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// By which grant a token is asked for.
pub(super) enum GrantType<'a> {
    ClientCredentials,
    RefreshToken(&'a Secret),
    /// One that the `oauth2` crate has no request for.
    Extension(&'static str),
}

/// A form for a token endpoint, but for what the client is known by.
pub(super) struct Form<'a> {
    pub(super) grant: GrantType<'a>,
    pub(super) scopes: &'a [&'a str],
    pub(super) params: &'a [(&'a str, &'a str)],
}

/// The form as `oauth2` makes a request of it.
///
/// Sending it and reading the answer is not left to `oauth2`: it refuses lifetimes that
/// [`TokenSet`](crate::TokenSet) clamps, keeps bodies in its errors and does not see `Retry-After`.
pub(super) fn build(provider: &Provider, form: &Form<'_>) -> Result<HttpRequest, ProviderError> {
    let taken = Take::default();
    let scopes = form.scopes.iter().map(|scope| Scope::new((*scope).into()));
    let params = form.params.iter().copied();
    // Always an error: there is no answer.
    let _ = match form.grant {
        GrantType::RefreshToken(spent) => {
            let spent = oauth2::RefreshToken::new(spent.expose().into());
            let request = provider.exchange_refresh_token(&spent).add_scopes(scopes);
            let request = params.fold(request, |request, (n, v)| request.add_extra_param(n, v));
            let built = request.request(&taken);
            drop(Wiped::new(spent.into_secret().into_bytes()));
            built
        }
        GrantType::ClientCredentials | GrantType::Extension(_) => {
            let request = provider.exchange_client_credentials().add_scopes(scopes);
            let request = params.fold(request, |request, (n, v)| request.add_extra_param(n, v));
            request.request(&taken)
        }
    };
    let mut request = taken.0.take().ok_or_else(unbuilt)?;
    if let GrantType::Extension(name) = form.grant {
        rename_grant(request.body_mut(), name).ok_or_else(unbuilt)?;
    }
    if let Some(credentials) = request.headers_mut().get_mut(AUTHORIZATION) {
        credentials.set_sensitive(true);
    }
    Ok(request)
}

/// Makes the form of a client-credentials request one of another grant.
fn rename_grant(form: &mut Vec<u8>, name: &str) -> Option<()> {
    let old = Wiped::new(std::mem::take(form));
    let rest = old.strip_prefix(b"grant_type=client_credentials")?;
    let name: String = oauth2::url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    form.reserve_exact("grant_type=".len() + name.len() + rest.len());
    form.extend_from_slice(b"grant_type=");
    form.extend_from_slice(name.as_bytes());
    form.extend_from_slice(rest);
    Some(())
}

/// `oauth2` gives the request that it has built to an HTTP client only. This one keeps it.
#[derive(Default)]
struct Take(Cell<Option<HttpRequest>>);

impl SyncHttpClient for Take {
    type Error = Unsent;

    fn call(&self, request: HttpRequest) -> Result<HttpResponse, Unsent> {
        self.0.set(Some(request));
        Err(Unsent)
    }
}

#[derive(Debug)]
struct Unsent;

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request could not be made")
    }
}

impl std::error::Error for Unsent {}

fn unbuilt() -> ProviderError {
    ProviderError::unreachable(Unsent)
}
