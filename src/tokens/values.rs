//! Session values: what an application keeps in a session for a while, beside the tokens.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Tokens;
use crate::codec::Value;
use crate::error::Error;
use crate::key::TokenKey;
use crate::lookup::Lookup;
use crate::secret::Secret;

/// The largest session value, in bytes of JSON. A session is read as a whole, with its tokens.
const MAX_SESSION_VALUE: usize = 64 << 10;

/// How deep arrays and objects may stand in one another: `serde_json` reads no deeper ones.
const MAX_DEPTH: usize = 127;

/// Session values: small things that a session needs for a while, such as the state of a login. They are sealed
/// and stored as the tokens are, are in no list of [`keys`](Tokens::keys), belong to the session and to no
/// [client](Tokens::client), move with [`move_to`](Tokens::move_to), and end with [`sign_out`](Tokens::sign_out).
impl Tokens {
    /// Keeps a value under this name for this long, as JSON of at most 64 KiB. It replaces an earlier one. The value
    /// ends with its session, if that is earlier: [`Lifetimes`](crate::Lifetimes).
    ///
    /// JSON has no word for a float that is infinite or not a number: as `serde_json` does, it is written as `null`.
    ///
    /// Visible at once in this process, and in L2 before the response head: the browser may come back to another
    /// instance. Where the layer [issues](crate::session) session ids, an anonymous request gets a session.
    ///
    /// A login keeps the state and the PKCE verifier (RFC 7636) until the browser comes back from the provider;
    /// `grant::AuthorizationCode` (feature `grants`) is such a login, ready-made.
    /// [`take`](Self::take) gives them to one request, so that an answer of the provider counts once:
    ///
    /// ```
    /// use std::time::Duration;
    /// use serde::{Deserialize, Serialize};
    /// # use tower_token_cache::{Error, Lookup, MemoryStore, PartitionKey, TokenCache, Tokens};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Login {
    ///     state: String,
    ///     pkce_verifier: String,
    ///     return_to: String,
    /// }
    ///
    /// /// Before the redirect to the provider. The user has ten minutes to sign in.
    /// async fn begin(tokens: &Tokens, login: &Login) -> Result<(), Error> {
    ///     tokens.put("login", login, Duration::from_secs(600)).await
    /// }
    ///
    /// /// The browser is back, with this state: the login that it ends, if there is one.
    /// async fn end(tokens: &Tokens, state: &str) -> Result<Option<Login>, Error> {
    ///     let login = tokens.take::<Login>("login").await?;
    ///     Ok(login.hit().filter(|login| login.state == state))
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = TokenCache::builder(MemoryStore::new()).build()?;
    /// # let tokens = cache.tokens(PartitionKey::session("before-the-login")?);
    /// # let text = |text: &str| text.to_owned();
    /// # let login = Login { state: text("s"), pkce_verifier: text("v"), return_to: text("/") };
    /// # begin(&tokens, &login).await?;
    /// # assert_eq!(end(&tokens, "s").await?.map(|it| it.pkce_verifier).as_deref(), Some("v"));
    /// # assert!(end(&tokens, "s").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidValue`] where the value cannot be written as JSON, or has more than 127 arrays and objects in one
    /// another, so that it could not be read; [`Error::TooLarge`], [`Error::InvalidKey`], and those of [`insert`](Self::insert).
    pub async fn put<T>(
        &self,
        name: impl AsRef<str>,
        value: &T,
        lifetime: Duration,
    ) -> Result<(), Error>
    where
        T: Serialize + ?Sized,
    {
        let entry = entry(name)?;
        let text = Secret::json(&value).map_err(|_| Error::InvalidValue)?;
        let (size, limit) = (text.len(), MAX_SESSION_VALUE);
        if size > limit {
            return Err(Error::TooLarge { size, limit });
        }
        if depth(text.expose()) > MAX_DEPTH {
            return Err(Error::InvalidValue);
        }
        let expires_at = self.engine().clock.now().saturating_add(lifetime);
        let value = Value::secret(text, Some(expires_at));
        self.keep(vec![(entry, Some(value))], true).await
    }

    /// The value under this name, which stays where it is. One that another instance has just
    /// [taken](Self::take) may still be seen, as any change of another instance.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] where the value is no `T`, [`Error::InvalidKey`], and those of [`get`](Self::get).
    pub async fn value<T: DeserializeOwned>(
        &self,
        name: impl AsRef<str>,
    ) -> Result<Lookup<T>, Error> {
        let lookup = self.read(entry(name)?.as_ref()).await?;
        parse(lookup.filter_map(|value| value.session_value().cloned()))
    }

    /// The value under this name, which is then gone: of any number of callers, on any instance, exactly one gets
    /// it.
    ///
    /// L2 decides, and has acknowledged it on return; that takes two round-trips.
    /// [`Lookup::Unavailable`] says that L2 could not be asked, or that its answer was lost: then the value may be
    /// gone, and no other caller gets it. The same holds if this future is dropped. Under
    /// [`FailurePolicy::Bypass`](crate::FailurePolicy::Bypass) only this process is asked, and has only what was
    /// put under that policy; any other value is [`Lookup::Unavailable`].
    ///
    /// That a value is taken is as durable as what the store has acknowledged: a store that loses it, by a
    /// restart or a failover to a replica that is behind, can give the value again. A value that such a store
    /// has lost is not written again from memory, as tokens are; and while L2 cannot be asked, values do not
    /// move with [`move_to`](Self::move_to).
    ///
    /// # Errors
    /// [`Error::InCookies`] in a session that lives in cookies; [`Error::SignedOut`]; [`Error::InvalidValue`]
    /// where the value is no `T`: it is taken all the same; and those of [`value`](Self::value).
    pub async fn take<T: DeserializeOwned>(
        &self,
        name: impl AsRef<str>,
    ) -> Result<Lookup<T>, Error> {
        let entry = entry(name)?;
        let session = self.session()?;
        if self.is_in_cookies() {
            return Err(Error::InCookies);
        }
        let mut observed = session.observe();
        let taken = self
            .engine()
            .take(
                &session.partition,
                &entry,
                self.failure_policy(),
                &mut observed,
            )
            .await;
        session.keep(observed);
        let taken = taken?;
        if taken.is_hit() {
            session.note_use();
        }
        parse(taken)
    }
}

/// The entry of the session value of this name.
fn entry(name: impl AsRef<str>) -> Result<TokenKey, Error> {
    Ok(TokenKey::new(name.as_ref())?.session_value())
}

/// How many arrays and objects stand in one another, at most, in this JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The error of the parser quotes the text, and is left out.
fn parse<T: DeserializeOwned>(lookup: Lookup<Secret>) -> Result<Lookup<T>, Error> {
    match lookup {
        Lookup::Hit(text) => serde_json::from_str(text.expose())
            .map(Lookup::Hit)
            .map_err(|_| Error::InvalidValue),
        other => Ok(other.filter_map(|_| None)),
    }
}
