//! `Tokens`: the request-scoped handle.

mod acquire;
mod change;
mod client;
mod head;
mod layer;
mod request;
#[cfg(test)]
mod request_tests;
mod sessions;
mod sign_in;
mod values;
mod whole_session;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::time::Instant;

pub(crate) use self::change::MAX_TOKEN_SET;
use self::head::Head;
pub(crate) use self::request::{CommitsBeforeHead, RequestGuard};
pub(crate) use self::sessions::Session;
use self::sessions::Sessions;
use crate::acquire::Metadata;
use crate::codec::Value;
use crate::engine::core::Engine;
use crate::error::Error;
use crate::key::{ClientName, PartitionKey, TokenKey, id_token_of, refresh_token_of};
use crate::lookup::{CacheLevel, Durability, Lookup};
use crate::policy::{FailurePolicy, WriteMode};
use crate::secret::Secret;
use crate::session::Issue;
use crate::time::Timestamp;
use crate::token::Token;

/// The tokens of one request's partition.
///
/// The [layer](crate::TokenCacheLayer) puts one into each request's extensions; axum and actix-web
/// handlers take it as an argument. It is lazy: nothing is read before the first use. Clones share
/// everything, can go into a streaming body or a spawned task, and may outlive the request:
/// changes made after it are queued for L2 as they are made.
#[derive(Clone)]
pub struct Tokens {
    handle: Arc<Handle>,
    /// Whose tokens these are; `None` for the default client.
    client: Option<ClientName>,
}

struct Handle {
    engine: Arc<Engine>,
    sessions: Sessions,
    failure_policy: AtomicU8,
    write_mode: AtomicU8,
    last_read: AtomicU8,
    /// The head of the response is ready, or there never was a request: a change is queued at once.
    ended: AtomicBool,
    head: Head,
    /// Where the layer issues session ids.
    issue: Option<Box<Issue>>,
    /// The request should have brought a bearer token.
    by_bearer: bool,
}

impl Tokens {
    #[inline]
    pub(crate) fn new(
        engine: Arc<Engine>,
        partition: Option<PartitionKey>,
        failure_policy: FailurePolicy,
        write_mode: WriteMode,
    ) -> Self {
        let handle = Handle {
            engine,
            sessions: Sessions::new(partition.map(Session::new)),
            failure_policy: AtomicU8::new(failure_policy as u8),
            write_mode: AtomicU8::new(write_mode as u8),
            last_read: AtomicU8::new(CacheLevel::None as u8),
            ended: AtomicBool::new(false),
            head: Head::default(),
            issue: None,
            by_bearer: false,
        };
        Self {
            handle: Arc::new(handle),
            client: None,
        }
    }

    /// A handle that belongs to no request.
    pub(crate) fn detached(engine: Arc<Engine>, partition: PartitionKey) -> Self {
        let (policy, mode) = (engine.failure_policy, engine.write_mode);
        let tokens = Self::new(engine, Some(partition), policy, mode);
        tokens.handle.ended.store(true, Ordering::Release);
        tokens
    }

    /// The token under this key: a name, or a [`TokenKey`]. Never one that has expired.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for a text that is no key; [`Error::NoPartition`] for an anonymous
    /// request; [`Error::Unavailable`] under [`FailurePolicy::Strict`].
    pub async fn get<K>(&self, key: K) -> Result<Lookup, Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        let key = key.try_into()?;
        let lookup = self.read(self.entry(&key).as_ref().as_ref()).await?;
        Ok(lookup.filter_map(|value| match value {
            Value::Token(token) => Some(token),
            _ => None,
        }))
    }

    /// The refresh token.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn refresh_token(&self) -> Result<Lookup<Secret>, Error> {
        self.secret(refresh_token_of(self.client_name())).await
    }

    /// The id token.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn id_token(&self) -> Result<Lookup<Secret>, Error> {
        self.secret(id_token_of(self.client_name())).await
    }

    /// Whether there is a token under this key that has not expired.
    ///
    /// # Errors
    /// As for [`get`](Self::get), and [`Error::Unavailable`] when nobody knows.
    pub async fn contains<K>(&self, key: K) -> Result<bool, Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        match self.get(key).await? {
            Lookup::Hit(_) => Ok(true),
            Lookup::Absent | Lookup::Unopenable => Ok(false),
            Lookup::Unavailable => Err(Error::unavailable()),
        }
    }

    /// The keys of the tokens that have not expired, sorted.
    ///
    /// # Errors
    /// As for [`contains`](Self::contains).
    pub async fn keys(&self) -> Result<Vec<TokenKey>, Error> {
        let session = self.session()?;
        let mut observed = session.observe();
        let keys = self
            .handle
            .engine
            .keys(
                &session.partition,
                self.client_name(),
                self.failure_policy(),
                &mut observed,
            )
            .await;
        session.keep(observed);
        let keys = keys?.ok_or_else(Error::unavailable)?;
        if !keys.is_empty() {
            session.note_use();
        }
        Ok(keys)
    }

    /// The token under this key with the metadata of the read.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_with_metadata<K>(&self, key: K) -> Result<(Lookup, Metadata), Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        let started = Instant::now();
        let lookup = self.get(key).await?;
        let duration_total = started.elapsed();
        let token = match &lookup {
            Lookup::Hit(token) => Some(token),
            _ => None,
        };
        let metadata = Metadata {
            duration_total,
            duration_in_cache: duration_total,
            cache_level: self.last_read(),
            expires_at: token.and_then(Token::expires_at),
            refresh_at: token.and_then(|token| self.handle.engine.refresh_at(token)),
            ..Metadata::default()
        };
        self.handle.engine.counters.read(&lookup, &metadata);
        Ok((lookup, metadata))
    }

    /// Writes the partition's pending changes to L2 now.
    ///
    /// # Errors
    /// [`Error::NoPartition`]; [`Error::SignedOut`] when a sign-out here or on another instance has
    /// ended what this handle has changed before L2 took it; and [`Error::Unavailable`] under
    /// [`FailurePolicy::Strict`]: the changes are kept and replayed all the same.
    pub async fn commit(&self) -> Result<Durability, Error> {
        let (engine, session) = (&self.handle.engine, self.session()?);
        let ended = engine.commit(&session.partition).await;
        let observed = session.observe().filter(|_| session.is_changed());
        if observed.is_some_and(|observed| engine.is_over(&session.partition, &observed, &ended)) {
            return Err(Error::SignedOut);
        }
        session.note_use();
        engine.finish(self.failure_policy(), ended)
    }

    /// Reads the partition from L2 again, past L1. `false` where L2 could not be asked: memory stays as it is. Under
    /// [`Bypass`](FailurePolicy::Bypass) nothing is asked, and it is `true`.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn reload(&self) -> Result<bool, Error> {
        self.handle
            .engine
            .reload(&self.session()?.partition, self.failure_policy())
            .await
    }

    /// Where the answer of this handle's last read came from.
    pub fn last_read(&self) -> CacheLevel {
        match self.handle.last_read.load(Ordering::Relaxed) {
            level if level == CacheLevel::L1 as u8 => CacheLevel::L1,
            level if level == CacheLevel::L2 as u8 => CacheLevel::L2,
            level if level == CacheLevel::Unavailable as u8 => CacheLevel::Unavailable,
            _ => CacheLevel::None,
        }
    }

    /// Whether the request carries no partition key. Where the layer [issues](crate::session) session ids, a sign-in
    /// changes that, and so does a sign-out.
    pub fn is_anonymous(&self) -> bool {
        self.handle.sessions.latest().is_none()
    }

    /// What this request does when L2 fails.
    pub fn failure_policy(&self) -> FailurePolicy {
        match self.handle.failure_policy.load(Ordering::Relaxed) {
            policy if policy == FailurePolicy::Strict as u8 => FailurePolicy::Strict,
            policy if policy == FailurePolicy::Bypass as u8 => FailurePolicy::Bypass,
            _ => FailurePolicy::Degrade,
        }
    }

    /// Chooses what this request does from now on when L2 fails.
    pub fn set_failure_policy(&self, policy: FailurePolicy) {
        self.handle
            .failure_policy
            .store(policy as u8, Ordering::Relaxed);
    }

    /// Chooses when this request's changes reach L2.
    pub fn set_write_mode(&self, mode: WriteMode) {
        self.handle.write_mode.store(mode as u8, Ordering::Relaxed);
    }

    async fn read(&self, name: &str) -> Result<Lookup<Value>, Error> {
        let session = self.session()?;
        if let Some((value, _)) = self.hit(session, name) {
            return Ok(Lookup::Hit(value));
        }
        // On the heap, so that the future of a hit is small.
        Box::pin(self.read_further(session, name)).await
    }

    /// The value if it can be served from memory without asking L2, and the time.
    fn hit(&self, session: &Session, name: &str) -> Option<(Value, Timestamp)> {
        let policy = self.failure_policy();
        let mut observed = session.lock_observed();
        let engine = &self.handle.engine;
        let hit = engine.hit(&session.partition, name, policy, &mut observed)?;
        // The handle remembers that this session exists.
        session.note_use();
        self.read_from(CacheLevel::L1);
        Some(hit)
    }

    /// [`read`](Self::read) where L1 alone is not enough.
    async fn read_further(&self, session: &Session, name: &str) -> Result<Lookup<Value>, Error> {
        let policy = self.failure_policy();
        let mut observed = session.observe();
        let answer = self
            .handle
            .engine
            .read(&session.partition, name, policy, &mut observed)
            .await;
        session.keep(observed);
        let (lookup, level) = answer.inspect_err(|_| self.read_from(CacheLevel::Unavailable))?;
        if lookup.is_hit() {
            session.note_use();
        }
        self.read_from(level);
        Ok(lookup)
    }

    /// What [`hit`](Self::hit) has, if it is a token.
    pub(crate) fn token_in_l1(&self, key: &TokenKey) -> Option<(Token, Timestamp)> {
        let session = self.handle.sessions.latest()?;
        match self.hit(session, self.entry(key).as_ref().as_ref())? {
            (Value::Token(token), now) => Some((token, now)),
            _ => None,
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.handle.engine
    }

    pub(crate) fn read_from(&self, level: CacheLevel) {
        self.handle.last_read.store(level as u8, Ordering::Relaxed);
    }

    async fn secret(&self, entry: TokenKey) -> Result<Lookup<Secret>, Error> {
        let lookup = self.read(entry.as_ref()).await?;
        Ok(lookup.filter_map(|value| value.as_secret().cloned()))
    }

    /// The session now. An operation works on one session from its beginning to its end, even if another takes
    /// its place meanwhile.
    pub(crate) fn session(&self) -> Result<&Session, Error> {
        self.handle.sessions.latest().ok_or(Error::NoPartition)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("anonymous", &self.is_anonymous())
            .field("client", &self.client)
            .field("failure_policy", &self.failure_policy())
            .field("last_read", &self.last_read())
            .finish_non_exhaustive()
    }
}
