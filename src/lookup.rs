//! What the cache answers: a token or why there is none, where it came from, how safe a change is.

use crate::token::Token;

/// What the cache knows of a token.
///
/// Absent, unavailable and unopenable are different answers: only the first says that the user has
/// no such token.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Lookup<T = Token> {
    /// Here it is. It has not expired.
    Hit(T),
    /// There is no such token, or it has expired.
    Absent,
    /// L2 could not be asked, and memory does not know: try again later, do not sign the user out.
    /// Under [`FailurePolicy::Strict`](crate::FailurePolicy::Strict) reads fail instead.
    Unavailable,
    /// There is an entry in L2 which cannot be read: corrupt, foreign, of an unknown version or
    /// key. The next insert replaces it.
    Unopenable,
}

impl<T> Lookup<T> {
    /// The token, if there is one.
    pub fn hit(self) -> Option<T> {
        match self {
            Self::Hit(token) => Some(token),
            _ => None,
        }
    }

    /// Whether there is one.
    pub fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_))
    }

    /// The same answer about a reference to the token.
    pub fn as_ref(&self) -> Lookup<&T> {
        match self {
            Self::Hit(token) => Lookup::Hit(token),
            Self::Absent => Lookup::Absent,
            Self::Unavailable => Lookup::Unavailable,
            Self::Unopenable => Lookup::Unopenable,
        }
    }

    /// The same answer with what `change` makes of the token.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Lookup<U> {
        self.filter_map(|token| Some(change(token)))
    }

    /// The token, or `error` where there is none, for whatever reason.
    ///
    /// ```
    /// use tower_token_cache::Lookup;
    ///
    /// let lookup = Lookup::Hit("a token");
    /// assert_eq!(lookup.as_ref().map(|token| token.len()).ok_or("sign in"), Ok(7));
    /// assert_eq!(Lookup::<&str>::Absent.ok_or("sign in"), Err("sign in"));
    /// ```
    ///
    /// # Errors
    /// `error` for each answer but [`Hit`](Self::Hit). Where the answer to
    /// [`Unavailable`](Self::Unavailable) differs from that to [`Absent`](Self::Absent), `match`.
    pub fn ok_or<E>(self, error: E) -> Result<T, E> {
        self.hit().ok_or(error)
    }

    pub(crate) fn filter_map<U>(self, keep: impl FnOnce(T) -> Option<U>) -> Lookup<U> {
        match self {
            Self::Hit(token) => keep(token).map_or(Lookup::Absent, Lookup::Hit),
            Self::Absent => Lookup::Absent,
            Self::Unavailable => Lookup::Unavailable,
            Self::Unopenable => Lookup::Unopenable,
        }
    }
}

/// Where the answer of a read came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheLevel {
    /// Nowhere: nothing was read yet, or there is no such token.
    #[default]
    None,
    /// The memory of this process.
    L1,
    /// The L2 store.
    L2,
    /// L2 could not be asked.
    Unavailable,
}

impl CacheLevel {
    /// The value of `cache_level` in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How safe a change is.
///
/// A sign-out that is `Pending` is not over: until L2 hears of it, other instances go on with the
/// session. Answer 202 rather than 204, and say so; a handler of axum or actix-web that returns a `Durability` answers
/// with its [status](Self::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "what is pending is lost if this process ends before L2 has it"]
pub enum Durability {
    /// L2 has it.
    Stored,
    /// L2 could not take it in time; it is kept in memory and replayed until L2 does.
    Pending,
}

impl Durability {
    /// The HTTP status that tells a client of it, with nothing in the body: 204 for `Stored`, and 202 for `Pending`
    /// (RFC 9110 §15.3.3: what was asked for is not done yet).
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::Stored => http::StatusCode::NO_CONTENT,
            Self::Pending => http::StatusCode::ACCEPTED,
        }
    }
}
