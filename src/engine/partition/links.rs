//! Users' epochs, and the sessions that are linked to them.
//!
//! A link is an entry of the session's own partition that names a user's epoch in L2 and its number.
//! The session is alive only while the epoch has exactly that number. So one raise of the epoch
//! ends every session that was ever linked, on every instance, whether or not anybody has a list of
//! them; an epoch that is lost ends them, too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

use crate::codec::Value;
use crate::engine::namespace::Number;
use crate::engine::partition::entries::ByName;
use crate::engine::partition::entry::Entry;
use crate::key::TokenKey;
use crate::sabotage::{self, Sabotage};
use crate::secret::Secret;
use crate::store::LINK;
use crate::time::Timestamp;

/// Set while others may have raised the epoch, and L2 was not asked since.
const STALE: u64 = 1 << 63;
/// Set while the user is signed out here, and L2 has yet to hear of it: no number is alive.
const PENDING: u64 = 1 << 62;
/// Set beside [`STALE`] where the feed has told of this very epoch.
const TOLD: u64 = 1 << 61;
/// The rest is the highest number known.
const NUMBER: u64 = TOLD - 1;

/// What this process knows of a user's epoch. The sessions in memory share it.
pub(crate) struct UserEpoch {
    pub(crate) digest: [u8; 32],
    /// The highest number known, [`STALE`], [`TOLD`] and [`PENDING`].
    latest: AtomicU64,
    /// How often others have said that it has changed.
    hints: AtomicU32,
}

impl UserEpoch {
    /// Whether sessions with this number are over.
    pub(crate) fn is_over(&self, number: u64) -> bool {
        self.latest.load(Ordering::Acquire) & !(STALE | TOLD) > number
    }

    /// To be taken before L2 is asked.
    pub(crate) fn hints(&self) -> u32 {
        self.hints.load(Ordering::Acquire)
    }

    /// L2 has said this, asked after so many hints.
    pub(crate) fn answered(&self, number: u64, hints: u32) {
        self.learn(number, 0);
        if self.hints() == hints {
            self.learn(number, STALE | TOLD);
            if self.hints() != hints {
                self.latest.fetch_or(STALE | TOLD, Ordering::AcqRel);
            }
        }
    }

    /// Takes in a number, and takes this flag away.
    fn learn(&self, number: u64, flag: u64) {
        let settle = |latest: u64| Some(latest & !NUMBER & !flag | (latest & NUMBER).max(number));
        let _ = self
            .latest
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, settle);
    }

    fn known(&self) -> u64 {
        self.latest.load(Ordering::Acquire) & NUMBER
    }

    /// The least number that comes after those known.
    pub(crate) fn next(&self, now: Timestamp) -> u64 {
        Number::at(now).get().max(self.known() + 1)
    }

    /// The number that L2 has told, if it is a later one.
    pub(crate) fn later_than(&self, number: u64) -> Option<u64> {
        Some(self.known()).filter(|known| *known > number)
    }

    /// The user is signed out in this process, whatever L2 has.
    pub(crate) fn sign_out(&self) {
        self.latest.fetch_or(PENDING, Ordering::AcqRel);
    }

    /// L2 has signed the user out: this number is the next session's.
    pub(crate) fn signed_out(&self, number: u64) {
        self.learn(number, PENDING);
    }

    /// It may have changed, and perhaps the feed has told of it by name.
    fn hear(&self, told: u64) {
        self.hints.fetch_add(1, Ordering::AcqRel);
        self.latest.fetch_or(STALE | told, Ordering::AcqRel);
    }
}

/// The epochs that somebody uses. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Users(Arc<Mutex<HashMap<[u8; 32], Weak<UserEpoch>>>>);

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Users {
    /// The one epoch of this digest.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Arc<UserEpoch> {
        let mut known = self.0.lock();
        if let Some(epoch) = known.get(digest).and_then(Weak::upgrade) {
            return epoch;
        }
        if known.len() == known.capacity() {
            // Before the table grows, which is as rare as it is expensive.
            known.retain(|_, epoch| epoch.strong_count() > 0);
        }
        let epoch = Arc::new(UserEpoch {
            digest: *digest,
            latest: AtomicU64::new(0),
            hints: AtomicU32::new(0),
        });
        known.insert(*digest, Arc::downgrade(&epoch));
        epoch
    }

    /// Any may have changed.
    pub(crate) fn hear_all(&self) {
        let known = self.0.lock();
        known
            .values()
            .filter_map(Weak::upgrade)
            .for_each(|epoch| epoch.hear(0));
    }

    /// The epoch may have changed, if it is one.
    pub(crate) fn hear(&self, digest: &[u8; 32]) {
        if let Some(epoch) = self.0.lock().get(digest).and_then(Weak::upgrade) {
            epoch.hear(TOLD);
        }
    }
}

/// That a session belongs to a user.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) epoch: Arc<UserEpoch>,
    pub(crate) number: u64,
}

impl Link {
    pub(crate) fn new(epoch: Arc<UserEpoch>, number: u64) -> Self {
        Self { epoch, number }
    }

    /// The entry of the session's partition. The epoch and the number stand in its name, so that a link
    /// to a later number does not take the place of one that is over.
    pub(crate) fn entry(&self) -> (TokenKey, Value) {
        let epoch = URL_SAFE_NO_PAD.encode(self.epoch.digest);
        let name = TokenKey::from_canonical(&format!("{LINK}{epoch}\u{1}{}", self.number));
        (name, Value::Secret(Secret::from(String::from("linked"))))
    }

    /// The link that an entry is. One that cannot be read is over.
    fn read(name: &TokenKey, users: &Users) -> Option<Self> {
        let text = name.as_ref().strip_prefix(LINK)?;
        let (epoch, number) = text.split_once('\u{1}').unwrap_or_default();
        let mut digest = [0; 32];
        let decoded = URL_SAFE_NO_PAD.decode_slice(epoch, &mut digest);
        let number = decoded.ok().and_then(|_| number.parse().ok());
        Some(Self::new(users.get(&digest), number.unwrap_or(0)))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.number == 0 || self.epoch.is_over(self.number)
    }

    /// Whether the feed has told of its user.
    fn is_told_of(&self) -> bool {
        self.epoch.latest.load(Ordering::Acquire) & TOLD > 0
    }

    /// Whether it may be over: L2 has to be asked, or it is.
    fn is_doubtful(&self) -> bool {
        self.number == 0 || self.epoch.latest.load(Ordering::Acquire) > self.number
    }
}

/// The links of a session; most have none.
#[derive(Clone, Default)]
pub(crate) struct Links(Option<Box<[Link]>>);

impl Links {
    pub(crate) fn is_link(name: &TokenKey) -> bool {
        name.as_bytes().starts_with(LINK.as_bytes())
    }

    pub(crate) fn of(entries: &ByName<Entry>, users: &Users) -> Self {
        Self::among(entries.iter().map(|(name, _)| name), users)
    }

    pub(crate) fn among<'a>(names: impl Iterator<Item = &'a TokenKey>, users: &Users) -> Self {
        let names = names.filter(|_| !sabotage::is(Sabotage::LinksIgnored));
        let links = names.filter_map(|name| Link::read(name, users));
        let links = links.collect::<Box<[_]>>();
        Self((!links.is_empty()).then_some(links))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().flatten()
    }

    /// Memory, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        let own = std::mem::size_of::<Link>() + std::mem::size_of::<UserEpoch>();
        self.iter().count() * (own + 2 * crate::memory::ALLOCATION)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a hit has to look further: the session is over, or L2 has to be asked.
    pub(crate) fn are_invalidated(&self) -> bool {
        let links = self.0.as_deref();
        links.is_some_and(|links| links.iter().any(Link::is_doubtful))
    }

    /// Those of which nothing was heard that casts doubt on them.
    pub(crate) fn undoubted(&self) -> Self {
        let goes_on = |link: &&Link| !link.is_told_of() && !link.is_over();
        let links = self.iter().filter(goes_on).cloned();
        let links = links.collect::<Box<[_]>>();
        Self((!links.is_empty()).then_some(links))
    }

    /// Whether one of the users may have been signed out, as the feed has told.
    pub(crate) fn are_told_of(&self) -> bool {
        self.iter()
            .any(|link| link.epoch.latest.load(Ordering::Acquire) & TOLD > 0)
    }

    /// Whether the session is over, as far as this process knows.
    pub(crate) fn are_over(&self) -> bool {
        self.iter().any(Link::is_over)
    }
}
