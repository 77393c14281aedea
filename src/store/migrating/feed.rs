//! The feeds of two stores as one.

use std::time::Instant;

use futures_util::stream::{self, Stream, StreamExt};

use crate::store::{Feed, FeedEvent};

/// What is known of the feed of one store.
#[derive(Clone, Copy, Default)]
struct Side {
    /// From its `Everything` until it is lost.
    alive: bool,
    until: Option<Instant>,
}

struct Merged<S> {
    events: S,
    sides: [Side; 2],
    told_until: Option<Instant>,
    is_lost: bool,
}

/// It is alive while both are, and complete until both are.
pub(super) fn merge(old: Feed, new: Feed) -> Feed {
    let events = stream::select(old.map(|event| (0, event)), new.map(|event| (1, event)));
    let merged = Merged {
        events,
        sides: [Side::default(); 2],
        told_until: None,
        is_lost: false,
    };
    Box::pin(stream::unfold(merged, async |mut merged| {
        Some((merged.next().await?, merged))
    }))
}

impl<S: Stream<Item = (usize, FeedEvent)> + Unpin> Merged<S> {
    async fn next(&mut self) -> Option<FeedEvent> {
        loop {
            let (side, event) = self.events.next().await?;
            if let Some(event) = self.take(side, event) {
                return Some(event);
            }
        }
    }

    /// What is told of this, if anything.
    fn take(&mut self, side: usize, event: FeedEvent) -> Option<FeedEvent> {
        match event {
            FeedEvent::Everything => {
                let alive = true;
                let until = None;
                self.sides[side] = Side { alive, until };
                self.is_lost &= !self.is_alive();
                self.is_alive().then_some(FeedEvent::Everything)
            }
            FeedEvent::Lost => {
                self.sides[side] = Side::default();
                let is_news = !std::mem::replace(&mut self.is_lost, true);
                is_news.then_some(FeedEvent::Lost)
            }
            // What comes while one of them is not alive is covered by the `Everything` that it begins with.
            FeedEvent::Changed(digests) => self.is_alive().then_some(FeedEvent::Changed(digests)),
            FeedEvent::CompleteUntil(until) => {
                self.sides[side].until = Some(until);
                let [old, new] = self.sides.map(|side| side.until.filter(|_| side.alive));
                let both = old?.min(new?);
                let is_news = self.told_until.is_none_or(|told| told < both);
                self.told_until = self.told_until.max(Some(both));
                is_news.then_some(FeedEvent::CompleteUntil(both))
            }
        }
    }

    fn is_alive(&self) -> bool {
        self.sides.iter().all(|side| side.alive)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn merged() -> Merged<stream::Empty<(usize, FeedEvent)>> {
        Merged {
            events: stream::empty(),
            sides: [Side::default(); 2],
            told_until: None,
            is_lost: false,
        }
    }

    #[test]
    fn it_is_alive_while_both_are() {
        use FeedEvent::{Changed, Everything, Lost};
        let mut feed = merged();
        let changed = || Changed(vec![[1; 32]]);
        assert_eq!(feed.take(0, Everything), None);
        assert_eq!(feed.take(0, changed()), None);
        assert_eq!(feed.take(1, Everything), Some(Everything));
        assert_eq!(feed.take(0, changed()), Some(changed()));
        assert_eq!(feed.take(1, Lost), Some(Lost));
        assert_eq!(feed.take(0, Lost), None);
        assert_eq!(feed.take(1, Everything), None);
        assert_eq!(feed.take(1, changed()), None);
        assert_eq!(feed.take(0, Everything), Some(Everything));
        assert_eq!(feed.take(0, Lost), Some(Lost));
    }

    #[test]
    fn it_is_complete_until_both_are() {
        use FeedEvent::{CompleteUntil, Everything, Lost};
        let mut feed = merged();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        feed.take(0, Everything);
        feed.take(1, Everything);
        assert_eq!(feed.take(0, CompleteUntil(at(2))), None);
        assert_eq!(
            feed.take(1, CompleteUntil(at(1))),
            Some(CompleteUntil(at(1)))
        );
        assert_eq!(
            feed.take(1, CompleteUntil(at(3))),
            Some(CompleteUntil(at(2)))
        );
        assert_eq!(feed.take(1, CompleteUntil(at(4))), None);
        feed.take(0, Lost);
        assert_eq!(feed.take(1, CompleteUntil(at(5))), None);
        feed.take(0, Everything);
        assert_eq!(
            feed.take(1, CompleteUntil(at(6))),
            None,
            "the other has not said so since"
        );
        assert_eq!(
            feed.take(0, CompleteUntil(at(7))),
            Some(CompleteUntil(at(6)))
        );
    }
}
