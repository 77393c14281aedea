//! The store's feed as one instance hears it: late, repeated, held up, and cut off.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::sleep;
use tower_token_cache::TokenStore;
use tower_token_cache::store::{Feed, FeedEvent};

use super::sql::log;
use super::world::World;

/// What the store tells this instance.
pub fn feed(world: World, instance: usize, namespace: &str) -> Feed {
    let redraw = world.lock().instances[instance].redraw.clone();
    let ear = Ear {
        world,
        instance,
        namespace: namespace.to_owned(),
        redraw,
        told: None,
        on_its_way: VecDeque::new(),
    };
    Box::pin(stream::unfold(ear, async |mut ear| {
        Some((ear.event().await, ear))
    }))
}

struct Ear {
    world: World,
    instance: usize,
    namespace: String,
    redraw: Arc<Notify>,
    /// What the store tells, while there is a connection.
    told: Option<Feed>,
    /// With the time when it arrives; in the order in which it was told.
    on_its_way: VecDeque<(u64, FeedEvent)>,
}

/// What the line does now.
enum Line {
    Cut,
    /// Nothing arrives until then.
    HeldUp(u64),
    Open,
}

impl Ear {
    async fn event(&mut self) -> FeedEvent {
        loop {
            let (now, line) = self.line();
            match line {
                Line::Cut if self.told.take().is_some() => {
                    self.on_its_way.clear();
                    return FeedEvent::Lost;
                }
                Line::Cut => {
                    self.wait(50).await;
                    continue;
                }
                Line::HeldUp(until) => {
                    self.wait(until - now).await;
                    continue;
                }
                Line::Open => {}
            }
            if self.told.is_none() {
                // The first that it tells is that anything may have changed.
                sleep(Duration::from_millis(1)).await;
                let (told, logs) = {
                    let state = self.world.lock();
                    let logs = state.sql.as_ref().is_some_and(|sql| sql.logs);
                    (state.server.store.feed(&self.namespace), logs)
                };
                self.told = match logs {
                    true => Some(log(self.world.clone())),
                    false => told,
                };
                continue;
            }
            if self.on_its_way.front().is_some_and(|(due, _)| *due <= now)
                && let Some((_, event)) = self.on_its_way.pop_front()
            {
                return event;
            }
            let first = self.on_its_way.front().map_or(1000, |(due, _)| due - now);
            let Some(told) = &mut self.told else { continue };
            let event = tokio::select! {
                biased;
                () = self.redraw.notified() => continue,
                event = told.next() => event.expect("a feed does not end"),
                () = sleep(Duration::from_millis(first)) => continue,
            };
            self.send(event);
        }
    }

    fn line(&self) -> (u64, Line) {
        let state = self.world.lock();
        let own = &state.instances[self.instance];
        let line = match () {
            () if own.cut || own.ended.is_some() => Line::Cut,
            () if state.now < own.asleep_until() => Line::HeldUp(own.asleep_until()),
            () if state.now < own.held_up_until => Line::HeldUp(own.held_up_until),
            () => Line::Open,
        };
        (state.now, line)
    }

    async fn wait(&mut self, millis: u64) {
        tokio::select! {
            () = self.redraw.notified() => {}
            () = sleep(Duration::from_millis(millis)) => {}
        }
    }

    fn send(&mut self, event: FeedEvent) {
        let mut state = self.world.lock();
        let line = state.line;
        let due = state.now + state.rng.between(0, line.longest);
        let due = self
            .on_its_way
            .back()
            .map_or(due, |(last, _)| due.max(*last));
        let again = matches!(event, FeedEvent::Changed(_)) && state.rng.percent(line.repeats);
        if again {
            self.on_its_way.push_back((due, event.clone()));
        }
        self.on_its_way.push_back((due, event));
    }
}
