//! Signing a session out in L2, by ending its generation.

use std::sync::Arc;

use futures_util::future::join;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::MAX_READS;
use crate::engine::namespace::Number;
use crate::engine::partition::pending::PendingSignOut;
use crate::engine::partition::state::State;
use crate::key::PartitionKey;
use crate::mutation::{self, Mutation};
use crate::store::{Change, Cleared, Commit, CommitId, PartitionId};

impl Engine {
    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, L2Error> {
        if !mutation::is(Mutation::SignOutWithoutTombstone) {
            return self.l2.clear(partition, expected, id).await;
        }
        let loaded = self.l2.load_one(partition).await?;
        let changes = loaded.entries.iter().map(|stored| Change {
            entry: stored.entry,
            put: None,
        });
        let commit = Commit {
            partition: partition.clone(),
            id,
            generation: loaded.generation,
            expected: None,
            life: None,
            repeats: None,
            base: loaded.version,
            changes: changes.collect(),
            lifetime: self.rules.lifetimes.partition,
        };
        self.l2.commit(&[commit]).await?;
        Ok(Cleared {
            generation: loaded.generation,
            ended: true,
        })
    }

    /// Signs a partition out in L2. The generation in memory may be out of date, so L2 is asked for the one
    /// to end, but once only: a repeated attempt must not end the next one.
    pub(crate) async fn end_generation(
        self: &Arc<Self>,
        key: &PartitionKey,
        under: Option<Number>,
        sign_out: PendingSignOut,
    ) -> Result<(), L2Error> {
        let PendingSignOut {
            id: sign_out,
            ends: expected,
            ..
        } = sign_out;
        let under = match under {
            Some(under) => under,
            None => self.number().await?,
        };
        let id = self.l2.id(key, under);
        let confirmed = self.partitions.with_under(key, under, |_, state| {
            state.pending_sign_out().is_some_and(|it| it.is_confirmed)
        });
        // The namespace's number has changed since. What is pending ends under the new one.
        let Some(confirmed) = confirmed else {
            return Ok(());
        };
        // Likewise if other instances have a number that this process has not learned: the session may have
        // begun under it.
        let (number, loaded) = match confirmed {
            true => (Ok(under), None),
            false => {
                let (number, loaded) = join(self.look_up_number(), self.l2.load_one(&id)).await;
                (number, Some(loaded))
            }
        };
        if number.as_ref().is_ok_and(|number| *number != under) {
            return Ok(());
        }
        self.clear_plaintext(key, under).await?;
        let ends = match loaded {
            None => expected,
            Some(loaded) => match loaded {
                Ok(loaded) => {
                    let latest = expected.max(Some(loaded.generation));
                    let now = self.now();
                    let cleared_at = loaded.cleared_for.map(|time| now.ago(time));
                    let dropped = self.partitions.with_under(key, under, |_, state| {
                        state.confirm_sign_out(latest, cleared_at)
                    });
                    let dropped = dropped.unwrap_or(0);
                    self.counters.signed_out_changes.add(dropped as u64);
                    self.unlist_loaded(key, &id, &loaded);
                    latest
                }
                // Ends whatever generation L2 has: a sign-out is final.
                Err(_) => None,
            },
        };
        let mut cleared = self.clear(&id, ends, sign_out).await?;
        if !cleared.ended {
            // Done now, because the next step may fail.
            let end = |_: &_, state: &mut State| state.signed_out_elsewhere();
            let dropped = self.partitions.with_under(key, under, end).unwrap_or(0);
            self.counters.signed_out_changes.add(dropped as u64);
        }
        for _ in 0..MAX_READS {
            // A concurrent sign-out may have started a generation that predates this sign-out; end it too,
            // unless L2 was asked long ago: then it may be a new session.
            if cleared.ended || confirmed {
                break;
            }
            let next = Some(cleared.generation);
            let end = |_: &_, state: &mut State| {
                state.amend_sign_out(|pending| pending.ends = next);
            };
            if self.partitions.with_under(key, under, end).is_none() {
                return Ok(());
            }
            cleared = self.clear(&id, next, sign_out).await?;
        }
        if let Err(failure) = number {
            // L2 has to be asked again. The session is over under the number that was known.
            let again = |_: &_, state: &mut State| {
                state.amend_sign_out(|pending| pending.is_confirmed = false);
            };
            let _ = self.partitions.with_under(key, under, again);
            return Err(failure);
        }
        let generation = cleared.generation;
        let now = self.now();
        // If L2 could not be asked for the generation, memory's has to do.
        let overlaps = generation > ends.or(expected).unwrap_or(0) + 1;
        let dropped = self.partitions.with_under(key, under, |_, state| {
            state.cleared(sign_out, generation, now);
            // In the same step: a change that begins after it belongs to the next session.
            match overlaps {
                true => state.signed_out_elsewhere(),
                false => 0,
            }
        });
        let dropped = dropped.unwrap_or(0);
        self.counters.signed_out_changes.add(dropped as u64);
        Ok(())
    }
}
