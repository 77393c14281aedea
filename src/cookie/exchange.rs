//! `Exchange`: a request's cookies, and those of its response.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sealer::{Opened, SessionId};
use super::store::CookieStore;
use crate::cache::TokenCache;
use crate::codec::Unopenable;
use crate::key::{PartitionKey, RequestHead};
use crate::seal::KeyId;
use crate::store::{Pinned, Snapshot};
use crate::time::Timestamp;

/// One request and its response.
pub(crate) struct Exchange {
    store: CookieStore,
    session: SessionId,
    pinned: Arc<Pinned>,
    /// The cookies that the browser has.
    present: u32,
    /// What is in them, if that is to be left there.
    had: Option<Had>,
    /// They are to be sealed anew if this request uses the session.
    is_old: bool,
    /// They could not be opened, but another time they may.
    spared: bool,
    /// When the request came. Cookies that it sets count as set then: what it knows of sign-outs
    /// is from later.
    began: Timestamp,
}

/// Cookies that are used are sealed anew once this part of their age has gone.
const RENEWED_AFTER: u32 = 4;

/// What tells one state of a session from another.
#[derive(PartialEq)]
struct Had {
    generation: u64,
    changed_at: Timestamp,
    key: KeyId,
}

impl Exchange {
    /// Opens the cookies of a request. Also gives the partition of its session.
    pub(crate) fn begin(
        store: &CookieStore,
        cache: &TokenCache,
        head: &RequestHead<'_>,
    ) -> (Self, PartitionKey) {
        let inner = &store.0;
        let brought = inner.chunks.read(head, inner.max_size);
        let now = inner.clock.now();
        let text = brought.text;
        let opened = text.map(|text| text.and_then(|text| inner.sealer.open(&text)));
        let mut spared = false;
        let mut is_old = false;
        let opened = match opened {
            Some(Err(reason)) => {
                // Anybody can send such cookies: they are counted, and logged where that is wanted.
                tracing::debug!(
                    reason = reason.as_str(),
                    "the cookies of a request are unopenable"
                );
                cache.0.counters.unopenable(reason as usize);
                spared = reason == Unopenable::UnknownKey;
                None
            }
            Some(Ok(opened)) => {
                is_old = now.since(opened.issued_at) >= inner.max_age / RENEWED_AFTER;
                Some(opened)
            }
            None => None,
        };
        let resumed = opened.and_then(|opened| resume(store, cache, opened, now));
        let (session, key, pinned, had) = resumed.unwrap_or_else(|| {
            let session = new_session();
            let key = partition(&session);
            let pinned = Arc::new(inner.slots.pin(&cache.brought_id(&key)));
            (session, key, pinned, None)
        });
        let exchange = Self {
            store: store.clone(),
            session,
            pinned,
            present: brought.present,
            had,
            is_old,
            spared,
            began: now,
        };
        (exchange, key)
    }

    pub(crate) fn pinned(&self) -> &Arc<Pinned> {
        &self.pinned
    }

    /// The limit on the size of the cookies.
    pub(crate) fn limit(&self) -> usize {
        self.store.0.max_size
    }

    /// The values of the `Set-Cookie` lines that the response needs. Cookies are sealed anew, and
    /// begin another age, only where this request has used the session: its generation was then
    /// checked. A copy that is sent to a page without tokens stays as old as it is.
    pub(crate) fn finish(self) -> Vec<String> {
        let inner = &self.store.0;
        let now = inner.clock.now();
        let snapshot = self.pinned.snapshot();
        let chunks = &inner.chunks;
        match snapshot.filter(|snapshot| !snapshot.is_empty()) {
            Some(snapshot) => {
                let has = Had {
                    generation: snapshot.generation,
                    changed_at: snapshot.changed_at,
                    key: inner.sealer.ring().active(),
                };
                let stays = !self.is_old && self.had.as_ref() == Some(&has);
                if stays || !self.pinned.was_checked() {
                    return Vec::new();
                }
                let Some(text) = inner.sealer.seal(&self.session, &snapshot, self.began) else {
                    return Vec::new();
                };
                let life = life(&snapshot, now).min(inner.max_age);
                chunks.set(&text, max_age(life), self.present)
            }
            None if self.spared => Vec::new(),
            None => chunks.remove(self.present).collect(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.pinned.release();
    }
}

type Begun = (SessionId, PartitionKey, Arc<Pinned>, Option<Had>);

/// Goes on with a session from cookies, unless it is over.
fn resume(
    store: &CookieStore,
    cache: &TokenCache,
    opened: Opened,
    now: Timestamp,
) -> Option<Begun> {
    let snapshot = opened.snapshot;
    let ended = snapshot.end.is_some_and(|end| end <= now);
    if ended || !store.0.is_recent(opened.issued_at, now) {
        tracing::debug!("the cookies of a request are too old");
        return None;
    }
    if cache.has_revoked(opened.issued_at) {
        tracing::info!("the cookies of a request are from before everybody was signed out");
        return None;
    }
    let had = Had {
        generation: snapshot.generation,
        changed_at: snapshot.changed_at,
        key: opened.key,
    };
    let key = partition(&opened.session);
    match store.0.slots.resume(&cache.brought_id(&key), snapshot) {
        Ok(pinned) => Some((opened.session, key, Arc::new(pinned), Some(had))),
        Err(_) => {
            tracing::info!("the cookies of a request are from before a sign-out");
            None
        }
    }
}

/// How long a partition lives.
fn life(snapshot: &Snapshot, now: Timestamp) -> Duration {
    snapshot.end.map_or(Duration::MAX, |end| end.since(now))
}

/// To the nearest second, since clocks are not that exact; none at all would remove the cookie.
fn max_age(life: Duration) -> u64 {
    let seconds = life.saturating_add(Duration::from_millis(500)).as_secs();
    seconds.max(1)
}

fn partition(session: &SessionId) -> PartitionKey {
    PartitionKey::of_session(&URL_SAFE_NO_PAD.encode(session))
}

fn new_session() -> SessionId {
    let mut session = SessionId::default();
    if getrandom::fill(&mut session).is_err() {
        // A system without random numbers. Two of these only have to differ.
        for half in session.chunks_mut(8) {
            let random = std::hash::RandomState::new();
            let number = std::hash::BuildHasher::hash_one(&random, 0);
            half.copy_from_slice(&number.to_be_bytes());
        }
    }
    session
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_late_adds_no_second() {
        for (millis, seconds) in [(0, 1), (400, 1), (3_599_996, 3600), (3_600_004, 3600)] {
            assert_eq!(max_age(Duration::from_millis(millis)), seconds);
        }
    }
}
