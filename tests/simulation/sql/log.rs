//! The log of changes, and who reads it.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use tokio::time::{Instant, sleep_until};
use tower_token_cache::store::{Feed, FeedEvent, Numbers};

use super::Sql;
use crate::world::World;

/// How often the log is read.
const POLL: Duration = Duration::from_millis(250);

impl Sql {
    /// What is new in the log since these numbers, in the order of a reader.
    fn read_log(&self, numbers: &Numbers) -> Vec<(u64, [u8; 32])> {
        let newer = self.log.range(numbers.last() + 1..);
        let newer = newer.map(|(number, digest)| (*number, *digest));
        let late = numbers.missing();
        let late = late.filter_map(|number| Some((number, *self.log.get(&number)?)));
        newer.chain(late).collect()
    }
}

/// What a database tells by its log.
pub fn log(world: World) -> Feed {
    let reader = Reader {
        world,
        numbers: None,
        due: Instant::now(),
        next: VecDeque::new(),
    };
    Box::pin(stream::unfold(reader, async |mut reader| {
        Some((reader.event().await, reader))
    }))
}

struct Reader {
    world: World,
    numbers: Option<Numbers>,
    due: Instant,
    /// What is told before anything else.
    next: VecDeque<FeedEvent>,
}

impl Reader {
    async fn event(&mut self) -> FeedEvent {
        loop {
            if let Some(next) = self.next.pop_front() {
                return next;
            }
            sleep_until(self.due).await;
            let asked = Instant::now();
            self.due = asked + POLL;
            let mut state = self.world.lock();
            if state.refuses(true) {
                match self.numbers.take() {
                    Some(_) => return FeedEvent::Lost,
                    None => continue,
                }
            }
            let numbers = self.numbers.get_or_insert_with(|| {
                self.next.push_back(FeedEvent::Everything);
                Numbers::after(0)
            });
            let read = state.sql().read_log(numbers);
            for (number, _) in &read {
                numbers.read(*number, asked);
            }
            assert!(numbers.settle(asked), "the log is short");
            let digests: Vec<_> = read.into_iter().map(|(_, digest)| digest).collect();
            if !digests.is_empty() {
                self.next.push_back(FeedEvent::Changed(digests));
            }
            self.next
                .push_back(FeedEvent::CompleteUntil(asked.into_std()));
        }
    }
}
