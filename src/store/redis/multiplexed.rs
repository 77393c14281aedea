//! A connection that requests share.

use std::io;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{Pipeline, RedisResult, Value};
use tokio::sync::watch;

use super::access::Opened;
use super::credentials::Login;
use super::failure::was_cut;
use crate::race::{Either, race};

/// A multiplexed connection. When one request finds that it is cut, so do the others that are under way on it:
/// redis-rs may leave one of them without an answer until its timeout. Clones are the same connection.
#[derive(Clone)]
pub(super) struct Multiplexed {
    inner: MultiplexedConnection,
    login: Option<Login>,
    cut: watch::Sender<bool>,
}

impl Multiplexed {
    pub(super) fn new(opened: Opened) -> Self {
        Self {
            inner: opened.connection,
            login: opened.login,
            cut: watch::Sender::new(false),
        }
    }

    /// Sends all commands of the pipeline in one message. Each has an answer of its own.
    pub(super) async fn send(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        if let Some(login) = &self.login {
            login.renew(&self.inner);
        }
        let mut cut = self.cut.subscribe();
        let sending = self.inner.send_packed_commands(pipeline, 0, pipeline.len());
        // The sender lives in this.
        let answers = match race(sending, cut.wait_for(|cut| *cut)).await {
            Either::First(answers) => answers,
            Either::Second(_) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        };
        if answers.as_ref().is_err_and(was_cut) {
            self.cut.send_replace(true);
        }
        answers
    }
}
