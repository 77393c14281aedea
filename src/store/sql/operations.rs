//! What each operation needs: a connection, an answer in time, and another attempt where that can help.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::dialect::Dialect;
use super::failure::{Verdict, store_error, verdict};
use super::handle::SqlStore;
use crate::error::{StoreError, StoreErrorKind};
use crate::patience::in_a_task;
use crate::store::PartitionId;
use crate::store::found::{Depth, Found};
use crate::store::pool::Place;
use crate::store::retries::Retries;
use crate::time::Timestamp;

/// The attempts of one operation.
pub(super) struct Attempts {
    retries: Retries,
    /// An answer was lost: what was asked for may have been done.
    pub(super) was_cut: bool,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            retries: Retries::new(),
            was_cut: false,
        }
    }

    /// Pauses after another instance has come first.
    pub(super) async fn pause(&mut self) -> Result<(), StoreError> {
        self.retries.pause().await
    }
}

/// A connection that an operation has for itself. Dropped, it is closed.
pub(super) struct Taken<C> {
    pub(super) connection: C,
    since: Instant,
    place: Place<C>,
}

impl<C> Taken<C> {
    pub(super) fn give_back(self) {
        self.place.keep(self.connection, self.since);
    }
}

impl<D: Dialect> SqlStore<D> {
    pub(super) async fn read(
        &self,
        ids: &[&PartitionId],
        depth: Depth,
    ) -> Result<(Timestamp, Vec<Found>), StoreError> {
        let mut attempts = Attempts::new();
        loop {
            let mut taken = self.take().await?;
            let asked = self.dialect.read(&mut taken.connection, ids, depth);
            let answer = self.in_time(asked).await?;
            if let Some(answer) = self.settle(&mut attempts, taken, answer).await? {
                return Ok(answer);
            }
        }
    }

    /// A connection that was idle, or a new one.
    pub(super) async fn take(&self) -> Result<Taken<D::Connection>, StoreError> {
        let place = timeout(self.response_timeout, self.dialect.pool().place()).await;
        let Ok(Some(place)) = place else {
            return Err(StoreError::new(StoreErrorKind::Timeout));
        };
        if let Some((connection, since)) = place.idle() {
            return Ok(Taken {
                connection,
                since,
                place,
            });
        }
        // In a task of its own: from far away, or while the password is asked for, it may take longer than this
        // operation waits. Then it is there for the next one.
        let (store, (sender, connected)) = (self.clone(), oneshot::channel());
        tokio::spawn(in_a_task(async move {
            let connected = match store.connect().await {
                // Cut on the way, as a connection that was idle can be.
                Err(error) if error.kind() == StoreErrorKind::Unreachable => store.connect().await,
                connected => connected,
            };
            let taken = connected.map(|connection| Taken {
                connection,
                since: Instant::now(),
                place,
            });
            if let Err(Ok(late)) = sender.send(taken) {
                late.give_back();
            }
        }));
        let ended = |_| Err(StoreError::new(StoreErrorKind::Unreachable));
        connected.await.unwrap_or_else(ended)
    }

    /// Waits for an answer, and not for long. The connection of one that is late is dropped with the error.
    pub(super) async fn in_time<R>(
        &self,
        asked: impl Future<Output = sqlx::Result<R>>,
    ) -> Result<sqlx::Result<R>, StoreError> {
        let late = |_| StoreError::new(StoreErrorKind::Timeout);
        timeout(self.response_timeout, asked).await.map_err(late)
    }

    /// Gives a connection back that has answered. `None` is to ask again: where the database has given up for the sake
    /// of others, or once where the connection was cut. Whatever is asked can be repeated.
    pub(super) async fn settle<R>(
        &self,
        attempts: &mut Attempts,
        taken: Taken<D::Connection>,
        answer: sqlx::Result<R>,
    ) -> Result<Option<R>, StoreError> {
        let error = match answer {
            Ok(answer) => {
                self.dialect.pool().answered();
                taken.give_back();
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        match verdict(&error, D::verdict) {
            Verdict::Again => {
                taken.give_back();
                attempts.pause().await?;
            }
            Verdict::Cut if !attempts.was_cut => {
                attempts.was_cut = true;
                self.dialect.pool().clear();
            }
            verdict => return Err(store_error(error, verdict)),
        }
        Ok(None)
    }

    /// A connection that is ready.
    pub(super) async fn connect(&self) -> Result<D::Connection, StoreError> {
        let connects = async {
            let mut connection = self.dialect.connect().await?;
            self.dialect.pool().answered();
            let prepared = self.dialect.prepare(&mut connection, self.response_timeout);
            prepared.await?;
            self.dialect.pool().answered();
            Ok(connection)
        };
        let connected = match timeout(self.response_timeout, connects).await {
            Ok(connected) => connected.map_err(|error| {
                let verdict = verdict(&error, D::verdict);
                store_error(error, verdict)
            }),
            Err(_) => Err(StoreError::new(StoreErrorKind::Timeout)),
        };
        let failed = connected.is_err();
        let before = self.fails.swap(failed, Ordering::Relaxed);
        if let (Err(error), false) = (&connected, before) {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, source, "no connection to the database");
        }
        connected
    }

    pub(super) async fn make_tables(&self) -> Result<(), StoreError> {
        let migrated = async {
            let mut connection = self.dialect.connect().await?;
            self.dialect.migrate(&mut connection).await
        };
        migrated.await.map_err(|error: sqlx::Error| {
            let verdict = verdict(&error, D::verdict);
            store_error(error, verdict)
        })
    }
}
