//! Commits acquired tokens before they are published, or stores a failure record for all instances. If L2 does not take them in
//! time, the policy says whether they are published all the same; they are sent until L2 has them.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::acquire::{FailureRecord, UnstoredFailure};
use crate::codec::Value;
use crate::engine::acquire::flight::Flight;
use crate::engine::acquire::outcome::{AcquiredToken, FlightEnd};
use crate::engine::budget::Permit;
use crate::engine::error::L2Error;
use crate::engine::partition::by_name::ByName;
use crate::engine::partition::change::{AcquiredBatch, CommitAck, PendingChange};
use crate::engine::partition::refresh::RefreshState;
use crate::engine::partition::state::State;
use crate::error::Error;
use crate::event::{EventKind, SignedOutBy};
use crate::key::PartitionKind;
use crate::lookup::Durability;
use crate::mutation::{self, Mutation};
use crate::policy::RefusedRefreshToken;
use crate::store::Expected;
use crate::token::TokenSet;

/// The most attempts to commit the answer to a store that has lost what it was to replace.
const MAX_ATTEMPTS: u32 = 3;

impl Flight {
    /// Commits what the provider has given. It becomes visible when L2 has it (`partition::acks`), or when sending has failed
    /// or is not waited for any longer (`reveal`).
    pub(crate) async fn commit_answer(
        &self,
        mut acquired: AcquiredToken,
        set: TokenSet,
        seen: &RefreshState,
        permit: Option<Permit>,
    ) -> FlightEnd {
        let engine = &self.engine;
        // A user's sign-out may have ended the session meanwhile: then this signs the session out.
        engine.find(&self.id.partition);
        let replaced = seen.guarded_entry(&self.need.key);
        let replaced = engine.l2.entry_id(replaced.as_ref());
        let changes = set.into_changes(self.need.key.clone());
        let now = engine.now();
        let Some(mut permit) = permit else {
            let changes = changes.map(|(name, value)| (name, Some(value)));
            return engine.partitions.with(&self.id.partition, |_, state| {
                if self.is_over(state) {
                    return Err(Error::SignedOut.into());
                }
                state.change(changes, None, now);
                Ok(acquired)
            });
        };
        let pending = |(name, value)| {
            let change = PendingChange::new(&name, Some(value), now, &mut permit);
            (name, change)
        };
        let changes: Arc<ByName<_>> = Arc::new(changes.map(pending).collect());
        let mut version = seen.version(replaced);
        for _ in 0..MAX_ATTEMPTS {
            let expected = version.map(|version| Expected {
                entry: replaced,
                version,
            });
            let expected = expected.filter(|_| !mutation::is(Mutation::LeaseWithoutCompareAndSet));
            match self.commit_batch(changes.clone(), expected, seen).await? {
                Ok(CommitAck::Stored) => {
                    acquired.durability = Some(Durability::Stored);
                    return Ok(acquired);
                }
                Err(failure) => {
                    engine.degrade(self.policy, failure)?;
                    acquired.durability = Some(Durability::Pending);
                    return Ok(acquired);
                }
                Ok(CommitAck::Conflict) => {
                    let now = match self.look().await {
                        Ok(now) => now,
                        // What L2 has is not known: the next attempt must replace nothing else, either.
                        Err(failure) => {
                            engine.degrade(self.policy, failure)?;
                            continue;
                        }
                    };
                    let known = now.version(replaced);
                    if known >= version {
                        // Another instance was faster: its tokens are kept, and these serve only the callers
                        // that wait.
                        return match self.answered_by(&now, Some(0)) {
                            Some(Ok(newer)) => Ok(newer),
                            _ => Ok(acquired),
                        };
                    }
                    // The store has lost what was to be replaced.
                    version = known;
                }
            }
        }
        Ok(acquired)
    }

    /// Commits acquired tokens, which are not visible before L2 has them or the commit has failed.
    async fn commit_batch(
        &self,
        changes: Arc<ByName<PendingChange>>,
        expected: Option<Expected>,
        seen: &RefreshState,
    ) -> Result<Result<CommitAck, L2Error>, Error> {
        let engine = &self.engine;
        let (ack, acknowledged) = oneshot::channel();
        engine
            .partitions
            .with(&self.id.partition, |partition, state| {
                if self.is_over(state) || state.signed_out_since(&seen.observed) {
                    return Err(Error::SignedOut);
                }
                let now = engine.now();
                state.adopt(&seen.observed, now);
                let batch = AcquiredBatch {
                    changes,
                    expected,
                    // Hides the batch until then.
                    ack: Some(ack),
                };
                if mutation::is(Mutation::AcquiredSeenEarly) {
                    for (name, change) in batch.changes.iter() {
                        state.apply(name.clone(), change.value.clone(), false);
                    }
                }
                state.take_acquired(batch, &self.need.key, seen, now);
                // Queued for the task that writes, which repeats it until L2 has answered.
                engine.push(partition, state);
                Ok(())
            })?;
        engine.wake();
        match engine.wait_for_l2(&self.allowance, acknowledged).await {
            Ok(Ok(ack)) => Ok(ack),
            // The sender was dropped, because the partition was signed out.
            Ok(Err(_)) => Err(Error::SignedOut),
            Err(failure) => {
                engine
                    .partitions
                    .with(&self.id.partition, |_, state| state.reveal());
                Ok(Err(failure))
            }
        }
    }

    /// Records a failure: for all instances if the partition exists or is the application's own. Otherwise it
    /// is recorded in this process only, and while L1 has room for partitions that do not exist.
    pub(crate) async fn record_failure(
        &self,
        failure_record: FailureRecord,
        seen: &RefreshState,
        concerns_all: bool,
        permit: Option<Permit>,
    ) {
        let engine = &self.engine;
        let key = &self.need.key;
        let refreshes = seen.refresh_token.is_hit();
        let name = match refreshes && concerns_all {
            true => key.refresh_token(),
            false => key.clone(),
        };
        let now = engine.now();
        let local = permit.is_none();
        let is_own = self.id.partition.kind() == PartitionKind::Application;
        let shared = engine.partitions.with(&self.id.partition, |_, state| {
            if self.is_over(state) || state.signed_out_since(&seen.observed) {
                return false;
            }
            if !(is_own || refreshes || state.exists()) {
                state.unstored_failure = Some(UnstoredFailure::new(key.clone(), failure_record));
                return false;
            }
            state.adopt(&seen.observed, now);
            let value = Value::FailureRecord(Box::new(failure_record));
            state.change([(name.failure_record(), Some(value))], permit, now);
            !local
        });
        if shared {
            // Other instances wait for the lease: they must find the record when they get it.
            let written = engine.commit(&self.id.partition);
            let _ = engine.wait_for_l2(&self.allowance, written).await;
        }
    }
}

impl Flight {
    /// The provider has refused the refresh token, or wants proof of the user beside it: tells the application, and ends
    /// the session if the token was refused and the settings say so.
    pub(crate) async fn refresh_token_refused(&self, seen: &RefreshState, asks_for_proof: bool) {
        let (engine, partition) = (&self.engine, &self.id.partition);
        let client = self.need.key.client().map(Into::into);
        let required = EventKind::ReauthenticationRequired { client };
        engine.tell(Some(partition), required);
        let ends = engine.refused_refresh_token == RefusedRefreshToken::SignOut;
        if !ends || asks_for_proof || partition.kind() != PartitionKind::Session {
            return;
        }
        // Memory may not have heard of another token yet. Where L2 does not say, the session goes on until the next refusal.
        if engine.fetch(partition, |_, _| ()).await.is_err() {
            return;
        }
        let name = self.need.key.refresh_token();
        let refused = seen.refresh_token.as_ref().hit();
        let is_the_one = |state: &State| {
            let known = state.entries.get(name.as_ref());
            let known = known.and_then(|entry| entry.value.as_secret());
            let has_another = known.is_some_and(|known| Some(known) != refused);
            !(has_another || self.is_over(state) || state.signed_out_since(&seen.observed))
        };
        let by = Some(SignedOutBy::RefusedRefreshToken);
        // After a shutdown nothing ends any more. L2 is not waited for: it is told until it knows.
        drop(engine.sign_out_if(partition, &mut None, by, is_the_one));
    }
}
