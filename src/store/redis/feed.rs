//! The change feed of Redis: server-assisted client-side caching.
//!
//! One connection to each master says `CLIENT TRACKING ON BCAST PREFIX namespace:{`, and is told in RESP3 of
//! each key below that prefix that changes, whoever changes it and however: by a script, by hand, by expiry,
//! eviction or `FLUSHALL`. A reply to `PING` on the same connection comes after all that was told before it.
//! That is the proof; `ROLE` in the same message says whether the server is still the master.
//!
//! `PUBLISH` in the commit scripts was tried beside it. It could say version and writer, so that no own write
//! would have to be compared; but it says nothing of what others do to the keys, a cluster needs a
//! subscription per master all the same, and whoever may publish could invent messages. It costs the server as
//! much: both write to each listener once in a turn of the server's loop, and that is where the time goes
//! (`benches/peers/benches/telling.rs`; 66 to 81 bytes for each listener and commit against 105). `NOLOOP` is not
//! used: it does not leave out what scripts write, and remembers one writer per key and turn of the server's
//! loop, so that it could hide another.

mod ears;
mod places;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bb8_redis::redis::{ErrorKind, RedisError, RedisResult};
use futures_util::stream;
use tokio::time::{Instant, sleep_until};

use self::ears::{Ears, News};
use self::places::Places;
use super::access::Access;
use crate::race::{Either, race};
use crate::reasons::Reasons;
use crate::store::{Feed, FeedEvent};

/// How often the servers are asked for a proof.
const PROOF: Duration = Duration::from_millis(500);
/// Between attempts to listen; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that has told for so long ends the doubling. Each new one has all of memory compared, so that one
/// that is cut again and again must not be made at once.
const STEADY: Duration = Duration::from_secs(5);
/// Where the server does not allow it.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// What changes below this namespace on the servers of a URL.
pub(super) fn feed(access: &Access, namespace: &str) -> Option<Feed> {
    let listener = Listener {
        // The URL was found to be good when the store was built.
        places: Places::new(access).ok()?,
        prefix: format!("{namespace}:{{"),
        ears: None,
        proof: None,
        proof_at: Instant::now(),
        open_at: Instant::now(),
        began: Instant::now(),
        pause: FIRST_PAUSE,
        reasons: Reasons::default(),
        next: VecDeque::new(),
    };
    Some(Box::pin(stream::unfold(listener, async |mut listener| {
        Some((listener.event().await, listener))
    })))
}

struct Listener {
    places: Places,
    prefix: String,
    /// The connections, while all masters are listened to.
    ears: Option<Ears>,
    /// The next proof; it says when it was asked for.
    proof: Option<Proof>,
    proof_at: Instant,
    /// When the next attempt is made, and how long after the next one that fails.
    open_at: Instant,
    pause: Duration,
    /// When the connections were made.
    began: Instant,
    reasons: Reasons,
    /// What is told before anything else.
    next: VecDeque<FeedEvent>,
}

type Proof = Pin<Box<dyn Future<Output = RedisResult<Instant>> + Send>>;

impl Listener {
    async fn event(&mut self) -> FeedEvent {
        loop {
            if let Some(next) = self.next.pop_front() {
                return next;
            }
            let heard = match &mut self.ears {
                None => {
                    sleep_until(self.open_at).await;
                    match Ears::open(&self.places, &self.prefix).await {
                        Ok(ears) => {
                            self.begin(ears);
                            continue;
                        }
                        Err(failure) => Err(failure),
                    }
                }
                Some(_) => self.listen().await,
            };
            if let Err(failure) = heard {
                let was_alive = self.ears.take().is_some();
                self.proof = None;
                self.failed(&failure, was_alive);
                if was_alive {
                    return FeedEvent::Lost;
                }
            }
        }
    }

    fn begin(&mut self, ears: Ears) {
        self.ears = Some(ears);
        self.began = Instant::now();
        self.proof_at = self.began;
        self.next.push_back(FeedEvent::Everything);
    }

    /// Waits for what is told next, and asks for proofs.
    async fn listen(&mut self) -> RedisResult<()> {
        let Some(ears) = &mut self.ears else {
            return Ok(());
        };
        let proof = self.proof.get_or_insert_with(|| {
            let (at, proof) = (self.proof_at, ears.proof());
            Box::pin(async move {
                sleep_until(at).await;
                let asked = Instant::now();
                proof.await.map(|()| asked)
            })
        });
        match race(ears.news(), proof.as_mut()).await {
            Either::First(news) => self.tell(news?),
            Either::Second(proven) => {
                let asked = proven?;
                self.proof = None;
                self.proof_at = Instant::now() + PROOF;
                self.proven();
                // What was told before the answer is here by now.
                while let Some(news) = self.ears.as_mut().and_then(Ears::next) {
                    self.tell(news?);
                }
                self.next
                    .push_back(FeedEvent::CompleteUntil(asked.into_std()));
            }
        }
        Ok(())
    }

    /// What opens and proves nothing is no success.
    fn proven(&mut self) {
        if self.reasons.recovered() {
            tracing::info!("Redis tells what changes again");
        }
        if self.began.elapsed() >= STEADY {
            self.pause = FIRST_PAUSE;
        }
    }

    fn tell(&mut self, news: News) {
        self.next.push_back(match news {
            News::Changed(changed) if changed.is_empty() => return,
            News::Changed(changed) => FeedEvent::Changed(changed),
            News::Everything => FeedEvent::Everything,
        });
    }

    fn failed(&mut self, failure: &RedisError, was_alive: bool) {
        let refused = is_refused(failure);
        let pause = if refused { REFUSED_PAUSE } else { self.pause };
        self.open_at = Instant::now() + pause;
        if was_alive && !refused && self.pause == FIRST_PAUSE {
            // The first that goes wrong: it is over if the next attempt succeeds, and else that one says why.
            let error = failure as &dyn std::error::Error;
            tracing::debug!(error, "Redis has stopped telling what changes");
        } else {
            self.report(failure, refused);
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// One line for each reason, not for each attempt.
    fn report(&mut self, failure: &RedisError, refused: bool) {
        let error = failure as &dyn std::error::Error;
        match self.reasons.is_news(failure) {
            true if refused => tracing::warn!(
                error,
                "Redis does not tell what changes, so that memory is compared with it each second; the \
                 user needs the right +client|tracking of a server from 6.0 on, without a proxy in \
                 between; it is tried again every 30 s"
            ),
            true => tracing::warn!(error, "Redis does not tell what changes at the moment"),
            false => tracing::debug!(error, "Redis still does not tell what changes"),
        }
    }
}

/// Whether the server will not, or is too old to understand.
fn is_refused(failure: &RedisError) -> bool {
    matches!(failure.code(), Some("NOPERM" | "ERR" | "NOPROTO"))
        || failure.kind() == ErrorKind::RESP3NotSupported
}
