//! Leases that wait for a connection at the same time go out in one statement: however many sessions are refreshed
//! at once, each waits for a round-trip or two.

use std::collections::HashMap;

use super::dialect::Dialect;
use super::handle::SqlStore;
use super::leases::{Acquire, Asked, OfLease, Release, Waiting, key};
use super::operations::{Attempts, Taken};
use crate::error::{StoreError, StoreErrorKind};
use crate::race::{Either, race};
use crate::store::LeaseState;

/// What is asked about many leases at once.
pub(super) trait Question<D: Dialect>: OfLease + Clone + Send + Sync {
    type Answer: Send;

    fn waiting(store: &SqlStore<D>) -> &Waiting<Self, Self::Answer>;

    /// The answers, in the same order.
    fn ask(
        dialect: &D,
        connection: &mut D::Connection,
        group: &[Self],
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Answer>>> + Send;
}

impl<D: Dialect> Question<D> for Acquire {
    type Answer = LeaseState;

    fn waiting(store: &SqlStore<D>) -> &Waiting<Self, LeaseState> {
        &store.acquired
    }

    async fn ask(
        dialect: &D,
        connection: &mut D::Connection,
        group: &[Self],
    ) -> sqlx::Result<Vec<LeaseState>> {
        let mut states = HashMap::new();
        let mut missing = group.to_vec();
        while !missing.is_empty() {
            states.extend(dialect.acquire_leases(connection, &missing).await?);
            missing.retain(|it| !states.contains_key(&key(&it.lease)));
        }
        let state = |it: &Self| states.get(&key(&it.lease)).copied();
        Ok(group.iter().filter_map(state).collect())
    }
}

impl<D: Dialect> Question<D> for Release {
    type Answer = bool;

    fn waiting(store: &SqlStore<D>) -> &Waiting<Self, bool> {
        &store.released
    }

    async fn ask(
        dialect: &D,
        connection: &mut D::Connection,
        group: &[Self],
    ) -> sqlx::Result<Vec<bool>> {
        let released = dialect.release_leases(connection, group).await?;
        let was_its = |it: &Self| released.contains(&key(&it.lease));
        Ok(group.iter().map(was_its).collect())
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Waits for a connection, or for another that has one to ask this as well.
    pub(super) async fn ask<Q: Question<D>>(&self, question: Q) -> Result<Q::Answer, StoreError> {
        let mut alone = false;
        loop {
            let mut answer = Q::waiting(self).add(question.clone(), alone);
            let answered = loop {
                match race(&mut answer, self.take()).await {
                    Either::First(answered) => break answered,
                    Either::Second(taken) => {
                        if !self.ask_group::<Q>(taken?).await {
                            // Another is asking this.
                            let _following = self.dialect.pool().following();
                            break answer.await;
                        }
                    }
                }
            };
            if let Ok(answer) = answered {
                return answer;
            }
            // The one that asked was dropped, or was late. Whatever is asked can be repeated.
            alone = true;
        }
    }

    /// Asks what waits; whether anything did.
    async fn ask_group<Q: Question<D>>(&self, mut taken: Taken<D::Connection>) -> bool {
        let mut group = Q::waiting(self).take();
        if group.is_empty() {
            taken.give_back();
            return false;
        }
        let mut attempts = Attempts::new();
        let answers = loop {
            let questions: Vec<_> = group.iter().map(|asked| asked.question.clone()).collect();
            let asked = Q::ask(&self.dialect, &mut taken.connection, &questions);
            let answer = match self.in_time(asked).await {
                Ok(answer) => self.settle(&mut attempts, taken, answer).await,
                Err(late) => Err(late),
            };
            match answer {
                Ok(Some(answers)) => break Ok(answers),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            taken = match self.take().await {
                Ok(taken) => taken,
                Err(error) => break Err(error),
            };
            // What nobody waits for any more may have been given back since.
            group.retain(Asked::is_awaited);
            if group.is_empty() {
                taken.give_back();
                return true;
            }
        };
        match answers {
            Ok(answers) => {
                for (asked, answer) in group.into_iter().zip(answers) {
                    let _ = asked.reply.send(Ok(answer));
                }
            }
            // One of them may have held the others up: each is asked again, alone.
            Err(error) if group.len() > 1 && error.kind() == StoreErrorKind::Timeout => {}
            Err(error) => {
                for asked in group {
                    let _ = asked.reply.send(Err(error.clone()));
                }
            }
        }
        true
    }
}
