//! Reads: L1, pending changes, L2, in that order.

use std::sync::Arc;

use crate::codec::Value;
use crate::engine::core::Engine;
use crate::engine::partition::answer::{Answer, Maintenance};
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::Partition;
use crate::engine::trust::FeedState;
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::lookup::{CacheLevel, Lookup};
use crate::policy::FailurePolicy;
use crate::sabotage::{self, Sabotage};
use crate::time::Timestamp;
use crate::token::Token;

impl Engine {
    /// The value of an entry that is in L1 and needs no second look, and the time. `observed` is set on
    /// first use.
    ///
    /// While L2 does not answer nobody could take that look: what is in memory is then served at
    /// once, if the policy is to go on, and the probe that may be due is made in the background.
    pub(crate) fn hit(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &str,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Option<(Value, Timestamp)> {
        let now = self.now();
        let (value, probes) = self.partitions.hit(key, |partition| {
            let state = partition.lock();
            let (value, probes) =
                match state.fresh_value(name, now, self.rules.trust.at(now.moment)) {
                    Some(value) => (value, false),
                    None if policy == FailurePolicy::Degrade => {
                        let value = state.stale_value(name, now, &self.rules)?;
                        (value, self.short_circuits(key, &state)?)
                    }
                    None => return None,
                };
            observed.get_or_insert_with(|| state.observe(now));
            Some((value.clone(), probes))
        })??;
        if probes {
            self.start_load(key, false);
        }
        self.counters.l1_hits.add(1);
        Some((value, now.wall))
    }

    /// What the cache says of one entry, and which level said it. `observed` is set on first use.
    pub(crate) async fn read(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &str,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(Lookup<Value>, CacheLevel), Error> {
        let now = self.now();
        let (answer, due) = match self.find_known(key) {
            None => (Answer::Unknown, Maintenance::default()),
            Some(partition) => {
                let state = partition.lock();
                let answer = state.answer(name, now, &self.rules);
                // What is out of date may be from before a sign-out that this handle comes after.
                if matches!(answer, Answer::Known(_)) {
                    observed.get_or_insert_with(|| state.observe(now));
                }
                (answer, state.due(now, &self.rules))
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
                Answer::Stale(value) => (Lookup::Hit(value), CacheLevel::L1),
                _ => (Lookup::Absent, CacheLevel::None),
            });
        }
        self.counters.l1_misses.add(1);
        let mut has = matches!(answer, Answer::Stale(_));
        let mut once_more = true;
        let (answer, due, outcome) = loop {
            let (partition, outcome) = self.load_once(key, policy, observed, has).await;
            // What expired while it was waited for is not served.
            let now = self.now();
            let state = partition.lock();
            observed.get_or_insert_with(|| state.observe(now));
            let answer = match outcome {
                // A change was told since L2 was asked, which may have been before this read began.
                Ok(()) if state.is_hinted() && std::mem::take(&mut once_more) => continue,
                Ok(()) => Answer::Known(state.answer_as_read(name, now)),
                Err(_) => state.answer(name, now, &self.rules),
            };
            // It was signed out meanwhile: now L2 has to be waited for.
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
                let otherwise = match sabotage::is(Sabotage::AbsentWhenUnavailable) {
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

    /// The token that memory has, expired or not.
    pub(crate) fn known_token(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
    ) -> Option<Token> {
        let partition = self.find(key);
        let state = partition.lock();
        state.token(name.as_ref())
    }

    /// The token keys of the partition; `None` when L2 could not be asked.
    pub(crate) async fn keys(
        self: &Arc<Self>,
        key: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<Option<Vec<TokenKey>>, Error> {
        let now = self.now();
        let partition = self.find(key);
        let (known, has) = {
            let state = partition.lock();
            let known = state.absences_are_known(now, &self.rules);
            (known, !state.keys(now).is_empty())
        };
        let (partition, outcome) = match known || policy == FailurePolicy::Bypass {
            true => (partition, Ok(())),
            false => self.load_once(key, policy, observed, has).await,
        };
        let now = self.now();
        let state = partition.lock();
        observed.get_or_insert_with(|| state.observe(now));
        match outcome {
            Ok(()) => Ok(Some(state.keys(now))),
            Err(failure) => {
                self.degrade(policy, failure)?;
                let keys = state.keys(now);
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

    /// Makes sure that the partition's generation is known, so that changes can be told from
    /// those made before a sign-out. `observed` is set on first use.
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
            // One that is out of date would have L2 refuse what was made after a sign-out.
            let current = state.is_coherent(self.now(), &self.rules);
            let heard = self.rules.trust.feed_state(self.now().moment) == FeedState::Alive;
            let confirmed = |observed: &Observed| observed.is_confirmed(&state);
            let current = current && (heard || observed.as_ref().is_some_and(confirmed));
            (state.generation.is_some() && current && !is_old) || state.is_clearing()
        };
        let (partition, outcome) = match known {
            true => (partition, Ok(())),
            // Not what memory has counts here, but whether somebody has signed out since.
            false => self.load_once(key, policy, observed, false).await,
        };
        let now = self.now();
        {
            let state = partition.lock();
            let observed = observed.get_or_insert_with(|| state.observe(now));
            // Where L1 does not keep the partition, nobody else could say this any more.
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

/// A hit comes from `level`; everything else from none, or from an L2 that could not be asked.
fn at_level(lookup: Lookup<Value>, level: CacheLevel) -> (Lookup<Value>, CacheLevel) {
    let level = match lookup {
        Lookup::Hit(_) => level,
        Lookup::Unavailable => CacheLevel::Unavailable,
        Lookup::Absent | Lookup::Unopenable => CacheLevel::None,
    };
    (lookup, level)
}
