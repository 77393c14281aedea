//! Reads: from memory, in which pending changes are applied, and else from L2.

use std::sync::Arc;

use crate::codec::Value;
use crate::engine::core::Engine;
use crate::engine::partition::answer::{Answer, Maintenance};
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::Partition;
use crate::engine::trust::FeedState;
use crate::error::Error;
use crate::key::{ClientName, PartitionKey, TokenKey};
use crate::lookup::{CacheLevel, Lookup};
use crate::mutation::{self, Mutation};
use crate::policy::FailurePolicy;
use crate::time::Timestamp;
use crate::token::Token;

impl Engine {
    /// The value of an entry that L1 has and that needs no comparison with L2, and the time. `observed` is
    /// set on first use.
    ///
    /// While L2 does not answer, such a comparison is impossible: with [`FailurePolicy::Degrade`] the value
    /// in memory is then served at once, and a probe that is due is made in the background.
    pub(crate) fn hit(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &str,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Option<(Value, Timestamp)> {
        // Of both clocks. After a sleep of the machine it begins a new era.
        let now = self.now();
        let (value, probes) = self.partitions.hit(key, |partition| {
            let state = partition.lock();
            let (value, probes) =
                match state.fresh_value(name, now, self.rules.trust.usable_era(now.moment)) {
                    Some(value) => (value, false),
                    None if policy == FailurePolicy::Degrade => {
                        let value = state.stale_value(name, now, &self.rules)?;
                        (value, self.short_circuits(key, &state)?)
                    }
                    None => return None,
                };
            // Once per handle: what tells a later sign-out, which refuses the handle's changes.
            observed.get_or_insert_with(|| state.observe(now));
            Some((value.clone(), probes))
        })??;
        if probes {
            self.start_load(key, false);
        }
        self.counters.l1_hits.add(1);
        Some((value, now.wall))
    }

    /// Looks an entry up, and says which level answered. `observed` is set on first use.
    pub(crate) async fn read(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &str,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(Lookup<Value>, CacheLevel), Error> {
        let began = self.now();
        let (answer, due) = match self.find_known(key) {
            None => (Answer::Unknown, Maintenance::default()),
            Some(partition) => {
                let state = partition.lock();
                let answer = state.answer(name, began, &self.rules);
                // A stale state may be from before a sign-out that came before this handle. It is not what
                // the handle has observed.
                if matches!(answer, Answer::Known(_)) {
                    observed.get_or_insert_with(|| state.observe(began));
                }
                (answer, state.due(began, &self.rules))
            }
        };
        if let Answer::Known(lookup) = answer {
            self.schedule_maintenance(key, due);
            if lookup.is_hit() {
                self.counters.l1_hits.add(1);
            }
            return Ok(at_level(lookup, CacheLevel::L1));
        }
        if policy == FailurePolicy::Bypass {
            return Ok(match answer {
                Answer::Stale(value) => {
                    self.counters.l1_hits.add(1);
                    (Lookup::Hit(value), CacheLevel::L1)
                }
                _ => (Lookup::Absent, CacheLevel::None),
            });
        }
        self.counters.l1_misses.add(1);
        let mut has = matches!(answer, Answer::Stale(_));
        let mut once_more = true;
        let (answer, due, outcome) = loop {
            let (partition, outcome) = self.load_once(key, policy, observed, has).await;
            // A token that expired during the load is not served.
            let now = self.now();
            let state = partition.lock();
            // L2 was asked after the handle began: its first change need not ask again.
            observed.get_or_insert_with(|| state.observe(began));
            let answer = match outcome {
                // The feed has announced a change since L2 was asked, possibly before this read began.
                Ok(()) if state.is_hinted() && std::mem::take(&mut once_more) => continue,
                Ok(()) => Answer::Known(state.answer_as_read(name, now)),
                Err(_) => state.answer(name, now, &self.rules),
            };
            // The partition was signed out during the load: now L2 has to be waited for.
            let lost = matches!(answer, Answer::Unknown);
            if !(lost && outcome.is_err() && std::mem::take(&mut has)) {
                break (answer, state.due(now, &self.rules), outcome);
            }
        };
        self.schedule_maintenance(
            key,
            Maintenance {
                revalidate: false,
                ..due
            },
        );
        let (level, otherwise) = match outcome {
            Ok(()) => (CacheLevel::L2, Lookup::Absent),
            Err(failure) => {
                self.degrade(policy, failure)?;
                let otherwise = match mutation::is(Mutation::AbsentWhenUnavailable) {
                    true => Lookup::Absent,
                    false => Lookup::Unavailable,
                };
                (CacheLevel::L1, otherwise)
            }
        };
        Ok(match answer {
            Answer::Known(lookup) => at_level(lookup, level),
            Answer::Stale(value) => (Lookup::Hit(value), level),
            Answer::Unknown => at_level(otherwise, level),
        })
    }

    /// The token in memory, expired or not.
    pub(crate) fn known_token(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
    ) -> Option<Token> {
        let partition = self.find(key);
        let state = partition.lock();
        state.token(name.as_ref())
    }

    /// The keys of the client's tokens; `None` if L2 could not be asked and memory has none.
    pub(crate) async fn keys(
        self: &Arc<Self>,
        key: &PartitionKey,
        client: Option<&ClientName>,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<Option<Vec<TokenKey>>, Error> {
        let began = self.now();
        let partition = self.find(key);
        let (known, has) = {
            let state = partition.lock();
            let known = state.absences_are_known(began, &self.rules);
            (known, !state.keys(client, began).is_empty())
        };
        let (partition, outcome) = match known || policy == FailurePolicy::Bypass {
            true => (partition, Ok(())),
            false => {
                self.counters.l1_misses.add(1);
                self.load_once(key, policy, observed, has).await
            }
        };
        let now = self.now();
        let state = partition.lock();
        observed.get_or_insert_with(|| state.observe(began));
        match outcome {
            Ok(()) => Ok(Some(state.keys(client, now))),
            Err(failure) => {
                self.degrade(policy, failure)?;
                let keys = state.keys(client, now);
                Ok((!keys.is_empty()).then_some(keys))
            }
        }
    }

    /// Reads the partition from L2 again.
    pub(crate) async fn reload(
        self: &Arc<Self>,
        key: &PartitionKey,
        policy: FailurePolicy,
    ) -> Result<bool, Error> {
        if policy == FailurePolicy::Bypass {
            return Ok(true);
        }
        match self.load_as(key, true).await.1 {
            Ok(()) => Ok(true),
            Err(failure) => self.degrade(policy, failure).map(|()| false),
        }
    }

    /// Makes sure that the partition's generation is known, so that a change can be told apart from one made
    /// before a sign-out. `observed` is set on first use.
    pub(crate) async fn know_generation(
        self: &Arc<Self>,
        key: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(), Error> {
        let partition = self.find(key);
        let is_old = |observed: &Observed| observed.is_old(self.now());
        let is_old = observed.as_ref().is_some_and(is_old);
        let known = {
            let state = partition.lock();
            if let Some(observed) = observed {
                observed.learn(&state);
            }
            // With a stale generation, L2 would refuse a change made after a sign-out.
            let current = state.is_coherent(self.now(), &self.rules);
            let heard = self.rules.trust.feed_state(self.now().moment) == FeedState::Alive;
            let confirmed = |observed: &Observed| observed.is_confirmed(&state);
            let current = current && (heard || observed.as_ref().is_some_and(confirmed));
            (state.generation.is_some() && current && !is_old) || state.is_signing_out()
        };
        let (partition, outcome) = match known {
            true => (partition, Ok(())),
            // Memory's entries do not count here: the question is whether the partition was signed out since.
            false => self.load_once(key, policy, observed, false).await,
        };
        let now = self.now();
        {
            let state = partition.lock();
            let observed = observed.get_or_insert_with(|| state.observe(now));
            // Where L1 does not keep the partition, only `observed` still knows this.
            if state.signed_out_since(observed) {
                return Err(Error::SignedOut);
            }
            match &outcome {
                Ok(()) if observed.confirm(&state, key, now) => {}
                Ok(()) => return Err(Error::SignedOut),
                Err(failure) if is_old => return Err(Error::Unavailable(failure.error.clone())),
                Err(_) => {}
            }
            observed.learn(&state);
        }
        outcome.or_else(|failure| self.degrade(policy, failure))
    }

    /// The partition in memory, which this makes if it is not there.
    pub(crate) fn find(self: &Arc<Self>, key: &PartitionKey) -> Arc<Partition> {
        let make = || self.partitions.with(key, |partition, _| partition.clone());
        self.find_known(key).unwrap_or_else(make)
    }

    /// The partition if it is in memory. A session whose user is known to be signed out is over.
    fn find_known(self: &Arc<Self>, key: &PartitionKey) -> Option<Arc<Partition>> {
        let active = || {
            let known = self.partitions.knows(key);
            known.then(|| self.partitions.with(key, |partition, _| partition.clone()))
        };
        let partition = self.partitions.get(key).or_else(active)?;
        let over = partition.lock().links.are_over();
        Some(match over {
            true => self.end_known(key),
            false => partition,
        })
    }

    fn schedule_maintenance(self: &Arc<Self>, key: &PartitionKey, due: Maintenance) {
        if due.touch {
            let now = self.now();
            self.partitions.with(key, |partition, state| {
                if state.hand_on_touch(now, &self.rules) {
                    self.push(partition, state);
                }
            });
            self.wake();
        }
        if due.revalidate {
            self.start_load(key, false);
        }
    }
}

/// The level of a lookup: a hit comes from `level`, any other answer from none, or from an L2 that could not
/// be asked.
fn at_level(lookup: Lookup<Value>, level: CacheLevel) -> (Lookup<Value>, CacheLevel) {
    let level = match lookup {
        Lookup::Hit(_) => level,
        Lookup::Unavailable => CacheLevel::Unavailable,
        Lookup::Absent | Lookup::Unopenable => CacheLevel::None,
    };
    (lookup, level)
}
