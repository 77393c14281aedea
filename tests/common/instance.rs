//! Instances of an application that share a channel.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tower_token_cache::RedisBackplane;
use tower_token_cache::backplane::{
    self, Backplane, ChannelStats, Event, Events, Invalidation, Publisher,
};

/// Longer than it takes to be on the channel again, once that is possible.
pub const RECOVERED: Duration = Duration::from_secs(8);

/// A cache's side of it.
pub struct Instance {
    pub publisher: Publisher,
    pub events: Events,
}

impl Instance {
    pub async fn on(url: &str) -> Self {
        Self::over(RedisBackplane::connect(url).await.unwrap()).await
    }

    pub async fn over(backplane: impl Backplane) -> Self {
        let mut instance = Self::open(backplane);
        instance.alive(RECOVERED).await;
        instance
    }

    pub fn open(backplane: impl Backplane) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let (publisher, events) = backplane::open(Arc::new(backplane), "ns", &runtime).unwrap();
        Self { publisher, events }
    }

    /// Waits for an event, past others: a busy machine may cause a gap at any time.
    pub async fn until(&mut self, within: Duration, what: &str, wanted: impl Fn(&Event) -> bool) {
        let search = async { while !wanted(&self.events.next().await) {} };
        assert!(timeout(within, search).await.is_ok(), "not heard: {what}");
    }

    pub async fn alive(&mut self, within: Duration) {
        let alive = |event: &Event| matches!(event, Event::Alive { .. });
        self.until(within, "that it is alive", alive).await;
    }

    pub async fn lost(&mut self, within: Duration) {
        let lost = |event: &Event| matches!(event, Event::Lost { .. });
        self.until(within, "that it is lost", lost).await;
    }

    pub async fn hears(&mut self, number: u64) {
        let wanted = |event: &Event| match event {
            Event::Invalidated(batch) => batch.contains(&invalidation(number)),
            _ => false,
        };
        self.until(RECOVERED, "the invalidation", wanted).await;
    }

    pub fn publish(&self, number: u64) {
        self.publisher.publish([invalidation(number)]);
    }

    pub fn stats(&self) -> ChannelStats {
        self.publisher.stats()
    }
}

pub fn invalidation(number: u64) -> Invalidation {
    Invalidation {
        partition: [7; 32],
        generation: 1,
        version: number,
        commit: None,
    }
}
