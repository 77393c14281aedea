//! Somebody who listens to what a store tells.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::time::timeout;
use tower_token_cache::store::{Feed, FeedEvent, PartitionId, TokenStore};

/// Longer than any failover here takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Listener(Feed);

/// What was told until something was waited for.
#[derive(Debug, Default)]
pub struct Told {
    pub changed: Vec<[u8; 32]>,
    pub everything: bool,
    pub lost: bool,
}

impl Told {
    /// Whether the partition was named.
    pub fn names(&self, partition: &PartitionId) -> bool {
        self.changed.contains(partition.digest())
    }
}

impl Listener {
    /// One that has begun, and has proven it.
    pub async fn on(store: &impl TokenStore, namespace: &str) -> Self {
        let mut listener = Self(store.feed(namespace).expect("it has a feed"));
        let told = listener.until_now().await;
        assert!(told.everything, "how a feed begins");
        listener
    }

    /// One that has not begun.
    pub fn silent(store: &impl TokenStore, namespace: &str) -> Self {
        Self(store.feed(namespace).expect("it has a feed"))
    }

    /// What is told until it is proven that all that was acknowledged by now has been.
    pub async fn until_now(&mut self) -> Told {
        let now = Instant::now();
        let proven =
            |event: &FeedEvent| matches!(event, FeedEvent::CompleteUntil(at) if *at >= now);
        self.until("a proof", proven).await
    }

    /// What is told until nothing is told any more.
    pub async fn until_lost(&mut self) -> Told {
        let lost = |event: &FeedEvent| *event == FeedEvent::Lost;
        self.until("that it is lost", lost).await
    }

    /// Waits until nothing is told any more, and then for a new beginning.
    pub async fn begins_again(&mut self) {
        self.until_lost().await;
        assert!(self.until_now().await.everything);
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&FeedEvent) -> bool) -> Told {
        let mut told = Told::default();
        let listens = async {
            loop {
                let event = self.0.next().await.expect("a feed does not end");
                let is_wanted = wanted(&event);
                match event {
                    FeedEvent::Changed(changed) => told.changed.extend(changed),
                    FeedEvent::Everything => told.everything = true,
                    FeedEvent::Lost => told.lost = true,
                    _ => {}
                }
                if is_wanted {
                    return;
                }
            }
        };
        let heard = timeout(PATIENCE, listens).await;
        assert!(heard.is_ok(), "not heard: {what}; but {told:?}");
        told
    }

    /// Asserts that nothing is proven for a while, in which something would be.
    pub async fn proves_nothing(&mut self, during: Duration) {
        let proves = async {
            loop {
                if let Some(FeedEvent::CompleteUntil(_)) = self.0.next().await {
                    return;
                }
            }
        };
        assert!(timeout(during, proves).await.is_err(), "it was proven");
    }
}
