//! What an API behind a proxy has demanded, until a login asks for it.

use super::AuthorizationCode;
use super::begun::LIFETIME;
use super::login_error::LoginError;
use crate::challenge::Challenge;
use crate::error::Error;
use crate::lookup::Lookup;
use crate::tokens::Tokens;

/// The session value. No state of a login is of this length.
const NAME: &str = "login demanded";

/// Keeps it in the session, in the place of what was demanded before.
pub(crate) async fn keep(tokens: &Tokens, challenge: &Challenge) {
    let known = tokens.value::<Challenge>(NAME).await;
    if matches!(known, Ok(Lookup::Hit(known)) if known == *challenge) {
        return;
    }
    if let Err(error) = tokens.put(NAME, challenge, LIFETIME).await {
        tracing::debug!(%error, "what an API demands is told to the browser alone");
    }
}

impl AuthorizationCode {
    /// The login for what an API behind a [`Proxy`](crate::outgoing::Proxy) has [demanded](Self::step_up) last, if one has in this
    /// session within ten minutes; else the same login. Scopes are asked for if the layer
    /// [lists](crate::outgoing::BearerLayer::scopes_on_demand) them. So a link to `/login` is all that a page needs, and nobody else's
    /// link can say what is asked for.
    ///
    /// ```
    /// use tower_token_cache::grant::{AuthorizationCode, LoginError};
    /// use tower_token_cache::Tokens;
    ///
    /// /// GET /login
    /// async fn login(tokens: Tokens, flow: AuthorizationCode) -> Result<String, LoginError> {
    ///     flow.demanded(&tokens).await?.begin(&tokens, "/").await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`LoginError::Session`] with those of [`Tokens::value`].
    pub async fn demanded(self, tokens: &Tokens) -> Result<Self, LoginError> {
        match tokens.value::<Challenge>(NAME).await {
            Ok(Lookup::Hit(challenge)) => Ok(self.step_up(&challenge)),
            // What cannot be read now the API demands again.
            Ok(_) | Err(Error::InvalidValue | Error::NoPartition | Error::SignedOut) => Ok(self),
            Err(error) => Err(error.into()),
        }
    }
}
