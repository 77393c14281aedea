//! `AuthorizationCode`: a login in two steps.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::Url;

use super::Client;
use super::begun::{self, Begun};
use super::callback::Callback;
use super::claims::Expected;
use super::endpoint::endpoint;
use super::login::Login;
use super::login_error::LoginError;
use super::provider::{AUTHORIZATION, Provider};
use super::return_address::is_path_of_this_site;
use crate::acquire::ProviderError;
use crate::challenge::Challenge;
use crate::error::{ConfigError, Error};
use crate::lookup::Lookup;
use crate::random;
use crate::time::setting;
use crate::tokens::Tokens;

/// What [`AuthorizationCode::begin`] sends itself.
const OWN: [&str; 9] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
];

/// Signs users in by an authorization code (RFC 6749 §4.1) with PKCE (RFC 7636), as RFC 9700 §2.1 has it.
///
/// [`begin`](Self::begin) gives the URL at the provider that the browser goes to, and [`end`](Self::end) takes what it
/// comes back with. In between the session keeps the login for ten minutes, as a [session value](Tokens::put): each of
/// several tabs has a login of its own, and each login ends once, in the session that has begun it.
///
/// ```
/// use tower_token_cache::grant::{AuthorizationCode, Callback, LoginError};
/// use tower_token_cache::Tokens;
///
/// /// GET /login: the handler redirects to this URL.
/// async fn login(tokens: Tokens, flow: AuthorizationCode) -> Result<String, LoginError> {
///     flow.begin(&tokens, "/calendar").await
/// }
///
/// /// GET /callback: the handler redirects to this path.
/// async fn callback(tokens: Tokens, flow: AuthorizationCode, query: Callback) -> Result<String, LoginError> {
///     // `Tokens::claims` has the user from then on.
///     let login = flow.end(&tokens, query).await?;
///     let sign_in = login.sign_in("graph").user(login.claims()?.subject());
///     let _ = tokens.sign_in(sign_in).await?;
///     Ok(login.return_to)
/// }
/// ```
///
/// The scopes are those of the [client](Client::scopes). With `openid` among them the provider tells who the user is:
/// its id token is checked by OpenID Connect Core §3.1.3.7. TLS vouches for the token endpoint, as §3.1.3.7 (6) allows,
/// so that the signature is not checked. Without `openid` there are tokens and [no claims](Login::claims).
///
/// # A login for more
///
/// One login can ask for more than others do: settings of a clone of the flow are of its logins alone, and any clone ends them.
/// [`step_up`](Self::step_up) is for what an API has demanded (RFC 9470). The provider asks the user for what is missing, such
/// as a second factor, and `end` checks that the id token says so:
///
/// ```
/// use tower_token_cache::grant::{AuthorizationCode, LoginError};
/// use tower_token_cache::{Error, Tokens};
///
/// /// A handler whose call to an API has failed so.
/// async fn failed(error: Error, tokens: Tokens, flow: AuthorizationCode) -> Result<String, LoginError> {
///     match error {
///         // Redirects to this URL; or answers with the error, and a script begins the login.
///         Error::StepUp(challenge) => flow.clone().step_up(&challenge).begin(&tokens, "/transfer").await,
///         error => Err(error.into()),
///     }
/// }
/// ```
///
/// The session goes on until the user is back, and `sign_in` then begins a new one.
///
/// Several providers need a redirect URI each.
#[derive(Clone)]
pub struct AuthorizationCode {
    client: Client,
    provider: Provider,
    authorization_endpoint: Url,
    redirect_uri: Box<str>,
    max_age: Option<Duration>,
    acr_values: Vec<Box<str>>,
    claims: Option<Box<str>>,
    /// Beside those of the client.
    scopes: Vec<Box<str>>,
    params: Vec<(Box<str>, Box<str>)>,
}

impl AuthorizationCode {
    /// Logins of this client, from which browsers come back to this URL. The provider knows both.
    ///
    /// # Errors
    /// [`ConfigError`] for a client that is not [of a provider](Provider::client) with an authorization endpoint; for a
    /// provider that says how it checks PKCE, and does not say `S256`; and for a `redirect_uri` that is neither `https`
    /// nor on this machine, or has a user name, password or fragment.
    pub fn new(client: Client, redirect_uri: impl Into<Box<str>>) -> Result<Self, ConfigError> {
        let invalid = |reason| ConfigError::new("client", reason);
        let provider = client.provider();
        let provider = provider.ok_or(invalid("must be made by `Provider::client`"))?;
        if provider.refuses_s256() {
            return Err(invalid("must be of a provider that checks PKCE by S256"));
        }
        let at = provider.endpoint(AUTHORIZATION);
        let at = at.ok_or(invalid(
            "must be of a provider with an authorization endpoint",
        ))?;
        let redirect_uri = redirect_uri.into();
        endpoint(&redirect_uri).map_err(|reason| ConfigError::new("redirect_uri", reason))?;
        Ok(Self {
            provider: provider.clone(),
            authorization_endpoint: at.clone(),
            redirect_uri,
            max_age: None,
            acr_values: Vec::new(),
            claims: None,
            scopes: Vec::new(),
            params: Vec::new(),
            client,
        })
    }

    /// Sends the provider another parameter, such as `prompt`, `login_hint`, `claims` or `audience`; one name can have
    /// several values. For one login alone, set it on a clone. Whether the provider has done what `claims` asks for is in
    /// the [claims](Login::claims) of the login. `acr_values` as a parameter is a wish; as a [setting](Self::acr_values),
    /// which takes its place, it is checked.
    ///
    /// # Errors
    /// [`ConfigError`] for what this grant sends itself, for `response_mode`, without which the callback is a query, and for
    /// `max_age`, which has a [setting](Self::max_age).
    pub fn param(
        mut self,
        name: impl Into<Box<str>>,
        value: impl Into<Box<str>>,
    ) -> Result<Self, ConfigError> {
        let name = name.into();
        if OWN.contains(&&*name) || &*name == "max_age" {
            return Err(ConfigError::new("param", "is sent by the grant itself"));
        }
        self.params.push((name, value.into()));
        Ok(self)
    }

    /// How long ago the user may have given the provider a proof, in whole seconds; after it the provider asks for one
    /// (`max_age`), and the id token has to say when it was given. Defaults to none: the provider decides.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(setting(age));
        self
    }

    /// The authentication context classes, the best first, of which the login has to be (`acr_values`): the id token has to
    /// name one of them as its `acr` (OpenID Connect Core §3.1.2.1, RFC 9470 §5). Defaults to none: the provider decides.
    ///
    /// Providers differ in what they call them, and some name none in the id token.
    ///
    /// # Errors
    /// [`ConfigError`] for a value that is empty or has spaces or control characters.
    pub fn acr_values<V: Into<Box<str>>>(
        mut self,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, ConfigError> {
        let values: Vec<Box<str>> = values.into_iter().map(Into::into).collect();
        let odd = |letter: char| letter.is_whitespace() || letter.is_control();
        let mut words = values.iter();
        if words.any(|word| word.is_empty() || word.contains(odd)) {
            return Err(ConfigError::new("acr_values", "must be words"));
        }
        self.acr_values = values;
        Ok(self)
    }

    /// The login that an API has demanded: its [`acr_values`](Challenge::acr_values) and its
    /// [`max_age`](Challenge::max_age) (RFC 9470 §4), its [claims](Challenge::claims), and its
    /// [scopes](Challenge::scopes) beside those of the client. What it does not demand stays as it is set. No API makes
    /// the login a weaker one: of two ages the shorter counts, and of its classes those that are among this flow's own
    /// [`acr_values`](Self::acr_values), if that has any; where none is, those of the flow stay. The id token is
    /// checked as for [`acr_values`](Self::acr_values) and [`max_age`](Self::max_age), where the client asks for the scope
    /// `openid`; claims are for the API to check.
    pub fn step_up(mut self, challenge: &Challenge) -> Self {
        let own = std::mem::take(&mut self.acr_values);
        let is_accepted = |value: &&str| own.is_empty() || own.iter().any(|own| **own == **value);
        let demanded = challenge.acr_values().filter(is_accepted).map(Into::into);
        self.acr_values = Vec::from_iter(demanded);
        if self.acr_values.is_empty() {
            self.acr_values = own;
        }
        let ages = [challenge.max_age(), self.max_age];
        self.max_age = ages.into_iter().flatten().min();
        if let Some(claims) = challenge.claims() {
            self.claims = Some(claims.into());
        }
        self.scopes.extend(challenge.scopes().map(Into::into));
        self
    }

    /// Begins a login: keeps it in the session, and gives the URL that the browser is redirected to. Where the layer
    /// [issues](crate::session) session ids, an anonymous request gets a session.
    ///
    /// `return_to` is where the browser goes after the login. It may come from the request: only a path of this site is
    /// accepted, with a query perhaps, so that no link to the login leads to another site.
    ///
    /// A session keeps each login for ten minutes, of some 500 bytes: limit the rate of this route. The login ends with its
    /// session. So it does where the user of the session is another one than will sign in, and the provider ends the session of
    /// the first by a back-channel logout on the way: the second signs in at the second attempt.
    ///
    /// # Errors
    /// [`LoginError::ReturnAddress`]; [`LoginError::Session`] with [`Error::InCookies`] in a session that lives in cookies,
    /// [`Error::Randomness`], and those of [`Tokens::put`].
    pub async fn begin(&self, tokens: &Tokens, return_to: &str) -> Result<String, LoginError> {
        if !is_path_of_this_site(return_to) {
            return Err(LoginError::ReturnAddress);
        }
        if tokens.is_in_cookies() {
            return Err(Error::InCookies.into());
        }
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        let url = self.url(&state, &nonce, &verifier);
        let begun = Begun {
            issuer: self.provider.issuer().into(),
            client_id: self.client.id().into(),
            redirect_uri: self.redirect_uri.clone(),
            verifier: verifier.into(),
            nonce: nonce.into(),
            max_age: self.max_age.map(|age| age.as_secs()),
            acr_values: self.acr_values.clone(),
            return_to: return_to.into(),
        };
        tokens
            .put(begun::name(&state), &begun, begun::LIFETIME)
            .await?;
        Ok(url.into())
    }

    fn url(&self, state: &str, nonce: &str, verifier: &str) -> Url {
        let mut url = self.authorization_endpoint.clone();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let scope = self.scope();
        let acr_values = self.acr_values.join(" ");
        let acr_values = Some(&*acr_values).filter(|values| !values.is_empty());
        let demanded = [
            ("acr_values", acr_values),
            ("claims", self.claims.as_deref()),
        ];
        let is_demanded = |name: &str| {
            let mut demanded = demanded.iter();
            demanded.any(|(own, value)| *own == name && value.is_some())
        };
        let mut query = url.query_pairs_mut();
        query.extend_pairs([
            ("response_type", "code"),
            ("client_id", self.client.id()),
            ("redirect_uri", &self.redirect_uri),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        if !scope.is_empty() {
            query.append_pair("scope", &scope);
        }
        if let Some(age) = self.max_age {
            query.append_pair("max_age", &age.as_secs().to_string());
        }
        query.extend_pairs(
            self.client
                .resource_of_client()
                .map(|uri| ("resource", uri)),
        );
        query.extend_pairs(
            demanded
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let params = self.params.iter().map(|(name, value)| (&**name, &**value));
        query.extend_pairs(params.filter(|(name, _)| !is_demanded(name)));
        drop(query);
        url
    }

    /// The client's scopes, and those that are asked for beside them.
    fn scope(&self) -> String {
        let mut scope = self.client.scope();
        for more in &self.scopes {
            if !scope.split(' ').any(|own| own == &**more) {
                let space = if scope.is_empty() { "" } else { " " };
                scope = scope + space + more;
            }
        }
        scope
    }

    /// Ends the login that the callback is of: exactly one callback of a state does, on any instance. Redeems the code,
    /// and checks the id token. The user is signed in by [`Tokens::sign_in`] after that.
    ///
    /// The login is spent whatever comes of it, also where this future is dropped: the user begins again.
    ///
    /// # Errors
    /// [`LoginError`] says which; with [`LoginError::Session`] those of [`Tokens::take`], and [`Error::Unavailable`] where
    /// the store cannot be asked. The log has them at level debug, with the provider's error code.
    pub async fn end(&self, tokens: &Tokens, callback: Callback) -> Result<Login, LoginError> {
        let ended = self.end_once(tokens, callback).await;
        if let Err(error) = &ended {
            let cause = error.source().map(tracing::field::display);
            // Not louder: a callback can come from anywhere.
            tracing::debug!(%error, cause, "a login has not succeeded");
        }
        ended
    }

    async fn end_once(&self, tokens: &Tokens, callback: Callback) -> Result<Login, LoginError> {
        let Callback {
            code,
            state,
            iss,
            error,
        } = callback;
        let state = state.ok_or(LoginError::Malformed)?;
        if code.is_none() && error.is_none() {
            return Err(LoginError::Malformed);
        }
        let is_named = match iss {
            Some(issuer) => *issuer == *self.provider.issuer(),
            None => !self.provider.names_itself(),
        };
        if !is_named {
            return Err(LoginError::WrongIssuer);
        }
        let begun = take(tokens, &state).await?;
        if *begun.issuer != *self.provider.issuer() || *begun.client_id != *self.client.id() {
            return Err(LoginError::WrongIssuer);
        }
        let code = match (error, code) {
            (None, Some(code)) => code,
            (Some(error), _) if &*error == "access_denied" => return Err(LoginError::Denied),
            (error, _) => return Err(ProviderError::refused(error.unwrap_or_default()).into()),
        };
        let form = [
            ("code", code.expose()),
            ("redirect_uri", &*begun.redirect_uri),
            ("code_verifier", begun.verifier.expose()),
        ];
        let set = self.client.redeem("authorization_code", &form).await?;
        let expected = Expected {
            issuer: self.provider.issuer(),
            client_id: self.client.id(),
            nonce: Some(&begun.nonce),
            max_age: begun.max_age.map(Duration::from_secs),
            acr_values: &begun.acr_values,
            now: tokens.engine().clock.now(),
        };
        let login = Login::check(&self.client, set, begun.return_to, &expected);
        Ok(login?)
    }
}

/// The parameters are not shown: a `login_hint` is about a person.
impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationCode")
            .field("client", &self.client)
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}

/// Takes the login of this state out of the session.
async fn take(tokens: &Tokens, state: &str) -> Result<Begun, LoginError> {
    // Of this form is each that was given: the store is not asked for others.
    let is_one = state.len() == STATE && state.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_one {
        return Err(LoginError::UnknownState);
    }
    match tokens.take::<Begun>(begun::name(state)).await {
        Ok(Lookup::Hit(begun)) => Ok(begun),
        Ok(Lookup::Unavailable) => Err(Error::unavailable().into()),
        // There is no session, or not this one any more; or it is a login of another release, or sealed with a key that
        // is gone: to begin again helps.
        Ok(Lookup::Absent | Lookup::Unopenable)
        | Err(Error::InvalidValue | Error::NoPartition | Error::SignedOut) => {
            Err(LoginError::UnknownState)
        }
        Err(error) => Err(error.into()),
    }
}

/// The characters of a state.
const STATE: usize = 43;

/// 256 random bits in 43 characters, as RFC 7636 §4.1 recommends it for the verifier.
fn random() -> Result<String, Error> {
    let bits = random::secret().map_err(|_| Error::Randomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}
