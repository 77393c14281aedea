//! The settings of a `TokenCache`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "seal")]
use crate::cache::encryption::Encryption;
use crate::cache::l1::L1;
use crate::engine::acquire::outcome::AcquireSettings;
use crate::policy::{FailureHook, FailurePolicy, L2Failure, OnFailure, WriteMode};
#[cfg(feature = "seal")]
use crate::seal::KeyRing;
use crate::store::{DynStore, Lifetime, TokenStore};
use crate::time::Clock;
#[cfg(feature = "seal")]
use crate::time::Timestamp;

/// Sets up a [`TokenCache`](crate::TokenCache).
///
/// Every setting has a default that suits a web application with a Redis nearby.
pub struct Builder {
    pub(crate) store: Arc<dyn DynStore>,
    pub(crate) store_type: &'static str,
    pub(crate) namespace: Box<str>,
    pub(crate) l1: L1,
    pub(crate) lifetime: Lifetime,
    pub(crate) negative_ttl: Duration,
    pub(crate) failure_policy: FailurePolicy,
    pub(crate) write_mode: WriteMode,
    pub(crate) hook: Option<FailureHook>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) max_pending_changes: u32,
    pub(crate) max_pending_bytes: u32,
    pub(crate) max_acquisitions: u32,
    pub(crate) terms: AcquireSettings,
    pub(crate) plaintext: bool,
    pub(crate) clock: Clock,
    pub(crate) journal: Option<PathBuf>,
    pub(crate) runtime: Option<tokio::runtime::Handle>,
    /// Requests bring their partitions, as in cookies.
    pub(crate) brought: bool,
    #[cfg(feature = "seal")]
    pub(crate) encryption: Encryption,
}

impl Builder {
    pub(crate) fn new<S: TokenStore>(store: S) -> Self {
        Self {
            store: Arc::new(store),
            store_type: std::any::type_name::<S>(),
            namespace: "ttc".into(),
            l1: L1::new(),
            lifetime: Lifetime {
                since_write: Some(Duration::from_secs(14 * 24 * 3600)),
                ..Lifetime::default()
            },
            negative_ttl: Duration::from_secs(1),
            failure_policy: FailurePolicy::default(),
            write_mode: WriteMode::default(),
            hook: None,
            attempt_timeout: Duration::from_millis(250),
            operation_timeout: Duration::from_secs(1),
            max_pending_changes: 100_000,
            max_pending_bytes: 64 * 1024 * 1024,
            max_acquisitions: 64,
            terms: AcquireSettings {
                refresh_before: Duration::from_secs(300),
                lease_ttl: Duration::from_secs(30),
                timeout: Duration::from_secs(60),
            },
            plaintext: false,
            clock: Clock::system(),
            journal: None,
            runtime: None,
            brought: false,
            #[cfg(feature = "seal")]
            encryption: Encryption::default(),
        }
    }

    /// Keeps this application's partitions apart from those of others in the same store: 1 to 64
    /// letters, digits, `.`, `_`, `-` and `:`. Redis keys begin with it. Defaults to `ttc`.
    pub fn namespace(mut self, namespace: impl Into<Box<str>>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Requests bring their partitions, which are named before anything can be awaited.
    #[cfg(feature = "cookie")]
    pub(crate) fn brought_by_requests(mut self) -> Self {
        self.brought = true;
        self
    }

    /// The in-memory cache. Defaults to [`L1::new`]: on, 500 MiB.
    pub fn l1(mut self, l1: L1) -> Self {
        self.l1 = l1;
        self
    }

    /// How long a partition lives since its last commit; `None` is without end. Defaults to 14
    /// days, as in the system this crate follows: a user who comes back weekly stays signed in.
    pub fn expire_after_write(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetime.since_write = limit.into();
        self
    }

    /// How long a partition lives since it was last used; `None` is without end. Touches are
    /// sent to L2 in the background, at most ten per lifetime. Off by default.
    pub fn sliding_expiration(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetime.sliding = limit.into();
        self
    }

    /// How long a partition lives since it was created, whatever happens to it; `None` is without
    /// end. Off by default.
    pub fn absolute_expiration(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetime.since_creation = limit.into();
        self
    }

    /// How long "there is no such token" is believed without asking L2 again. Defaults to 1 s:
    /// enough against bursts, short enough for a sign-in on another instance.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
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

    /// How long one attempt at an L2 operation may take. Defaults to 250 ms: hundreds of times what a healthy
    /// Redis needs, and a pause that a user hardly notices. It is measured in five steps that are waited for
    /// one by one, so that an overloaded process does not take its own delay for the store's.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// How long a call waits for L2, all attempts included: every call of [`Tokens`](crate::Tokens) and
    /// [`TokenCache`](crate::TokenCache) ends some 50 ms after it at the latest, also one of several steps.
    /// Such a call goes on in the background, and its answer is that the outcome is not known. An acquisition
    /// takes longer: its [call](Self::acquire_timeout), and before that another instance's
    /// [lease](Self::lease_ttl). Defaults to 1 s.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How many changes may wait for L2. Defaults to 100,000. Beyond that a change waits for room, up to the
    /// operation timeout, and is then committed before the call returns.
    pub fn max_pending_changes(mut self, changes: u32) -> Self {
        self.max_pending_changes = changes;
        self
    }

    /// How many bytes of changes may wait for L2. Defaults to 64 MiB: some 9,000 users' worth.
    pub fn max_pending_bytes(mut self, bytes: u32) -> Self {
        self.max_pending_bytes = bytes;
        self
    }

    /// How long before its expiry a token is replaced: it is served at once, and its successor is acquired in
    /// the background, by one instance. A jitter of ±10 %, fixed per token and instance, spreads the
    /// instances and users. A refresh time that the provider gives has precedence; a token with a short
    /// lifetime is replaced in its last fifth. Defaults to 5 minutes, in which an outage of the provider goes
    /// unnoticed.
    pub fn refresh_before(mut self, time: Duration) -> Self {
        self.terms.refresh_before = time;
        self
    }

    /// How long an acquisition may wait for its call to the provider, and how long that call may then take;
    /// the error of both is [`TimedOut`](crate::AcquireErrorKind::TimedOut). The wait does not shorten the
    /// call: a call that has begun may have spent the refresh token. While another instance has the lease,
    /// the wait may take up to [`lease_ttl`](Self::lease_ttl) longer, as that instance may have died.
    /// Defaults to 60 s: a provider that answers later has lost the browser. Keep the timeout of your own
    /// HTTP client below it.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = timeout;
        self
    }

    /// How long a lease, the right to acquire a token, outlives an instance that dies with it. It is renewed
    /// every third of that time. Defaults to 30 s: shorter pauses of a process go unnoticed.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.terms.lease_ttl = ttl;
        self
    }

    /// How many calls to the provider this instance makes at a time. Defaults to 64: some hundreds a second,
    /// below what providers allow.
    ///
    /// A call counts only while it runs. Calls that a request waits for go first. At most a quarter of the
    /// slots goes to refreshes ahead of need, and at most a quarter to one partition, unless it is an
    /// [application's](crate::PartitionKey::application). Partitions take turns. A call whose waiting
    /// requests have all given up before it began is not made.
    ///
    /// A call that has taken a second no longer counts, until there are seven times as many such calls as
    /// this number: a provider that hangs does not stop the users of another one. So at most eight times as
    /// many calls are open, 512 by default.
    ///
    /// Up to 16,384 acquisitions wait or are under way, of these 4,096 ahead of need and 1,024 of one
    /// partition (some 4 KB each, besides the requests that wait for them). Beyond that the answer is
    /// [`Error::Overloaded`](crate::Error::Overloaded) at once.
    pub fn max_acquisitions(mut self, calls: u32) -> Self {
        self.max_acquisitions = calls;
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
            .field("lifetime", &self.lifetime)
            .field("failure_policy", &self.failure_policy)
            .field("write_mode", &self.write_mode)
            .finish_non_exhaustive()
    }
}
