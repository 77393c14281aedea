//! `PrivateKeyJwt`: assertions that the client signs itself.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use serde::Serialize;

use super::{ClientAssertion, SigningKey};
use crate::acquire::BoxError;
use crate::random;
use crate::secret::Secret;
use crate::time::Timestamp;

/// How long an assertion is good for, in seconds: longer than a request takes, with clocks that differ a little, and no
/// longer than the strictest providers allow (FAPI 2.0 §5.3.2.1).
const LIFETIME: u64 = 60;

/// Proves who the client is with a JWT that it signs for each request (`private_key_jwt`, RFC 7523 §2.2, OpenID Connect
/// Core §9).
///
/// ```no_run
/// use tower_token_cache::grant::{Client, PrivateKeyJwt, SigningKey};
///
/// let key = SigningKey::from_pem(std::fs::read("client.pem")?)?.kid("2026-11");
/// let jwt = PrivateKeyJwt::new(key);
/// let client = Client::new("https://login.example/token", "app")?.assertion(jwt.clone());
/// // Later, when the provider knows the next one:
/// jwt.replace_key(SigningKey::from_pem(std::fs::read("next.pem")?)?.kid("2026-12"));
/// # let _ = client;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `iss` and `sub` are the client's id, `jti` has 256 random bits, `iat` is now, and `exp` is 60 s later: longer than a
/// request takes, and as short as the strictest profile wants it (FAPI 2.0). A clock that is wrong by more than
/// providers allow for has every assertion refused with `invalid_client`.
///
/// # To another key
///
/// Add the new key to those that the provider has of this client, wait until it has read them, call
/// [`replace_key`](Self::replace_key) on every instance, and take the old key away. Requests that were signed before
/// are taken for a minute.
///
/// Clones share the key.
#[derive(Clone)]
pub struct PrivateKeyJwt {
    key: Arc<RwLock<Arc<SigningKey>>>,
    audience: Option<Box<str>>,
}

impl PrivateKeyJwt {
    /// Assertions that this key signs.
    pub fn new(key: SigningKey) -> Self {
        Self {
            key: Arc::new(RwLock::new(Arc::new(key))),
            audience: None,
        }
    }

    /// For whom the assertion is (`aud`). Defaults to the URL of the endpoint that is asked, the token endpoint of a
    /// grant: what OpenID Connect Core §9 and Entra ID name, and what Okta insists on. Providers that follow FAPI 2.0
    /// or the successor of RFC 7523 want their issuer here.
    pub fn audience(mut self, audience: impl Into<Box<str>>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Signs with this key from now on, in all clones.
    pub fn replace_key(&self, key: SigningKey) {
        *self.key.write() = Arc::new(key);
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: u64,
    exp: u64,
}

impl ClientAssertion for PrivateKeyJwt {
    async fn assertion(&self, client_id: &str, endpoint: &str) -> Result<Secret, BoxError> {
        let key = self.key.read().clone();
        let now = Timestamp::now().as_millis() / 1000;
        let claims = Claims {
            iss: client_id,
            sub: client_id,
            aud: self.audience.as_deref().unwrap_or(endpoint),
            jti: &URL_SAFE_NO_PAD.encode(random::secret()?),
            iat: now,
            exp: now + LIFETIME,
        };
        Ok(key.jwt(&claims).map_err(|_| Unsigned)?)
    }
}

/// ring does not say why.
#[derive(Debug)]
struct Unsigned;

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client's assertion could not be signed")
    }
}

impl std::error::Error for Unsigned {}

impl fmt::Debug for PrivateKeyJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKeyJwt")
            .field("key", &**self.key.read())
            .field("audience", &self.audience)
            .finish()
    }
}
