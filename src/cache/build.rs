//! Builds a running cache from the settings.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::cache::TokenCache;
use crate::cache::builder::Builder;
use crate::engine::acquire::flights::Flights;
use crate::engine::budget::Budget;
use crate::engine::coherence::Coherence;
use crate::engine::core::Engine;
use crate::engine::fingerprint::Fingerprint;
use crate::engine::journal::unacknowledged::SignOuts;
use crate::engine::journal::writer::Journal;
use crate::engine::l1::table::Partitions;
use crate::engine::l2::calls::L2;
use crate::engine::l2::entries::EntryCodec;
use crate::engine::l2::questions::Questions;
use crate::engine::namespace::NamespaceNumber;
use crate::engine::partition::links::Users;
use crate::engine::partition::rules::Rules;
use crate::engine::runtime::operations::Operations;
use crate::engine::runtime::thread::EngineThread;
use crate::engine::sign_out::owed_users::UserSignOuts;
use crate::engine::trust::FeedTrust;
use crate::engine::write_behind::queue::Queue;
use crate::error::ConfigError;
use crate::telemetry::Counters;
use crate::time::setting;

impl Builder {
    /// Builds the cache and starts its background tasks. It may be called, and the cache be used, inside any
    /// tokio runtime that has timers enabled, and outside one.
    ///
    /// # Errors
    /// [`ConfigError`] that names the option at fault. `runtime` is at fault when the system gives
    /// the cache no thread. `journal` is at fault when another process has it, other users than its owner
    /// have rights to it, or it is not a journal of this namespace.
    pub fn build(mut self) -> Result<TokenCache, ConfigError> {
        self.bound_times();
        self.validate()?;
        let fingerprint = self.fingerprint();
        let (thread, runtime) = match self.runtime.clone() {
            Some(runtime) => (None, runtime),
            None => EngineThread::start()
                .map(|(thread, runtime)| (Some(thread), runtime))
                .map_err(|error| ConfigError::new("runtime", "got no thread").with_source(error))?,
        };
        if self.store.is_persistent() && !self.plaintext && !self.is_sealed() {
            tracing::warn!(
                "tokens are stored in the clear: set a key_ring, or say that it is meant: plaintext()"
            );
        }
        let feed = self.store.feed(&self.namespace);
        let rules = Rules {
            negative_ttl: self.negative_ttl,
            expiration_ratio: self.l1.expiration_ratio,
            revalidate_every: self.l1.revalidate_every,
            max_staleness: self.l1.max_staleness,
            sliding: self.lifetime.sliding,
            losses: crate::engine::partition::life::Losses::default(),
            trust: match feed {
                Some(_) => FeedTrust::silent(),
                None => FeedTrust::default(),
            },
            users: Users::default(),
        };
        let prefix = match self.brought {
            true => NamespaceNumber::assumed(),
            false => NamespaceNumber::default(),
        };
        let sign_outs = SignOuts::default();
        let journal = self
            .journal
            .map(|path| Journal::open(&path, &self.namespace, &sign_outs, runtime.clone()));
        let journal = journal.transpose()?;
        let counters = Arc::<Counters>::default();
        #[cfg(feature = "seal")]
        let encryption = self.encryption.start(&self.clock, &runtime);
        let (queue, wakeups) = Queue::new();
        let engine = Arc::new(Engine {
            partitions: Partitions::new(
                self.l1.max_bytes,
                rules.clone(),
                prefix.clone(),
                sign_outs.clone(),
            ),
            sign_outs,
            journal,
            coherence: Coherence::new(feed.is_some()),
            loads: Questions::default(),
            confirmations: Questions::default(),
            l2: L2 {
                store: self.store,
                protection: EntryCodec {
                    namespace: self.namespace.into(),
                    counters: counters.clone(),
                    #[cfg(feature = "seal")]
                    encryption,
                },
                prefix,
                shards: crate::engine::l2::shards::Shards::default(),
                hook: self.hook,
                attempt_timeout: self.attempt_timeout,
                operation_timeout: self.operation_timeout,
                counters: counters.clone(),
            },
            queue,
            deferred: crate::engine::write_behind::deferred::Deferred::default(),
            budget: Budget::new(self.max_pending_changes, self.max_pending_bytes),
            counters,
            sleeps: AtomicU32::new(self.clock.sleeps()),
            clock: self.clock,
            rules,
            flights: Flights::new(self.max_acquisitions),
            operations: Operations::new(),
            terms: self.terms,
            lifetime: self.lifetime,
            failure_policy: self.failure_policy,
            write_mode: self.write_mode,
            fingerprint,
            user_sign_outs: UserSignOuts::default(),
            runtime,
            _thread: thread,
        });
        engine.start(wakeups);
        if let Some(feed) = feed {
            engine.spawn_feed(feed);
        }
        Ok(TokenCache(engine))
    }

    /// Bounds every duration in the settings, so that calculations with it cannot overflow.
    pub(crate) fn bound_times(&mut self) {
        let times = [
            &mut self.negative_ttl,
            &mut self.attempt_timeout,
            &mut self.operation_timeout,
            &mut self.terms.refresh_before,
            &mut self.terms.lease_ttl,
            &mut self.terms.timeout,
        ];
        let limits = [
            &mut self.lifetime.since_write,
            &mut self.lifetime.sliding,
            &mut self.lifetime.since_creation,
            &mut self.l1.revalidate_every,
            &mut self.l1.max_staleness,
        ];
        for time in times.into_iter().chain(limits.into_iter().flatten()) {
            *time = setting(*time);
        }
    }

    /// The settings as text, to compare them with those of another cache of this name.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let Self { l1, terms, .. } = self;
        let timeouts = (self.attempt_timeout, self.operation_timeout);
        let pending = (self.max_pending_changes, self.max_pending_bytes);
        let settings = [
            (
                "store",
                format!("{} {}", self.store_type, self.store.identity()),
            ),
            ("namespace", self.namespace.to_string()),
            #[cfg(feature = "seal")]
            ("key_ring", self.encryption.fingerprint()),
            ("l1", format!("{l1:?}")),
            ("lifetimes", format!("{:?}", self.lifetime)),
            ("negative_ttl", format!("{:?}", self.negative_ttl)),
            ("failure_policy", format!("{:?}", self.failure_policy)),
            ("write_mode", format!("{:?}", self.write_mode)),
            ("on_l2_failure", self.hook.is_some().to_string()),
            ("timeouts", format!("{timeouts:?}")),
            ("max_pending", format!("{pending:?}")),
            (
                "acquisitions",
                format!("{terms:?} {}", self.max_acquisitions),
            ),
            ("journal", format!("{:?}", self.journal)),
            ("runtime", self.runtime.is_some().to_string()),
        ];
        Fingerprint::new(settings)
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
            ("expire_after_write", self.lifetime.since_write),
            ("sliding_expiration", self.lifetime.sliding),
            ("absolute_expiration", self.lifetime.since_creation),
        ];
        for (option, limit) in lifetimes {
            if limit.is_some_and(|limit| limit < Duration::from_millis(1)) {
                return Err(ConfigError::new(option, "must be at least one millisecond"));
            }
        }
        if self.attempt_timeout.is_zero() || self.attempt_timeout > self.operation_timeout {
            return Err(ConfigError::new(
                "attempt_timeout",
                "must be above 0 and at most the operation timeout",
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

    fn is_sealed(&self) -> bool {
        #[cfg(feature = "seal")]
        return self.encryption.is_on();
        #[cfg(not(feature = "seal"))]
        false
    }
}
