//! Those who wait until L2 has a partition's changes or its sign-out.

use tokio::sync::oneshot;

use crate::engine::error::L2Error;
use crate::engine::partition::change::Written;

#[derive(Default)]
pub(crate) struct Waiters(Vec<Waiter>);

struct Waiter {
    reply: oneshot::Sender<Result<Written, L2Error>>,
    /// A sign-out has discarded what this waiter waits for, or some of it.
    ended: bool,
}

impl Waiters {
    pub(crate) fn wait(&mut self) -> oneshot::Receiver<Result<Written, L2Error>> {
        let (reply, receiver) = oneshot::channel();
        self.0.retain(|waiter| !waiter.reply.is_closed());
        self.0.push(Waiter {
            reply,
            ended: false,
        });
        receiver
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over those of `others`.
    pub(crate) fn join(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    /// A sign-out has discarded what they wait for.
    pub(crate) fn end(&mut self) {
        self.0.iter_mut().for_each(|waiter| waiter.ended = true);
    }

    /// What they wait for is written, or sending has failed.
    pub(crate) fn notify(&mut self, failure: Option<&L2Error>) {
        for Waiter { reply, ended } in self.0.drain(..) {
            let outcome = match failure {
                Some(failure) => Err(failure.clone()),
                None if ended => Ok(Written::Ended),
                None => Ok(Written::All),
            };
            // The caller may have stopped waiting.
            let _ = reply.send(outcome);
        }
    }
}
