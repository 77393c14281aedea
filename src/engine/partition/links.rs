//! Users' epochs, and the sessions that are linked to them.
//!
//! A link is an entry of the session's own partition that names a user's epoch in L2 and its number. The
//! session is alive only while the epoch has exactly that number. So one raise of the epoch ends every
//! session that was ever linked, on every instance, without a list of sessions. The loss of an epoch ends
//! them, too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

use crate::codec::Value;
use crate::engine::namespace::Number;
use crate::engine::partition::by_name::ByName;
use crate::engine::partition::entry::Entry;
use crate::key::{LINK, TokenKey};
use crate::mutation::{self, Mutation};
use crate::time::Timestamp;

/// Set while other instances may have raised the epoch, and L2 was not asked since.
const STALE: u64 = 1 << 63;
/// Set while the user is signed out here and L2 has not acknowledged it: no number is alive.
const PENDING: u64 = 1 << 62;
/// Set together with [`STALE`] if the feed has announced a change of this very epoch.
const ANNOUNCED: u64 = 1 << 61;
/// The other bits: the highest number known.
const NUMBER: u64 = ANNOUNCED - 1;

/// What this process knows of a user's epoch. The sessions in memory share it.
pub(crate) struct UserEpoch {
    pub(crate) digest: [u8; 32],
    /// The highest number known, [`STALE`], [`ANNOUNCED`] and [`PENDING`].
    latest: AtomicU64,
    /// How often the epoch was reported as changed.
    hints: AtomicU32,
}

impl UserEpoch {
    /// Whether sessions with this number are over.
    pub(crate) fn is_over(&self, number: u64) -> bool {
        self.latest.load(Ordering::Acquire) & !(STALE | ANNOUNCED) > number
    }

    /// To be read before L2 is asked, for [`answered`](Self::answered).
    pub(crate) fn hints(&self) -> u32 {
        self.hints.load(Ordering::Acquire)
    }

    /// L2 has this number; it was asked after so many hints. A later hint keeps the epoch stale.
    pub(crate) fn answered(&self, number: u64, hints: u32) {
        self.learn(number, 0);
        if self.hints() == hints {
            self.learn(number, STALE | ANNOUNCED);
            if self.hints() != hints {
                self.latest.fetch_or(STALE | ANNOUNCED, Ordering::AcqRel);
            }
        }
    }

    /// Takes over a number if it is higher, and clears `flag`.
    fn learn(&self, number: u64, flag: u64) {
        let learnt = |latest: u64| Some(latest & !NUMBER & !flag | (latest & NUMBER).max(number));
        let _ = self
            .latest
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, learnt);
    }

    fn known(&self) -> u64 {
        self.latest.load(Ordering::Acquire) & NUMBER
    }

    /// A number that comes after all those known.
    pub(crate) fn next(&self, now: Timestamp) -> u64 {
        Number::at(now).get().max(self.known() + 1)
    }

    /// The number that is known, if it is later than `number`.
    pub(crate) fn later_than(&self, number: u64) -> Option<u64> {
        Some(self.known()).filter(|known| *known > number)
    }

    /// The user is signed out in this process, whatever L2 has.
    pub(crate) fn sign_out(&self) {
        self.latest.fetch_or(PENDING, Ordering::AcqRel);
    }

    /// The sessions of lower numbers are over in this process, whatever L2 has.
    pub(crate) fn signed_out_to(&self, number: u64) {
        self.learn(number, 0);
    }

    /// L2 has signed the user out: this number is the next session's.
    pub(crate) fn signed_out(&self, number: u64) {
        self.learn(number, PENDING);
    }

    /// The epoch may have changed. `flag` is [`ANNOUNCED`] if the feed has named it, and else 0.
    fn hear(&self, flag: u64) {
        self.hints.fetch_add(1, Ordering::AcqRel);
        self.latest.fetch_or(STALE | flag, Ordering::AcqRel);
    }
}

/// The epochs in use. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Users(Arc<Mutex<HashMap<[u8; 32], Weak<UserEpoch>>>>);

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Users {
    /// The epoch of this digest; there is only one.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Arc<UserEpoch> {
        let mut known = self.0.lock();
        if let Some(epoch) = known.get(digest).and_then(Weak::upgrade) {
            return epoch;
        }
        if known.len() == known.capacity() {
            // Only before the table grows, which is as rare as it is expensive.
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

    /// Any epoch may have changed.
    pub(crate) fn hear_all(&self) {
        let known = self.0.lock();
        known
            .values()
            .filter_map(Weak::upgrade)
            .for_each(|epoch| epoch.hear(0));
    }

    /// The feed has announced this digest, which may be that of an epoch.
    pub(crate) fn hear(&self, digest: &[u8; 32]) {
        if let Some(epoch) = self.0.lock().get(digest).and_then(Weak::upgrade) {
            epoch.hear(ANNOUNCED);
        }
    }
}

/// The link of a session to a user.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) epoch: Arc<UserEpoch>,
    pub(crate) number: u64,
}

impl Link {
    pub(crate) fn new(epoch: Arc<UserEpoch>, number: u64) -> Self {
        Self { epoch, number }
    }

    /// The entry of the session's partition. Its name contains the epoch and the number, so that a link to a
    /// later number does not replace one that is over.
    pub(crate) fn entry(&self) -> (TokenKey, Value) {
        let epoch = URL_SAFE_NO_PAD.encode(self.epoch.digest);
        let name = TokenKey::from_canonical(&format!("{LINK}{epoch}\u{1}{}", self.number));
        (name, Value::Link)
    }

    /// Reads the link from an entry's name. A link that cannot be read is over.
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

    /// Whether the feed has announced a change of the user.
    fn is_announced(&self) -> bool {
        self.epoch.latest.load(Ordering::Acquire) & ANNOUNCED > 0
    }

    /// Whether the session may be over: L2 must be asked, or it is known.
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
        let names = names.filter(|_| !mutation::is(Mutation::LinksIgnored));
        let links = names.filter_map(|name| Link::read(name, users));
        let links = links.collect::<Box<[_]>>();
        Self((!links.is_empty()).then_some(links))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().flatten()
    }

    /// Bytes that the links take.
    pub(crate) fn footprint(&self) -> usize {
        let own = std::mem::size_of::<Link>() + std::mem::size_of::<UserEpoch>();
        self.iter().count() * (own + 2 * crate::memory::ALLOCATION)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a linked user is signed out, or may be: then L2 must be asked.
    pub(crate) fn may_be_signed_out(&self) -> bool {
        let links = self.0.as_deref();
        links.is_some_and(|links| links.iter().any(Link::is_doubtful))
    }

    /// The links that are not over, and whose users the feed has not announced.
    pub(crate) fn undoubted(&self) -> Self {
        let goes_on = |link: &&Link| !link.is_announced() && !link.is_over();
        let links = self.iter().filter(goes_on).cloned();
        let links = links.collect::<Box<[_]>>();
        Self((!links.is_empty()).then_some(links))
    }

    /// Whether the feed has announced that one of the users may have been signed out.
    pub(crate) fn are_announced(&self) -> bool {
        self.iter().any(Link::is_announced)
    }

    /// Whether the session is over, as far as this process knows.
    pub(crate) fn are_over(&self) -> bool {
        self.iter().any(Link::is_over)
    }
}
