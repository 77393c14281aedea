//! The change feed of a file: the rows that triggers write for each change, in every process.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use tokio::time::{Instant, sleep_until};

use super::SqliteStore;
use crate::store::{Feed, FeedEvent};

/// How often the file is asked.
const POLL: Duration = Duration::from_millis(250);
/// Changes that are told by name at once.
const MOST: i64 = 1000;

pub(super) fn feed(store: SqliteStore) -> Feed {
    let listener = Listener {
        store,
        last: None,
        poll_at: Instant::now(),
        next: VecDeque::new(),
    };
    Box::pin(stream::unfold(listener, async |mut listener| {
        Some((listener.event().await, listener))
    }))
}

struct Listener {
    store: SqliteStore,
    /// The number of the last change that was told; `None` while the file cannot be asked.
    last: Option<i64>,
    poll_at: Instant,
    /// What is told before anything else.
    next: VecDeque<FeedEvent>,
}

impl Listener {
    async fn event(&mut self) -> FeedEvent {
        loop {
            if let Some(next) = self.next.pop_front() {
                return next;
            }
            sleep_until(self.poll_at).await;
            let asked = Instant::now();
            self.poll_at = asked + POLL;
            match self.poll().await {
                Ok(()) => self
                    .next
                    .push_back(FeedEvent::CompleteUntil(asked.into_std())),
                // Whoever reads or writes is told why.
                Err(_) if self.last.take().is_some() => return FeedEvent::Lost,
                Err(_) => {}
            }
        }
    }

    async fn poll(&mut self) -> sqlx::Result<()> {
        let mut reader = self.store.reader().await?;
        let latest = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)";
        let latest: i64 = sqlx::query_scalar(latest)
            .fetch_one(&mut reader.connection)
            .await?;
        let before = self.last.replace(latest);
        let last = before.unwrap_or(latest);
        let changes = "SELECT partition_id FROM changes WHERE number > ? AND number <= ?";
        let changed: Vec<Vec<u8>> = match (last + 1..=last + MOST).contains(&latest) {
            true => {
                sqlx::query_scalar(changes)
                    .bind(last)
                    .bind(latest)
                    .fetch_all(&mut reader.connection)
                    .await?
            }
            false => Vec::new(),
        };
        reader.keep();
        if before.is_none() {
            self.next.push_back(FeedEvent::Everything);
        }
        if latest == last {
            return Ok(());
        }
        let digests = changed.iter().map(|id| <[u8; 32]>::try_from(&id[..]));
        let digests = digests.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        // Some may have been dropped, or the file is another than it was.
        let complete = digests.len() as i64 == latest - last;
        self.next.push_back(match complete {
            true => FeedEvent::Changed(digests),
            false => FeedEvent::Everything,
        });
        Ok(())
    }
}
