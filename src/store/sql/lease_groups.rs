//! Leases that wait for a connection at the same time go out in one statement: however many sessions are refreshed
//! at once, each waits for a round-trip or two.

use super::dialect::Dialect;
use super::handle::SqlStore;
use super::leases::{Acquire, OfLease, Release, Waiting};
use super::operations::{Attempts, Taken};
use crate::error::StoreError;
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
        dialect.acquire_leases(connection, group).await
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
        dialect.release_leases(connection, group).await
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Waits for a connection, or for another that has one to ask this as well.
    pub(super) async fn ask<Q: Question<D>>(&self, question: Q) -> Result<Q::Answer, StoreError> {
        // Once more where the one that asked was dropped: whatever is asked can be repeated.
        loop {
            let mut answer = Q::waiting(self).add(question.clone());
            let answered = loop {
                match race(&mut answer, self.take()).await {
                    Either::First(answered) => break answered,
                    Either::Second(taken) => {
                        if !self.ask_group::<Q>(taken?).await {
                            // Another is asking this.
                            break answer.await;
                        }
                    }
                }
            };
            if let Ok(answer) = answered {
                return answer;
            }
        }
    }

    /// Asks what waits; whether anything did.
    async fn ask_group<Q: Question<D>>(&self, taken: Taken<D::Connection>) -> bool {
        let (group, replies) = Q::waiting(self).take();
        if group.is_empty() {
            taken.give_back();
            return false;
        }
        match self.answers(taken, &group).await {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(Ok(answer));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
        true
    }

    async fn answers<Q: Question<D>>(
        &self,
        mut taken: Taken<D::Connection>,
        group: &[Q],
    ) -> Result<Vec<Q::Answer>, StoreError> {
        let mut attempts = Attempts::new();
        loop {
            let asked = Q::ask(&self.dialect, &mut taken.connection, group);
            let answer = self.in_time(asked).await?;
            if let Some(answers) = self.settle(&mut attempts, taken, answer).await? {
                return Ok(answers);
            }
            taken = self.take().await?;
        }
    }
}
