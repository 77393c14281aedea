//! The connections to one server.

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::address::Address;
use super::connection::{Answer, Command, Connection};
use crate::error::{StoreError, StoreErrorKind};

/// Connections at a time. A server takes 1024 of all its clients.
const MAX: usize = 16;

/// Each command has a connection of its own. A connection is closed when its command is dropped before the answer.
pub(super) struct Pool {
    address: Address,
    may_evict: bool,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Pool {
    pub(super) fn new(address: Address, may_evict: bool) -> Self {
        Self {
            address,
            may_evict,
            idle: Mutex::default(),
            places: Semaphore::new(MAX),
        }
    }

    /// Asks over a connection that is free, or over a new one. A command whose connection was cut is sent once more.
    /// If the server had made the change before, the command is answered as if another had been faster.
    pub(super) async fn ask(&self, command: &Command<'_>) -> Result<Answer, StoreError> {
        let _place = self.places.acquire().await.map_err(unreachable)?;
        let idle = self.idle.lock().pop();
        if let Some(mut connection) = idle {
            match connection.ask(command).await {
                Ok(answer) => return Ok(self.keep(connection, answer)),
                // The server was started anew, or has closed what was idle: the others are cut, too.
                Err(_) => self.idle.lock().clear(),
            }
        }
        let mut connection = self.connect().await?;
        let answer = connection.ask(command).await.map_err(unreachable)?;
        Ok(self.keep(connection, answer))
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
