//! The settings of a `TokenCache`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acquire::{Flights, Terms};
use super::budget::Budget;
use super::coherence::{Coherence, Epoch};
use super::confirm::Confirmations;
#[cfg(feature = "seal")]
use super::encryption::Encryption;
use super::l1::L1;
use super::l2::L2;
use super::partition::Rules;
use super::partitions::Partitions;
use super::protection::Protection;
use super::queue::Queue;
use super::revocation::Prefix;
use super::user_sign_outs::UserSignOuts;
use super::users::Users;
use super::{Engine, TokenCache};
use crate::backplane::{self, Backplane};
use crate::error::ConfigError;
use crate::policy::{FailureHook, FailurePolicy, L2Failure, OnFailure, WriteMode};
use crate::store::{Lifetime, TokenStore};
use crate::telemetry::Counters;
use crate::time::Clock;

/// Sets up a [`TokenCache`].
///
/// Every setting has a default that suits a web application with a Redis nearby.
pub struct Builder {
    store: Arc<dyn TokenStore>,
    namespace: Box<str>,
    l1: L1,
    lifetime: Lifetime,
    negative_ttl: Duration,
    failure_policy: FailurePolicy,
    write_mode: WriteMode,
    hook: Option<FailureHook>,
    backplane: Option<Arc<dyn Backplane>>,
    soft_timeout: Duration,
    hard_timeout: Duration,
    max_pending_changes: u32,
    max_pending_bytes: u32,
    max_acquisitions: u32,
    terms: Terms,
    clock: Clock,
    runtime: Option<tokio::runtime::Handle>,
    /// Requests bring their partitions.
    brought: bool,
    #[cfg(feature = "seal")]
    pub(super) encryption: Encryption,
}

impl Builder {
    pub(super) fn new(store: Arc<dyn TokenStore>) -> Self {
        Self {
            store,
            namespace: "ttc".into(),
            l1: L1::new(),
            lifetime: Lifetime {
                absolute: Some(Duration::from_secs(14 * 24 * 3600)),
                ..Lifetime::default()
            },
            negative_ttl: Duration::from_secs(1),
            failure_policy: FailurePolicy::default(),
            write_mode: WriteMode::default(),
            hook: None,
            backplane: None,
            soft_timeout: Duration::from_millis(250),
            hard_timeout: Duration::from_secs(1),
            max_pending_changes: 100_000,
            max_pending_bytes: 64 * 1024 * 1024,
            max_acquisitions: 64,
            terms: Terms {
                refresh_before: Duration::from_secs(300),
                lease_ttl: Duration::from_secs(30),
                timeout: Duration::from_secs(60),
            },
            clock: Clock::system(),
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

    /// The store has what requests bring, which is named before anything can be awaited.
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
    pub fn absolute_expiration(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetime.absolute = limit.into();
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
    pub fn max_session_age(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetime.max_age = limit.into();
        self
    }

    /// How long "there is no such token" is believed without asking L2 again. Defaults to 1 s:
    /// enough against bursts, short enough for a sign-in on another instance.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
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

    /// Asked after each failed attempt at an L2 operation: retry, degrade, fail, or what the
    /// request's policy says. It runs on the path of the request; it must not block. No hook by
    /// default.
    pub fn on_l2_failure(
        mut self,
        hook: impl Fn(&L2Failure<'_>) -> OnFailure + Send + Sync + 'static,
    ) -> Self {
        self.hook = Some(FailureHook(Arc::new(hook)));
        self
    }

    /// Tells other instances what this one commits, and hears what they do: a change reaches their
    /// L1 in milliseconds. Without one (the default) it is noticed within
    /// [`L1::max_staleness`].
    pub fn backplane(mut self, backplane: impl Backplane) -> Self {
        self.backplane = Some(Arc::new(backplane));
        self
    }

    /// How long one attempt at an L2 operation may take. Defaults to 250 ms: hundreds of times
    /// what a healthy Redis needs, and a pause that a user hardly notices.
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = timeout;
        self
    }

    /// How long anybody waits for L2, all attempts included. Defaults to 1 s.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = timeout;
        self
    }

    /// How many changes may wait for L2. Defaults to 100,000. Past it a change waits for room, up
    /// to the hard timeout, and is then committed before the call returns.
    pub fn max_pending_changes(mut self, changes: u32) -> Self {
        self.max_pending_changes = changes;
        self
    }

    /// How many bytes of changes may wait for L2. Defaults to 64 MiB: some 9,000 users' worth.
    pub fn max_pending_bytes(mut self, bytes: u32) -> Self {
        self.max_pending_bytes = bytes;
        self
    }

    /// How long before its expiry a token is replaced: it is served at once, and a successor is
    /// asked for in the background, by one instance. ±10 % of this, fixed per token and instance,
    /// keep instances and users apart. A provider's own refresh time goes first; a token of a
    /// short life is replaced in the last fifth of it. Defaults to 5 minutes, in which a provider's
    /// outage goes unnoticed.
    pub fn refresh_before(mut self, time: Duration) -> Self {
        self.terms.refresh_before = time;
        self
    }

    /// How long one call to the provider may take. Defaults to 60 s: a provider that answers later
    /// has lost the browser. Keep the timeout of your own HTTP client below it.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = timeout;
        self
    }

    /// How long the right to acquire a token outlives an instance that has it and dies. It is
    /// renewed every third of that. Defaults to 30 s: shorter pauses of a process go unnoticed.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.terms.lease_ttl = ttl;
        self
    }

    /// How many calls to the provider this instance makes at a time, a quarter of them ahead of
    /// need. Defaults to 64: some hundreds a second, below what providers allow.
    pub fn max_acquisitions(mut self, calls: u32) -> Self {
        self.max_acquisitions = calls;
        self
    }

    /// The clock of token expiry, lifetimes and freshness. Defaults to the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The tokio runtime for background work. Defaults to the one in which
    /// [`build`](Self::build) is called; it must live as long as the server.
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The cache, and its background tasks.
    ///
    /// # Errors
    /// [`ConfigError`] that names the option at fault. `runtime` is at fault when there is none:
    /// call this inside of tokio, or set one.
    pub fn build(self) -> Result<TokenCache, ConfigError> {
        self.validate()?;
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => tokio::runtime::Handle::try_current().map_err(|error| {
                ConfigError::new("runtime", "must be set outside of a tokio runtime")
                    .with_source(error)
            })?,
        };
        let rules = Rules {
            negative_ttl: self.negative_ttl,
            expiration_ratio: self.l1.expiration_ratio,
            revalidate_every: self.l1.revalidate_every,
            max_staleness: self.l1.max_staleness,
            sliding: self.lifetime.sliding,
            epoch: match self.backplane {
                Some(_) => Epoch::lost(),
                None => Epoch::default(),
            },
            users: Users::default(),
        };
        let channel = self
            .backplane
            .map(|backplane| backplane::open(backplane, &self.namespace, &runtime))
            .transpose()?;
        let (publisher, events) = channel.unzip();
        let prefix = match self.brought {
            true => Prefix::assumed(),
            false => Prefix::default(),
        };
        let counters = Arc::<Counters>::default();
        #[cfg(feature = "seal")]
        let encryption = self.encryption.start(&self.clock, &runtime);
        let (queue, wakeups) = Queue::new();
        let engine = Arc::new(Engine {
            partitions: Partitions::new(&self.l1, rules.clone(), prefix.clone()),
            coherence: Coherence::new(publisher),
            confirmations: Confirmations::default(),
            l2: L2 {
                store: self.store,
                protection: Protection {
                    namespace: self.namespace.into(),
                    counters: counters.clone(),
                    #[cfg(feature = "seal")]
                    encryption,
                },
                prefix,
                breaker: super::breaker::Breaker::default(),
                hook: self.hook,
                soft_timeout: self.soft_timeout,
                hard_timeout: self.hard_timeout,
                counters: counters.clone(),
            },
            queue,
            budget: Budget::new(self.max_pending_changes, self.max_pending_bytes),
            counters,
            clock: self.clock,
            rules,
            flights: Flights::new(self.max_acquisitions),
            terms: self.terms,
            lifetime: self.lifetime,
            failure_policy: self.failure_policy,
            write_mode: self.write_mode,
            user_sign_outs: UserSignOuts::default(),
            runtime,
        });
        engine.start(wakeups);
        if let Some(events) = events {
            engine.follow(events);
        }
        Ok(TokenCache(engine))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        if !(1..=64).contains(&self.namespace.len()) || !self.namespace.bytes().all(allowed) {
            return Err(ConfigError::new(
                "namespace",
                "must be 1 to 64 letters, digits, '.', '_', '-' or ':'",
            ));
        }
        self.l1.validate()?;
        #[cfg(feature = "seal")]
        self.encryption.validate()?;
        let lifetimes = [
            ("absolute_expiration", self.lifetime.absolute),
            ("sliding_expiration", self.lifetime.sliding),
            ("max_session_age", self.lifetime.max_age),
        ];
        for (option, limit) in lifetimes {
            if limit.is_some_and(|limit| limit < Duration::from_millis(1)) {
                return Err(ConfigError::new(option, "must be at least one millisecond"));
            }
        }
        if self.soft_timeout.is_zero() || self.soft_timeout > self.hard_timeout {
            return Err(ConfigError::new(
                "soft_timeout",
                "must be above 0 and at most the hard timeout",
            ));
        }
        if self.terms.timeout.is_zero() {
            return Err(ConfigError::new("acquire_timeout", "must be above 0"));
        }
        if self.terms.lease_ttl < Duration::from_millis(10) {
            return Err(ConfigError::new(
                "lease_ttl",
                "must be at least 10 milliseconds",
            ));
        }
        if self.max_acquisitions == 0 {
            return Err(ConfigError::new("max_acquisitions", "must be above 0"));
        }
        if self.max_pending_changes == 0 {
            return Err(ConfigError::new("max_pending_changes", "must be above 0"));
        }
        if self.max_pending_bytes == 0 {
            return Err(ConfigError::new("max_pending_bytes", "must be above 0"));
        }
        Ok(())
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
