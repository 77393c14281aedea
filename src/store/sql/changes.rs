//! Changes: read, apply the contract, write where nothing has changed meanwhile, or begin again.

use super::dialect::Dialect;
use super::handle::SqlStore;
use super::operations::Attempts;
use super::plan::{Plan, Write};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::found::Depth;
use crate::store::partition::Partition;
use crate::store::{Commit, Origin, Outcome, PartitionId};
use crate::time::Timestamp;

impl<D: Dialect> SqlStore<D> {
    /// Changes partitions, each by itself. `act` is told which of them, and may be called several times, of which
    /// the last counts.
    pub(super) async fn change<R: Send>(
        &self,
        ids: &[&PartitionId],
        act: impl Fn(usize, &mut Option<Partition>, Timestamp) -> R + Send + Sync,
    ) -> Vec<Result<R, StoreError>> {
        let mut answers: Vec<Option<Result<R, StoreError>>> = ids.iter().map(|_| None).collect();
        let mut attempts = Attempts::new();
        let error = loop {
            // A partition that is named twice is changed twice, one after the other.
            let mut round: Vec<usize> = Vec::with_capacity(ids.len());
            for at in (0..ids.len()).filter(|at| answers[*at].is_none()) {
                if ids.len() == 1 || !round.iter().any(|other| ids[*other] == ids[at]) {
                    round.push(at);
                }
            }
            if round.is_empty() {
                return answers.into_iter().flatten().collect();
            }
            let named: Vec<_> = round.iter().map(|at| ids[*at]).collect();
            let acted = self.attempt(&mut attempts, &named, false, |partitions, now| {
                let each = partitions.iter_mut().zip(&round);
                each.map(|(stored, at)| act(*at, stored, now))
                    .collect::<Vec<_>>()
            });
            match acted.await {
                Ok((results, stands)) => {
                    let done = results.into_iter().zip(stands).zip(&round);
                    for ((result, stands), at) in done {
                        answers[*at] = stands.then_some(Ok(result));
                    }
                }
                Err(error) => break error,
            }
        };
        let refused = [StoreErrorKind::Refused, StoreErrorKind::TooLarge];
        let alone = refused.contains(&error.kind()) && ids.len() > 1;
        for (at, answer) in answers
            .iter_mut()
            .enumerate()
            .filter(|(_, it)| it.is_none())
        {
            // One of them is refused, perhaps for its size: the others must not suffer.
            *answer = Some(match alone {
                true => {
                    self.change_one(ids[at], |stored, now| act(at, stored, now))
                        .await
                }
                false => Err(error.clone()),
            });
        }
        answers.into_iter().flatten().collect()
    }

    /// Changes one partition.
    pub(super) async fn change_one<R: Send>(
        &self,
        id: &PartitionId,
        act: impl Fn(&mut Option<Partition>, Timestamp) -> R + Send + Sync,
    ) -> Result<R, StoreError> {
        let mut attempts = Attempts::new();
        loop {
            let ids = [id];
            let acted = self.attempt(&mut attempts, &ids, false, |partitions, now| {
                partitions.first_mut().map(|stored| act(stored, now))
            });
            let (result, stands) = acted.await?;
            if let (Some(result), [true]) = (result, &stands[..]) {
                return Ok(result);
            }
        }
    }

    /// Moves a partition: both are changed, or neither.
    pub(super) async fn relocate_together(
        &self,
        from: &Origin,
        commit: &Commit,
    ) -> Result<Outcome, StoreError> {
        let ids = [&from.partition, &commit.partition];
        let relocate = |partitions: &mut [Option<Partition>], now| {
            let [source, target] = partitions else {
                return None;
            };
            Some(Partition::relocate(source, target, from, commit, now))
        };
        let mut attempts = Attempts::new();
        loop {
            let (outcome, stands) = self.attempt(&mut attempts, &ids, true, relocate).await?;
            if let (Some(outcome), [true, true]) = (outcome, &stands[..]) {
                return Ok(outcome);
            }
        }
    }

    /// One attempt: what `act` answers, and for each partition whether that stands. Where not all stand it has
    /// paused already.
    async fn attempt<R: Send>(
        &self,
        attempts: &mut Attempts,
        ids: &[&PartitionId],
        together: bool,
        act: impl Fn(&mut [Option<Partition>], Timestamp) -> R + Send + Sync,
    ) -> Result<(R, Vec<bool>), StoreError> {
        let (result, stands) = loop {
            let mut taken = self.take().await?;
            let changed = self.change_over(&mut taken.connection, ids, together, &act);
            let changed = self.in_time(changed).await?;
            if let Some(changed) = self.settle(attempts, taken, changed).await? {
                break changed;
            }
        };
        if !stands.iter().all(|stands| *stands) {
            attempts.pause().await?;
        }
        Ok((result, stands))
    }

    async fn change_over<R: Send>(
        &self,
        connection: &mut D::Connection,
        ids: &[&PartitionId],
        together: bool,
        act: &(impl Fn(&mut [Option<Partition>], Timestamp) -> R + Send + Sync),
    ) -> sqlx::Result<(R, Vec<bool>)> {
        let (now, found) = self.dialect.read(connection, ids, Depth::Heads).await?;
        self.dialect.pool().answered();
        let mut partitions: Vec<_> = found.iter().map(|it| it.partition.clone()).collect();
        let result = act(&mut partitions, now);
        let mut plan = Plan::new(together, now);
        let mut planned = Vec::new();
        for (at, (found, next)) in found.iter().zip(&partitions).enumerate() {
            let write = Write::new(*ids[at].digest(), found, next.as_ref());
            if let Some(write) = write.map_err(no_randomness)? {
                plan.writes.push(write);
                planned.push(at);
            }
        }
        let mut stands = vec![true; ids.len()];
        if plan.writes.is_empty() {
            return Ok((result, stands));
        }
        planned.iter().for_each(|at| stands[*at] = false);
        for won in self.dialect.write(connection, &plan).await? {
            stands[planned[won]] = true;
        }
        Ok((result, stands))
    }
}

fn no_randomness(error: getrandom::Error) -> sqlx::Error {
    sqlx::Error::Encode(Box::new(error))
}
