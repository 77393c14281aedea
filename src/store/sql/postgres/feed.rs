//! The change feed: `NOTIFY` by a trigger, and a connection that listens.
//!
//! The server keeps notifications in one queue, in the order of the commits, and a session gets them in that order. A
//! commit is acknowledged once its notifications are in the queue. So whoever hears its own notification has heard
//! all that was acknowledged before it was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Postgres;
use super::statements::TELLING;
use crate::random;
use crate::store::sql::dialect::Dialect;
use crate::store::sql::handle::SqlStore;
use crate::store::{Feed, FeedEvent};

/// How often it is proven that all has been heard.
const PROOF: Duration = Duration::from_millis(500);

/// How long an answer may take. After three seconds without a proof memory is not believed.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn feed(store: SqlStore<Postgres>) -> Feed {
    let listener = Listener {
        store,
        ears: None,
        due: Instant::now(),
        next: VecDeque::new(),
        complained: false,
    };
    Box::pin(stream::unfold(listener, async |mut listener| {
        Some((listener.event().await, listener))
    }))
}

struct Listener {
    store: SqlStore<Postgres>,
    ears: Option<Ears>,
    /// When to prove, or to connect again.
    due: Instant,
    /// What is told before anything else.
    next: VecDeque<FeedEvent>,
    /// Whether the log says that the triggers are missing.
    complained: bool,
}

/// A connection that listens.
struct Ears {
    /// `None` once it is dropped.
    listener: Option<PgListener>,
    /// The listener says goodbye in a task of its own.
    runtime: Handle,
    /// Which server it leads to.
    server: i64,
    /// A channel on which nobody else is heard.
    proofs: String,
    proof: u64,
    /// The triggers that told when it began.
    tellers: Vec<i64>,
}

impl Listener {
    async fn event(&mut self) -> FeedEvent {
        loop {
            if let Some(next) = self.next.pop_front() {
                return next;
            }
            match self.listen().await {
                Ok(()) => {}
                // Whoever reads or writes is told why.
                Err(_) if self.ears.take().is_some() => return FeedEvent::Lost,
                Err(_) => {}
            }
        }
    }

    async fn listen(&mut self) -> sqlx::Result<()> {
        let Some(ears) = &mut self.ears else {
            sleep_until(self.due).await;
            self.due = Instant::now() + PROOF;
            let ears = Ears::open(&self.store).await?;
            let telling = ears.tellers.len() == TELLING;
            if !telling && !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(
                    "no trigger tells what changes in PostgreSQL, or not each: memory is compared with it again and \
                     again. Enable them, or call `migrate`"
                );
            }
            if !telling {
                return Err(sqlx::Error::PoolClosed);
            }
            self.complained = false;
            self.ears = Some(ears);
            self.due = Instant::now();
            self.next.push_back(FeedEvent::Everything);
            return Ok(());
        };
        let listener = ears.listener.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let Ok(heard) = timeout_at(self.due, listener.try_recv()).await else {
            let asked = Instant::now();
            self.due = asked + PROOF;
            let mut proven = false;
            let prove = self.store.dialect.statements.prove();
            for heard in ears.prove(prove).await? {
                match heard {
                    Heard::Proof => proven = true,
                    Heard::Change(event) => self.next.push_back(event),
                }
            }
            if !proven || self.store.dialect.server.load(Ordering::Relaxed) != ears.server {
                // A pooler hides what is said, or the store has found another server meanwhile.
                return Err(sqlx::Error::PoolClosed);
            }
            let proven = FeedEvent::CompleteUntil(asked.into_std());
            self.next.push_back(proven);
            return Ok(());
        };
        let heard = heard?.ok_or(sqlx::Error::PoolClosed)?;
        // A proof of before is late.
        if heard.channel() == self.store.dialect.statements.channel {
            self.next.push_back(change(heard.payload()));
        }
        Ok(())
    }
}

enum Heard {
    Proof,
    Change(FeedEvent),
}

impl Ears {
    async fn open(store: &SqlStore<Postgres>) -> sqlx::Result<Self> {
        let opens = async {
            let dialect = &store.dialect;
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(store.response_timeout)
                .test_before_acquire(false)
                .connect_lazy_with(dialect.options().await?);
            let mut connection = pool.acquire().await?;
            dialect.prepare(&mut connection, PATIENCE).await?;
            let server = dialect.server.load(Ordering::Relaxed);
            let hear = sqlx::query_scalar(dialect.statements.hear());
            let tellers = hear.fetch_one(&mut *connection).await?;
            drop(connection);
            let number = random::number().map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
            let proofs = format!("{}{number:016x}", dialect.statements.proofs);
            let mut ears = Self {
                listener: None,
                runtime: Handle::current(),
                server,
                proofs,
                proof: 0,
                tellers,
            };
            let listener = PgListener::connect_with(&pool).await?;
            let listener = ears.listener.insert(listener);
            listener.eager_reconnect(false);
            listener.ignore_pool_close_event(true);
            let channels = [&dialect.statements.channel[..], &ears.proofs];
            listener.listen_all(channels).await?;
            ears.is_told(store).await?;
            Ok(ears)
        };
        let opened = timeout(store.response_timeout, opens).await;
        opened.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    /// Hears what another connection says while this one asks nothing. A pooler may give a connection for a question alone:
    /// what comes in between reaches nobody, and proofs are heard all the same.
    async fn is_told(&mut self, store: &SqlStore<Postgres>) -> sqlx::Result<()> {
        let mut taken = store.take().await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let says = sqlx::query("SELECT pg_notify($1, '') IS NULL").bind(&self.proofs);
        says.execute(&mut taken.connection).await?;
        taken.give_back();
        let listener = self.listener.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        // What is heard of changes is older than the `Everything` that a feed begins with.
        loop {
            let heard = listener.try_recv().await?.ok_or(sqlx::Error::PoolClosed)?;
            if heard.channel() == self.proofs {
                return Ok(());
            }
        }
    }

    /// Says something, and hears everything up to it. It is there with the answer. It proves nothing where triggers have
    /// been turned off, or are those of another table.
    async fn prove(&mut self, statement: AssertSqlSafe<Arc<str>>) -> sqlx::Result<Vec<Heard>> {
        self.proof += 1;
        let (proof, proofs) = (self.proof.to_string(), self.proofs.as_str());
        let listener = self.listener.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let says = sqlx::query_scalar::<_, Vec<i64>>(statement);
        let says = says.bind(proofs).bind(&proof).fetch_one(&mut *listener);
        let said = timeout(PATIENCE, says).await;
        if said.map_err(|_| sqlx::Error::PoolTimedOut)?? != self.tellers {
            return Err(sqlx::Error::PoolClosed);
        }
        let mut all = Vec::new();
        while let Some(heard) = listener.next_buffered() {
            match heard.channel() == proofs {
                true if heard.payload() == proof => all.push(Heard::Proof),
                true => {}
                false => all.push(Heard::Change(change(heard.payload()))),
            }
        }
        Ok(all)
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        let _runtime = self.runtime.enter();
        drop(self.listener.take());
    }
}

/// The names of partitions, or what says that they are too many.
fn change(payload: &str) -> FeedEvent {
    let digest = |name| -> Option<[u8; 32]> { STANDARD.decode(name).ok()?.try_into().ok() };
    let digests: Option<Vec<_>> = payload.split(' ').map(digest).collect();
    digests.map_or(FeedEvent::Everything, FeedEvent::Changed)
}
