//! L1: the partitions in memory, bounded by what they really cost.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard};

use super::partition::{Partition, Rules, State};
use super::revocation::Prefix;
use crate::error::ConfigError;
use crate::key::PartitionKey;
use crate::time::Timestamp;

/// Settings of the in-memory cache.
///
/// ```
/// use tower_token_cache::L1;
///
/// let l1 = L1::new().max_bytes(64 << 20).expiration_ratio(0.5);
/// # let _ = l1;
/// ```
#[derive(Clone, Debug)]
pub struct L1 {
    pub(super) max_bytes: Option<u64>,
    pub(super) expiration_ratio: f64,
    pub(super) revalidate_every: Option<Duration>,
    pub(super) max_staleness: Option<Duration>,
}

impl L1 {
    /// Defaults to 500 MiB: about 65,000 users of 7 KB.
    pub fn new() -> Self {
        Self {
            max_bytes: Some(500 * 1024 * 1024),
            expiration_ratio: 1.0,
            revalidate_every: Some(Duration::from_secs(10)),
            max_staleness: Some(Duration::from_secs(60)),
        }
    }

    /// No memory between requests: every request asks L2. Requests for one partition that run at
    /// the same time still share one read.
    pub fn disabled() -> Self {
        Self {
            max_bytes: None,
            ..Self::new()
        }
    }

    /// The memory that L1 may use, in bytes, index and allocator overhead included. When it is
    /// full a new user is admitted, and the one that was used least recently goes. Defaults to
    /// 500 MiB.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// How long a partition is served from L1 before L2 is asked again, as a part of its
    /// remaining life in L2: in (0, 1]. Defaults to 1: as long as it lives.
    pub fn expiration_ratio(mut self, ratio: f64) -> Self {
        self.expiration_ratio = ratio;
        self
    }

    /// Without a [backplane](crate::Builder::backplane): how often a partition in use is compared
    /// with L2 in the background, so that changes made by other instances are seen; `None` is
    /// never. Requests do not wait for it. Defaults to 10 s: for a busy user one question in ten
    /// seconds, and none for the others.
    pub fn revalidate_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.revalidate_every = interval.into();
        self
    }

    /// Without a [backplane](crate::Builder::backplane): for how long a partition is served without
    /// having been compared with L2; the request that comes later waits for that. `None` is without
    /// bound. Defaults to 60 s, the longest that a sign-out on another instance goes unnoticed.
    pub fn max_staleness(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.max_staleness = bound.into();
        self
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(self.expiration_ratio > 0.0 && self.expiration_ratio <= 1.0) {
            return Err(ConfigError::new(
                "l1.expiration_ratio",
                "must be above 0 and at most 1",
            ));
        }
        if self.max_bytes == Some(0) {
            return Err(ConfigError::new(
                "l1.max_bytes",
                "must be above 0; use L1::disabled() to switch L1 off",
            ));
        }
        if self.revalidate_every == Some(Duration::ZERO) {
            return Err(ConfigError::new("l1.revalidate_every", "must be above 0"));
        }
        if self.max_staleness == Some(Duration::ZERO) {
            return Err(ConfigError::new("l1.max_staleness", "must be above 0"));
        }
        Ok(())
    }
}

impl Default for L1 {
    fn default() -> Self {
        Self::new()
    }
}

/// All partitions in memory. At any time a key has at most one that counts: the *active* one, which
/// has a load or a write under way and stays whatever happens to the others; else the *idle* one,
/// which L1 keeps while there is room; else the *empty* one, which says for a moment that there is
/// nothing. Sessions that do not exist can so never drive out those that do.
pub(super) struct Partitions {
    stripes: Box<[Mutex<Stripe>]>,
    idle: Option<Cache<PartitionKey, Arc<Partition>>>,
    hasher: RandomState,
    rules: Rules,
    prefix: Prefix,
}

/// The partitions of some keys that L1 does not keep.
#[derive(Default)]
struct Stripe {
    active: HashMap<PartitionKey, Arc<Partition>>,
    empty: HashMap<PartitionKey, Arc<Partition>>,
}

const STRIPES: usize = 64;
/// How many partitions may be known to be empty.
const MAX_EMPTY: usize = 10_000;

impl Partitions {
    pub(super) fn new(l1: &L1, rules: Rules, prefix: Prefix) -> Self {
        let weighed = |max_bytes| {
            Cache::builder()
                // Admits every newcomer; the default policy may refuse one in favour of the old.
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(max_bytes)
                .weigher(|_, partition: &Arc<Partition>| partition.weight())
                .build()
        };
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            idle: l1.max_bytes.map(weighed),
            hasher: RandomState::new(),
            rules,
            prefix,
        }
    }

    /// Begins anew under another prefix generation. Returns how many changes are dropped.
    pub(super) fn forget_all(&self) -> usize {
        self.forget_idle();
        let mut dropped = 0;
        for key in self.active() {
            let prefix = self.prefix.known();
            dropped += self
                .with_known(&key, |state| state.follow_prefix(prefix))
                .unwrap_or(0);
        }
        // What was put back meanwhile.
        self.forget_idle();
        dropped
    }

    fn forget_idle(&self) {
        if let Some(idle) = &self.idle {
            idle.invalidate_all();
        }
        for stripe in &self.stripes {
            stripe.lock().empty.clear();
        }
    }

    /// The partition if L1 has it: the path of a hit.
    pub(super) fn get(&self, key: &PartitionKey) -> Option<Arc<Partition>> {
        self.idle.as_ref()?.get(key)
    }

    /// Runs `act` on the one partition of this key, which is made if need be. All changes go this
    /// way: nothing else can replace the partition meanwhile.
    pub(super) fn with<R>(
        &self,
        key: &PartitionKey,
        act: impl FnOnce(&Arc<Partition>, &mut State) -> R,
    ) -> R {
        let mut stripe = self.stripe(key);
        let known = stripe.active.get(key).cloned();
        let was_active = known.is_some();
        let partition = known
            .or_else(|| self.get(key))
            .or_else(|| stripe.empty.get(key).cloned())
            .unwrap_or_else(|| Partition::new(key.clone(), self.prefix.known()));
        let mut state = partition.lock();
        // Where everybody was signed out between two looks at it.
        state.follow_prefix(self.prefix.known());
        let result = act(&partition, &mut state);
        state.settle(&self.rules);
        let is_active = state.is_active() && !state.is_forgettable();
        match (was_active, is_active) {
            (false, true) => {
                stripe.active.insert(key.clone(), partition.clone());
            }
            (true, false) => {
                stripe.active.remove(key);
            }
            _ => {}
        }
        let (weight, is_empty) = (state.footprint(key), state.is_empty());
        drop(state);
        if is_active && is_empty {
            return result;
        }
        self.keep(&mut stripe, partition, weight, is_empty);
        result
    }

    /// Puts a partition where it is found when it is not active. Into L1 it goes once, when its
    /// contents are there: entries that are written again and again spread over memory, and make
    /// hits slow.
    fn keep(&self, stripe: &mut Stripe, partition: Arc<Partition>, weight: u32, is_empty: bool) {
        let Some(idle) = &self.idle else { return };
        let listed = partition.weight();
        if listed == 0 && is_empty {
            stripe.keep_empty(partition);
            return;
        }
        // A difference of a thirtieth is not worth the trouble, and evens out.
        let same = listed.abs_diff(weight) <= weight / 32;
        if same && idle.contains_key(&partition.key) {
            return;
        }
        if listed == 0 {
            stripe.empty.remove(&partition.key);
        }
        partition.weight.store(weight, Ordering::Relaxed);
        idle.insert(partition.key.clone(), partition);
    }

    /// Runs `act` on the partition of this key if there is one in memory.
    pub(super) fn with_known<R>(
        &self,
        key: &PartitionKey,
        act: impl FnOnce(&mut State) -> R,
    ) -> Option<R> {
        self.knows(key)
            .then(|| self.with(key, |_, state| act(state)))
    }

    /// Whether there is a partition of this key in memory.
    pub(super) fn knows(&self, key: &PartitionKey) -> bool {
        let idle = self.idle.as_ref();
        idle.is_some_and(|idle| idle.contains_key(key)) || self.stripe(key).knows(key)
    }

    /// The keys of the active partitions.
    pub(super) fn active(&self) -> Vec<PartitionKey> {
        let mut keys = Vec::new();
        for stripe in &self.stripes {
            keys.extend(stripe.lock().active.keys().cloned());
        }
        keys
    }

    /// Partitions in L1, and what they cost.
    pub(super) fn size(&self) -> (u64, u64) {
        self.idle.as_ref().map_or((0, 0), |idle| {
            idle.run_pending_tasks();
            (idle.entry_count(), idle.weighted_size())
        })
    }

    /// Frees what has expired.
    pub(super) async fn sweep(&self, now: Timestamp) {
        let Some(idle) = &self.idle else { return };
        for (count, (key, partition)) in idle.iter().enumerate() {
            if partition.lock().is_over(now) {
                // Under the stripe's lock, so that nobody is about to change it.
                let stripe = self.stripe(&key);
                if !stripe.active.contains_key(&*key) && partition.lock().is_over(now) {
                    idle.invalidate(&*key);
                }
            }
            if count % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
        idle.run_pending_tasks();
    }

    fn stripe(&self, key: &PartitionKey) -> MutexGuard<'_, Stripe> {
        let index = self.hasher.hash_one(key) as usize % STRIPES;
        self.stripes[index].lock()
    }
}

impl Stripe {
    fn knows(&self, key: &PartitionKey) -> bool {
        self.active.contains_key(key) || self.empty.contains_key(key)
    }

    fn keep_empty(&mut self, partition: Arc<Partition>) {
        if self.empty.len() >= MAX_EMPTY / STRIPES && !self.empty.contains_key(&partition.key) {
            // Whose does not matter: they are of use for a moment only.
            self.empty.clear();
        }
        self.empty.insert(partition.key.clone(), partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_to_be_empty_is_bounded() {
        let mut stripe = Stripe::default();
        for id in 0..MAX_EMPTY {
            let key = PartitionKey::session(id.to_string()).unwrap();
            stripe.keep_empty(Partition::new(key.clone(), None));
            assert!(stripe.knows(&key));
            assert!(stripe.empty.len() <= MAX_EMPTY / STRIPES);
        }
    }
}
