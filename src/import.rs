//! Tokens that sessions of tower-sessions or actix-session have in Redis become tokens of a cache.
//!
//! An application that has kept tokens in its sessions goes over to a [`TokenCache`] without signing anybody out:
//!
//! ```no_run
//! use tower_token_cache::import::{Found, Import};
//! use tower_token_cache::{PartitionKey, RedisStore, TokenCache, TokenSet};
//!
//! # async fn import(cache: &TokenCache) -> Result<(), tower_token_cache::Error> {
//! let redis = RedisStore::connect("redis://127.0.0.1").await.expect("a URL");
//! let import = Import::tower_sessions(&redis);
//! let report = import.into_cache(cache, |session| {
//!     let tokens: TokenSet = session.get("tokens")?;
//!     Some(Found::new(PartitionKey::session(session.id()).ok()?, "graph", tokens))
//! });
//! println!("{:?}", report.await?);
//! # Ok(())
//! # }
//! ```
//!
//! # Ids and cookies
//!
//! Users keep their cookie where its value is the id of the session:
//!
//! - **tower-sessions**: the cookie is the id, 128 bits in base64url, unless it is signed or encrypted.
//!   `key::cookie("id")` finds the same partition as `PartitionKey::session(session.id())`.
//! - **actix-session**: the cookie is signed or encrypted, the session key of 64 letters is within. It is not known outside
//!   of that crate: take as the partition what is known in both, as the user that is signed in.
//!
//! # How often
//!
//! Run it when instances of the new version start to serve, and again when those of the old one have ended. What a
//! partition has is never replaced. Let a sign-out end the old session, too, as `Session::flush` and `Session::purge` do:
//! a later run would bring it back.
//!
//! It needs the rights `+scan +get +pttl` on the keys, and one server: a cluster is refused.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::cache::TokenCache;
use crate::error::{Error, StoreError, StoreErrorKind};
use crate::key::PartitionKey;
use crate::policy::FailurePolicy;
use crate::store::RedisStore;
use crate::token::TokenSet;

/// A session of another crate. `Debug` shows none of it.
pub struct Session {
    id: String,
    data: HashMap<String, Value>,
    remaining: Option<Duration>,
}

impl Session {
    /// The key of its record, without the [prefix](Import::prefix).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the application has put into it under this name; `None` where that is nothing, or something else.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.data.get(name)?).ok()
    }

    /// How long it lives; `None` is without end. What is imported lives as long as the cache's
    /// [`Lifetimes`](crate::Lifetimes) say.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What was found in a session. `Debug` shows neither a token nor a user.
#[derive(Clone)]
pub struct Found {
    partition: PartitionKey,
    tokens: Vec<(String, TokenSet)>,
    user: Option<String>,
}

impl Found {
    /// These tokens, which the partition is to have under this name.
    pub fn new(partition: PartitionKey, name: impl Into<String>, tokens: TokenSet) -> Self {
        Self {
            partition,
            tokens: vec![(name.into(), tokens)],
            user: None,
        }
    }

    /// And these.
    pub fn and(mut self, name: impl Into<String>, tokens: TokenSet) -> Self {
        self.tokens.push((name.into(), tokens));
        self
    }

    /// Links the session to a user, for [`sign_out_user`](TokenCache::sign_out_user). Defaults to none.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tokens.iter().map(|(name, _)| name);
        f.debug_struct("Found")
            .field("tokens", &names.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// What became of the sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Those whose tokens are in the store now.
    pub imported: u64,
    /// Those whose partition had tokens before.
    pub present: u64,
    /// Those in which nothing was found.
    pub without_tokens: u64,
    /// Strings that are no record of such a session.
    pub foreign: u64,
    /// Those that the cache does not take: too large, with a name that no token can have, or signed out just then. A line in
    /// the log says why.
    pub refused: u64,
}

/// How records are written.
#[derive(Clone, Copy)]
enum Form {
    TowerSessions,
    ActixSession,
}

/// Sessions in Redis that are to be imported.
#[must_use = "nothing is read before `into_cache`"]
pub struct Import {
    redis: RedisStore,
    form: Form,
    prefix: String,
}

impl Import {
    /// Sessions that `tower-sessions-redis-store` has in this database: MessagePack, under the id. Tested with
    /// tower-sessions 0.14.
    pub fn tower_sessions(redis: &RedisStore) -> Self {
        Self::new(redis, Form::TowerSessions)
    }

    /// Sessions that the `RedisSessionStore` of actix-session has in this database: JSON, under the session key.
    /// Tested with records as version 0.11 writes them.
    pub fn actix_session(redis: &RedisStore) -> Self {
        Self::new(redis, Form::ActixSession)
    }

    fn new(redis: &RedisStore, form: Form) -> Self {
        Self {
            redis: redis.clone(),
            form,
            prefix: String::new(),
        }
    }

    /// What the keys begin with, as by `cache_keygen` of actix-session. Defaults to nothing.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Reads all sessions, and writes the tokens that `find` finds in them where the partition has nothing. A session that is
    /// found twice is imported once. One that cannot be imported is counted, and holds up none of the others. It looks before it
    /// writes: tokens of a sign-in that another instance stores in between are replaced where they have the same name.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when either store fails, [`Error::Overloaded`] and [`Error::ShutDown`] of the cache. What was
    /// imported before stays; run it again.
    pub async fn into_cache(
        self,
        cache: &TokenCache,
        find: impl Fn(&Session) -> Option<Found>,
    ) -> Result<Report, Error> {
        if self.redis.is_cluster() {
            let refused = StoreError::new(StoreErrorKind::Refused);
            return Err(Error::Unavailable(refused));
        }
        let mut report = Report::default();
        let mut cursor = Some(b"0".to_vec());
        while let Some(at) = cursor {
            let page = self.redis.foreign(&self.prefix, &at).await;
            let (records, next) = page.map_err(Error::Unavailable)?;
            for record in records {
                let Some(data) = self.form.read(&record.key, &record.value) else {
                    report.foreign += 1;
                    continue;
                };
                let session = Session {
                    id: record.key,
                    data,
                    remaining: record.remaining,
                };
                match find(&session) {
                    None => report.without_tokens += 1,
                    Some(found) => match write(cache, found).await {
                        Ok(true) => report.imported += 1,
                        Ok(false) => report.present += 1,
                        Err(error) if is_of_one(&error) => {
                            report.refused += 1;
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(error, "a session cannot be imported");
                        }
                        Err(error) => return Err(error),
                    },
                }
            }
            cursor = next;
        }
        Ok(report)
    }
}

/// Whether other sessions may fare better.
fn is_of_one(error: &Error) -> bool {
    matches!(
        error,
        Error::TooLarge { .. } | Error::InvalidKey(_) | Error::SignedOut
    )
}

/// Whether the partition had nothing.
async fn write(cache: &TokenCache, found: Found) -> Result<bool, Error> {
    let tokens = cache.tokens(found.partition);
    // An import that is not in the store when it returns is none.
    tokens.set_failure_policy(FailurePolicy::Strict);
    if !tokens.keys().await?.is_empty() || tokens.refresh_token().await?.is_hit() {
        return Ok(false);
    }
    for (name, set) in found.tokens {
        tokens.insert(name, set).await?;
    }
    if let Some(user) = &found.user {
        tokens.link_user(user).await?;
    }
    let _ = tokens.commit().await?;
    Ok(true)
}

impl Form {
    fn read(self, key: &str, value: &[u8]) -> Option<HashMap<String, Value>> {
        match self {
            Self::TowerSessions => {
                // Its id, its data, its end: the key and the server say the same.
                let record: (IgnoredAny, HashMap<String, Value>, IgnoredAny) =
                    rmp_serde::from_slice(value).ok()?;
                // 128 bits.
                (key.len() == 22).then_some(record.1)
            }
            Self::ActixSession => {
                let record: HashMap<String, String> = serde_json::from_slice(value).ok()?;
                let data = record.into_iter();
                data.map(|(name, value)| Some((name, serde_json::from_str(&value).ok()?)))
                    .collect()
            }
        }
    }
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
