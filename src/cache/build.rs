//! Builds a running cache from the settings.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

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

impl Builder {
    /// Builds the cache and starts its background tasks. It may be called, and the cache be used, inside any
    /// tokio runtime that has timers enabled, and outside one.
    ///
    /// # Errors
    /// [`ConfigError`] that names the option at fault. `runtime` is at fault when the system gives
    /// the cache no thread. `journal` is at fault when another process has it, other users than its owner
    /// have rights to it, or it is not a journal of this namespace.
    pub fn build(self) -> Result<TokenCache, ConfigError> {
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
            l1: self.l1,
            lifetimes: self.lifetimes,
            losses: crate::engine::partition::life::Losses::default(),
            trust: match feed {
                Some(_) => FeedTrust::silent(),
                None => FeedTrust::default(),
            },
            users: Users::default(),
        };
        let number = match self.brought {
            Some(_) => NamespaceNumber::assumed(),
            None => NamespaceNumber::default(),
        };
        let sign_outs = SignOuts::default();
        let journal = self
            .journal
            .map(|path| Journal::open(&path, &self.namespace, &sign_outs, runtime.clone()));
        let journal = journal.transpose()?;
        let counters = Arc::new(Counters::new(&self.namespace));
        let encryption = self.encryption.start(&self.clock, &runtime);
        let (queue, wakeups) = Queue::new();
        let engine = Arc::new(Engine {
            partitions: Partitions::new(rules.clone(), number.clone(), sign_outs.clone()),
            sign_outs,
            journal,
            coherence: Coherence::new(feed.is_some()),
            loads: Questions::default(),
            confirmations: Questions::default(),
            l2: L2 {
                store: self.store,
                codec: EntryCodec {
                    namespace: self.namespace.into(),
                    counters: counters.clone(),
                    encryption,
                },
                number,
                shards: crate::engine::l2::shards::Shards::default(),
                hook: self.hook,
                timeouts: self.timeouts,
                counters: counters.clone(),
            },
            queue,
            deferred: crate::engine::write_behind::deferred::Deferred::default(),
            budget: Budget::new(self.max_pending_changes, self.max_pending_bytes),
            counters,
            sleeps: AtomicU32::new(self.clock.sleeps()),
            clock: self.clock,
            rules,
            flights: Flights::new(self.acquisitions.max),
            operations: Operations::new(),
            acquisitions: self.acquisitions,
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

    /// The settings as text, to compare them with those of another cache of this name.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let pending = (self.max_pending_changes, self.max_pending_bytes);
        let settings = [
            (
                "store",
                format!("{} {}", self.store_type, self.store.identity()),
            ),
            ("namespace", self.namespace.to_string()),
            ("key_ring", self.encryption.fingerprint()),
            ("l1", format!("{:?}", self.l1)),
            ("lifetimes", self.lifetimes.fingerprint()),
            ("failure_policy", format!("{:?}", self.failure_policy)),
            ("write_mode", format!("{:?}", self.write_mode)),
            ("on_l2_failure", self.hook.is_some().to_string()),
            ("timeouts", format!("{:?}", self.timeouts)),
            ("max_pending", format!("{pending:?}")),
            ("acquisitions", format!("{:?}", self.acquisitions)),
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
        self.lifetimes.validate()?;
        self.timeouts.validate()?;
        self.acquisitions.validate()?;
        self.encryption.validate()?;
        if self.max_pending_changes == 0 {
            return Err(ConfigError::new("max_pending_changes", "must be above 0"));
        }
        if self.max_pending_bytes == 0 {
            return Err(ConfigError::new("max_pending_bytes", "must be above 0"));
        }
        Ok(())
    }

    fn is_sealed(&self) -> bool {
        self.encryption.is_on()
    }
}
