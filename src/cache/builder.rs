//! The settings of a `TokenCache`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::acquisitions::Acquisitions;
use crate::cache::encryption::Encryption;
use crate::cache::l1::L1;
use crate::cache::lifetimes::Lifetimes;
use crate::cache::timeouts::Timeouts;
use crate::event::{Event, EventHook};
use crate::key::{ClientName, KeyError};
use crate::policy::{
    FailureHook, FailurePolicy, L2Failure, OnFailure, RefusedRefreshToken, WriteMode,
};
use crate::revoke::{Revoke, Revoker};
#[cfg(feature = "seal")]
use crate::seal::KeyRing;
use crate::store::{DynStore, TokenStore};
use crate::time::Clock;
#[cfg(feature = "seal")]
use crate::time::Timestamp;

/// Sets up a [`TokenCache`](crate::TokenCache).
///
/// Every setting has a default that suits a web application with a Redis nearby. Settings that belong together
/// are a group: [`L1`], [`Lifetimes`], [`Timeouts`] and [`Acquisitions`]. A group is set as a whole: what it
/// does not name has its default. With feature `serde` the settings can come from a file: `Config`.
///
/// ```
/// use std::time::Duration;
/// use tower_token_cache::{L1, Lifetimes, MemoryStore, TokenCache};
///
/// # fn main() -> Result<(), tower_token_cache::ConfigError> {
/// let cache = TokenCache::builder(MemoryStore::new())
///     .l1(L1::new().max_bytes(64 << 20))
///     .lifetimes(Lifetimes::new().sliding(Duration::from_secs(3600)))
///     .build()?;
/// # let _ = cache;
/// # Ok(())
/// # }
/// ```
#[must_use = "there is no cache until `build`"]
pub struct Builder {
    pub(crate) store: Arc<dyn DynStore>,
    pub(crate) store_type: &'static str,
    pub(crate) namespace: Box<str>,
    pub(crate) l1: L1,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) failure_policy: FailurePolicy,
    pub(crate) write_mode: WriteMode,
    pub(crate) hook: Option<FailureHook>,
    pub(crate) event_hook: Option<EventHook>,
    pub(crate) refused_refresh_token: RefusedRefreshToken,
    pub(crate) revokers: Vec<Result<Revoker, KeyError>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_pending_changes: u32,
    pub(crate) max_pending_bytes: u32,
    pub(crate) acquisitions: Acquisitions,
    pub(crate) plaintext: bool,
    pub(crate) clock: Clock,
    pub(crate) journal: Option<PathBuf>,
    pub(crate) runtime: Option<tokio::runtime::Handle>,
    /// Requests bring their partitions, as in cookies; and how old these get unless it is set.
    pub(crate) brought: Option<Duration>,
    pub(crate) encryption: Encryption,
}

impl Builder {
    pub(crate) fn new<S: TokenStore>(store: S) -> Self {
        Self {
            store: Arc::new(store),
            store_type: std::any::type_name::<S>(),
            namespace: "ttc".into(),
            l1: L1::new(),
            lifetimes: Lifetimes::new(),
            failure_policy: FailurePolicy::default(),
            write_mode: WriteMode::default(),
            hook: None,
            event_hook: None,
            refused_refresh_token: RefusedRefreshToken::default(),
            revokers: Vec::new(),
            timeouts: Timeouts::new(),
            max_pending_changes: 100_000,
            max_pending_bytes: 64 * 1024 * 1024,
            acquisitions: Acquisitions::new(),
            plaintext: false,
            clock: Clock::system(),
            journal: None,
            runtime: None,
            brought: None,
            encryption: Encryption::none(),
        }
    }

    /// Keeps this application's partitions apart from those of others in the same store: 1 to 64
    /// letters, digits, `.`, `_`, `-` and `:`. Redis keys begin with it. Defaults to `ttc`.
    pub fn namespace(mut self, namespace: impl Into<Box<str>>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Requests bring their partitions, which are named before anything can be awaited. These get so old
    /// unless [`Lifetimes::absolute`] says otherwise.
    #[cfg(feature = "cookie")]
    pub(crate) fn brought_by_requests(mut self, max_age: Duration) -> Self {
        self.brought = Some(max_age);
        self.lifetimes = self.lifetimes.with_default_absolute(self.brought);
        self
    }

    /// The in-memory cache. Defaults to [`L1::new`]: on, 500 MiB.
    pub fn l1(mut self, l1: L1) -> Self {
        self.l1 = l1;
        self
    }

    /// How long partitions live. Defaults to [`Lifetimes::new`]: 14 days after the last change.
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes.with_default_absolute(self.brought);
        self
    }

    /// Confirms that tokens are meant to be stored in the clear: a person who can read L2, its backups or its
    /// disk has them. Without this call, and without a `key_ring` (feature `seal`), a cache over a store that
    /// [leaves the process](TokenStore::is_persistent) logs a warning, once.
    pub fn plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// What requests do when L2 fails. Defaults to [`FailurePolicy::Degrade`].
    pub fn failure_policy(mut self, policy: FailurePolicy) -> Self {
        self.failure_policy = policy;
        self
    }

    /// When changes reach L2. Defaults to [`WriteMode::AfterResponse`].
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// Called after each failed attempt at an L2 operation: retry, degrade, fail, or follow the request's
    /// policy. It runs on the cache's [runtime](Self::runtime) while requests wait, so it must not block. No
    /// hook by default.
    pub fn on_l2_failure(
        mut self,
        hook: impl Fn(&L2Failure<'_>) -> OnFailure + Send + Sync + 'static,
    ) -> Self {
        self.hook = Some(FailureHook(Arc::new(hook)));
        self
    }

    /// Called with what happens to sessions through this instance: for audit logs and alarms. It runs on a thread of
    /// its own, one event after the other, and later than what has happened: a hook that blocks or panics holds up
    /// nothing else. 1,024 events wait for it; beyond that they are dropped, and counted as
    /// [`Stats::dropped_events`](crate::Stats::dropped_events). A shutdown waits until it was told of all. No hook by
    /// default.
    ///
    /// ```
    /// use tower_token_cache::{Event, EventKind, MemoryStore, TokenCache};
    ///
    /// # fn main() -> Result<(), tower_token_cache::ConfigError> {
    /// let cache = TokenCache::builder(MemoryStore::new())
    ///     .on_event(|event: &Event| match &event.kind {
    ///         EventKind::SignedOut(by) => println!("{:?} was signed out by {by:?}", event.partition),
    ///         kind => println!("{:?}: {kind:?}", event.partition),
    ///     })
    ///     .build()?;
    /// # let _ = cache;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_event(mut self, hook: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.event_hook = Some(EventHook(Arc::new(hook)));
        self
    }

    /// What becomes of a session whose refresh token the provider has refused. Defaults to
    /// [`RefusedRefreshToken::Keep`].
    pub fn refused_refresh_token(mut self, then: RefusedRefreshToken) -> Self {
        self.refused_refresh_token = then;
        self
    }

    /// Has the refresh tokens of sessions that are signed out revoked at their provider: of this
    /// [client](crate::Tokens::client), or with `None` of the default one. Call it once for each. Off by default: what
    /// a provider ends with a token differs.
    ///
    /// ```
    /// # use tower_token_cache::{ConfigError, MemoryStore, Revoke, TokenCache};
    /// # fn build(google: impl Revoke, ours: impl Revoke) -> Result<TokenCache, ConfigError> {
    /// let builder = TokenCache::builder(MemoryStore::new()).revoke_with("google", google);
    /// builder.revoke_with(None, ours).build()
    /// # }
    /// ```
    ///
    /// It happens once L2 has the sign-out, and delays none: up to five attempts in some 15 seconds, 16 calls at a time.
    /// [`shutdown`](crate::TokenCache::shutdown) waits for it. [`Stats::revocations`](crate::Stats::revocations) and
    /// its neighbours count; a token that could not be revoked is logged, without its text.
    ///
    /// | sessions that | |
    /// |---|---|
    /// | are [signed out](crate::Tokens::sign_out) | The refresh tokens that memory and L2 have are revoked. |
    /// | end with their [user](crate::TokenCache::sign_out_user), or by the provider | The same, read from L2 in the background: the 1,000 that are [listed](crate::TokenCache::sessions_of) at once, others when they are next used. |
    /// | end by [`sign_out_all`](crate::TokenCache::sign_out_all) | Nothing is revoked: their records cannot be found any more. |
    /// | are replaced by [`sign_in`](crate::Tokens::sign_in), or moved | Nothing is revoked. Many providers end all that a user has granted to an application with any of its refresh tokens, the new session's too. |
    /// | expire | Nothing is revoked. |
    ///
    /// For the same reason a sign-out on one device may end access on the user's others, at some providers.
    ///
    /// A process that dies in between revokes nothing, nor does a sign-out that only the [journal](Self::journal) has.
    /// A refresh token that is being redeemed at that moment is revoked as it was before; providers that rotate end its
    /// successor with it (RFC 9700 §4.14.2).
    pub fn revoke_with<'a>(
        mut self,
        client: impl Into<Option<&'a str>>,
        provider: impl Revoke,
    ) -> Self {
        let client = client.into().map(ClientName::new).transpose();
        let provider = Arc::new(provider);
        let revoker = client.map(|client| Revoker { client, provider });
        self.revokers.push(revoker);
        self
    }

    /// How long L2 may take. Defaults to [`Timeouts::new`]: 250 ms for one attempt, 1 s in all.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How many changes may wait for L2. Defaults to 100,000. Beyond that a change waits for room, up to
    /// [`Timeouts::operation`], and is then committed before the call returns.
    pub fn max_pending_changes(mut self, changes: u32) -> Self {
        self.max_pending_changes = changes;
        self
    }

    /// How many bytes of changes may wait for L2. Defaults to 64 MiB: some 9,000 users' worth.
    pub fn max_pending_bytes(mut self, bytes: u32) -> Self {
        self.max_pending_bytes = bytes;
        self
    }

    /// When tokens are acquired, and with how many calls to the provider. Defaults to [`Acquisitions::new`]:
    /// 64 calls at a time, a minute each.
    pub fn acquisitions(mut self, acquisitions: Acquisitions) -> Self {
        self.acquisitions = acquisitions;
        self
    }

    /// The clock for the expiry of tokens and for everything else that takes time. Defaults to the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Keeps sign-outs that L2 has not acknowledged in this file, so that they outlive the process. Before
    /// [`sign_out`](crate::Tokens::sign_out) or [`sign_out_user`](crate::TokenCache::sign_out_user) answers
    /// [`Durability::Pending`](crate::Durability::Pending), the file has the sign-out durably; the next
    /// process that is built with the same path sends it to L2 before it serves the session. Off by default:
    /// then a process that ends before L2 is back loses its pending sign-outs, and the sessions go on.
    ///
    /// The file (mode 0600) holds digests of partitions and users, and times, but no keys and no tokens. It
    /// needs a folder that outlives the process, on a local disk. A second file beside it, with `.lock` at
    /// the end, makes sure that it serves one process at a time. 100,000 sign-outs fit; one that does not
    /// fit, or cannot be written within a second, is an error of `sign_out`.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// The tokio runtime that the cache works on: its calls to the store and to the key repository, and the
    /// store's feed. Defaults to one of the cache's own, on a thread named `token-cache` that ends with the
    /// last clone: so a handler that blocks its worker, or a runtime that ends, delays no other request. A
    /// runtime that is set here needs timers and I/O enabled, and has to live as long as the cache; whatever
    /// blocks it delays every miss and every write. Set it for tests with paused time, or where one thread
    /// has to be enough.
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }
}

#[cfg(feature = "seal")]
impl Builder {
    /// Seals everything that goes to L2 with the keys of this ring, and accepts from L2 only what opens with
    /// them: see [`seal`](crate::seal). Off by default, as keys have to come from somewhere.
    ///
    /// The ring is kept up to date for as long as it lives.
    pub fn key_ring(mut self, ring: KeyRing) -> Self {
        self.encryption.ring = Some(ring);
        self
    }

    /// [`build`](Self::build) fails without a [`key_ring`](Self::key_ring): for code where the ring
    /// depends on configuration. Off by default.
    pub fn require_encryption(mut self) -> Self {
        self.encryption.required = true;
        self
    }

    /// Until then the [`key_ring`](Self::key_ring) is not used, and everything is as without it. For a fleet
    /// whose instances are replaced one by one: an instance without a ring could not read what another has
    /// sealed. Choose a time when all instances have the ring, and a quiet one: a token that is being
    /// refreshed at that moment may be lost. Use it together with
    /// [`accept_plaintext_until`](Self::accept_plaintext_until). At once by default.
    pub fn seal_from(mut self, time: Timestamp) -> Self {
        self.encryption.from = Some(time);
        self
    }

    /// Until then, entries that are not sealed are still accepted, counted as
    /// [`Stats::accepted_plaintext`](crate::Stats::accepted_plaintext), and sealed: for a store that was in
    /// use before there was a [`key_ring`](Self::key_ring). Until then too, a partition that is not found
    /// costs a second read. Choose a time when every partition will have been used or have ended; until then,
    /// a person who can write to L2 can plant tokens. Never by default.
    pub fn accept_plaintext_until(mut self, time: Timestamp) -> Self {
        self.encryption.plaintext_until = Some(time);
        self
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("namespace", &self.namespace)
            .field("l1", &self.l1)
            .field("lifetimes", &self.lifetimes)
            .field("failure_policy", &self.failure_policy)
            .field("write_mode", &self.write_mode)
            .finish_non_exhaustive()
    }
}
