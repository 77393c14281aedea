//! Named caches: one cache per name in a process.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use crate::cache::{Builder, TokenCache};
use crate::engine::core::Engine;
use crate::error::ConfigError;

/// The cache of a name, if there is one. Locked while the cache is built.
type Slot = Mutex<Weak<Engine>>;

impl TokenCache {
    /// The cache of this name in this process, [built](Builder::build) if there is none yet.
    ///
    /// For frameworks that set up one application per worker thread, such as actix-web: all
    /// workers share one L1 and one queue. The name is free again once the cache was
    /// [shut down](Self::shutdown) or its last clone is dropped.
    ///
    /// # Errors
    /// What [`build`](Builder::build) returns, and [`ConfigError`] for the first option that the
    /// cache of this name was built with another value of. `store` differs by type and place, as
    /// [`TokenStore::identity`](crate::TokenStore::identity) says; `on_l2_failure` and
    /// `runtime` differ when one has it and the other has not, and the clock is not compared.
    pub fn shared(name: &str, builder: Builder) -> Result<Self, ConfigError> {
        let slot = slot(name);
        let mut known = slot.lock();
        if let Some(engine) = known.upgrade().filter(|engine| !engine.queue.is_closed()) {
            let asked = builder.fingerprint();
            return match engine.fingerprint.differs_in(&asked) {
                Some(option) => Err(ConfigError::new(
                    option,
                    "must be as the cache of this name has it",
                )),
                None => Ok(Self(engine)),
            };
        }
        let cache = builder.build()?;
        *known = Arc::downgrade(&cache.0);
        Ok(cache)
    }
}

fn slot(name: &str) -> Arc<Slot> {
    static NAMED: LazyLock<Mutex<HashMap<String, Arc<Slot>>>> = LazyLock::new(Mutex::default);
    let mut named = NAMED.lock();
    // A locked slot is being built.
    let is_used = |slot: &Slot| slot.try_lock().is_none_or(|it| it.strong_count() > 0);
    named.retain(|_, slot| Arc::strong_count(slot) > 1 || is_used(slot));
    named.entry(name.into()).or_default().clone()
}
