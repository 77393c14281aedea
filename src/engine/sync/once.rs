//! One outcome for many waiters. They wake in the order in which they began to wait.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// Sends the outcome, once. Dropped without one, it makes every waiter return `None`.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Waits for the outcome. Cheap to clone.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    sent: Notify,
}

enum State<T> {
    Awaited,
    Sent(T),
    Never,
}

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Awaited),
        sent: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Shared<T> {
    fn end(&self, end: State<T>) {
        let mut state = self.lock();
        if matches!(*state, State::Awaited) {
            *state = end;
        }
        drop(state);
        self.sent.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, outcome: T) {
        self.0.end(State::Sent(outcome));
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.end(State::Never);
    }
}

impl<T: Clone> Receiver<T> {
    /// The outcome; `None` when there will be none.
    pub(crate) async fn outcome(&self) -> Option<T> {
        loop {
            let mut sent = pin!(self.0.sent.notified());
            // Registered before the check, so that no notification falls in between.
            sent.as_mut().enable();
            match &*self.0.lock() {
                State::Awaited => {}
                State::Sent(outcome) => return Some(outcome.clone()),
                State::Never => return None,
            }
            sent.await;
        }
    }
}

impl<T> Receiver<T> {
    /// Whether there is an outcome, or there will be none.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(*self.0.lock(), State::Awaited)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_told_in_the_order_of_coming() {
        let (sender, receiver) = channel();
        let order = Arc::<Mutex<Vec<u32>>>::default();
        let mut waiters = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (receiver, order) = (receiver.clone(), order.clone());
            waiters.spawn(async move {
                assert_eq!(receiver.outcome().await, Some("done"));
                order.lock().push(number);
            });
        }
        tokio::task::yield_now().await;
        sender.send("done");
        waiters.join_all().await;
        assert!(order.lock().is_sorted());
        assert_eq!(receiver.outcome().await, Some("done"), "and later too");
    }

    #[tokio::test]
    async fn a_sender_that_is_gone_strands_nobody() {
        let (sender, receiver) = channel::<()>();
        let waiter = tokio::spawn(async move { receiver.outcome().await });
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waiter.await.expect("no panic"), None);
    }
}
