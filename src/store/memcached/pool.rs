//! The connections to one server.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::address::Address;
use super::connection::{Answer, Command, Connection};
use crate::error::{StoreError, StoreErrorKind};

/// Connections at a time. A server takes 1024 of all its clients.
const MAX: usize = 16;
/// How long one may take to be made: two round-trips, to a server that may be far away.
const CONNECT: Duration = Duration::from_secs(1);

/// Each command has a connection of its own. A connection is closed when its command is dropped before the answer.
/// Clones share the connections.
#[derive(Clone)]
pub(super) struct Pool {
    address: Arc<Address>,
    may_evict: bool,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new(address: Address, may_evict: bool) -> Self {
        Self {
            address: Arc::new(address),
            may_evict,
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(MAX)),
        }
    }

    /// Asks over a connection that is free, or over a new one. A command whose connection was cut is sent once more.
    /// If the server had made the change before, the command is answered as if another had been faster.
    pub(super) async fn ask(&self, command: &Command<'_>) -> Result<Answer, StoreError> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(unreachable)?;
        let idle = self.idle.lock().pop();
        if let Some(mut connection) = idle {
            match connection.ask(command).await {
                Ok(answer) => return Ok(self.keep(connection, answer)),
                // The server was started anew, or has closed what was idle: the others are cut, too.
                Err(_) => self.idle.lock().clear(),
            }
        }
        let (mut connection, _place) = self.connect_on(place).await?;
        let answer = connection.ask(command).await.map_err(unreachable)?;
        Ok(self.keep(connection, answer))
    }

    /// Whether the server takes a value of this length under this key, by its limit.
    pub(super) async fn takes(&self, key: &str, length: usize) -> Result<bool, StoreError> {
        if let Some(connection) = self.idle.lock().last() {
            return Ok(connection.server.takes(key, length));
        }
        let place = self.places.clone().acquire_owned().await;
        let (connection, _place) = self.connect_on(place.map_err(unreachable)?).await?;
        let takes = connection.server.takes(key, length);
        self.idle.lock().push(connection);
        Ok(takes)
    }

    /// A new connection. Where the command is dropped meanwhile, it is made to its end and kept for the next one: else a
    /// server that is far away would never be reached.
    async fn connect_on(
        &self,
        place: OwnedSemaphorePermit,
    ) -> Result<(Connection, OwnedSemaphorePermit), StoreError> {
        let (made, waits) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            let connected = tokio::time::timeout(CONNECT, pool.connect()).await;
            let connected = connected.unwrap_or_else(|late| Err(unreachable(late)));
            let connected = connected.map(|connection| (connection, place));
            if let Err(Ok((connection, _place))) = made.send(connected) {
                pool.idle.lock().push(connection);
            }
        });
        waits.await.map_err(unreachable)?
    }

    fn keep(&self, connection: Connection, answer: Answer) -> Answer {
        // After an error that it does not explain a server may take the rest of a value for a command.
        if !matches!(answer, Answer::Refused(_)) {
            self.idle.lock().push(connection);
        }
        answer
    }

    /// A connection to a server that keeps what it is told to keep.
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        let connection = Connection::open(&self.address).await.map_err(unreachable)?;
        match connection.server.evicts {
            Some(why) if !self.may_evict => {
                Err(StoreError::with_source(StoreErrorKind::Refused, why))
            }
            _ => Ok(connection),
        }
    }
}

fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::with_source(StoreErrorKind::Unreachable, error)
}
