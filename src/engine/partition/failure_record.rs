//! Failed acquisitions, remembered for a while so that the provider is not asked again too soon.
//!
//! A failure record is an entry of the partition, so that all instances share it, it expires by itself, and a
//! sign-out ends it. It concerns one refresh token: a new sign-in voids it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::acquire::{AcquireError, AcquireErrorKind};
use crate::codec::Value;
use crate::engine::limits::CLOCK_SKEW;
use crate::engine::partition::entries::ByName;
use crate::engine::partition::entry::Entry;
use crate::key::{REFRESH_TOKEN, TokenKey};
use crate::lookup::Lookup;
use crate::random::{SLIGHTLY, jittered};
use crate::secret::Secret;
use crate::time::{Timestamp, millis};
use crate::token::Token;

/// How long a refused grant is believed: the user's next attempts are answered at once, and a provider that
/// would accept it by then is soon asked again.
const REFUSED: Duration = Duration::from_secs(30);
/// The pause after the first failure of another kind; it doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that a provider can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// How long after its pause a failure record still makes the next pause longer.
const MEMORY: Duration = Duration::from_secs(120);

/// Why an acquisition failed, and when to try again.
#[derive(Clone, Debug)]
pub(crate) struct FailureRecord {
    kind: AcquireErrorKind,
    /// Failures in a row.
    count: u32,
    retry_at: Timestamp,
    /// The pause as it was set at the failure.
    pause: Duration,
    /// The digest of the refresh token that it concerns.
    about: Box<str>,
}

/// A failure for a partition that does not exist, as with an invented id. It is not an entry, so that
/// invented ids cannot evict partitions that exist.
pub(crate) struct UnstoredFailure {
    name: TokenKey,
    failure_record: FailureRecord,
}

impl UnstoredFailure {
    pub(crate) fn new(name: TokenKey, failure_record: FailureRecord) -> Box<Self> {
        Box::new(Self {
            name,
            failure_record,
        })
    }

    /// What is remembered of failures that concern `name` and this refresh token.
    pub(crate) fn failure_record(
        &self,
        name: &str,
        refresh_token: &Lookup<Secret>,
        now: Timestamp,
    ) -> Option<&FailureRecord> {
        let over = self.failure_record.retry_at.saturating_add(MEMORY) <= now;
        let concerns =
            self.name.as_ref() == name && self.failure_record.about == digest(refresh_token);
        (concerns && !over).then_some(&self.failure_record)
    }
}

impl FailureRecord {
    /// A failure now, after `previous` ones.
    pub(crate) fn new(
        kind: AcquireErrorKind,
        asked: Option<Duration>,
        previous: Option<&Self>,
        refresh_token: &Lookup<Secret>,
        now: Timestamp,
    ) -> Self {
        let count = previous.map_or(1, |previous| previous.count.saturating_add(1));
        let pause = match (kind, asked) {
            (_, Some(asked)) => asked.min(LONGEST_ASKED),
            (AcquireErrorKind::ReauthenticationRequired, None) => REFUSED,
            (_, None) => jittered(
                (FIRST_PAUSE * 2_u32.pow(count.min(8) - 1)).min(LONGEST_PAUSE),
                SLIGHTLY,
            ),
        };
        Self {
            kind,
            count,
            retry_at: now.saturating_add(pause),
            pause,
            about: digest(refresh_token),
        }
    }

    /// The error that is returned while the pause lasts. If more of the pause is left than its length, it was
    /// set by a different clock (another instance's, or this one's before it was adjusted), and does not
    /// count.
    pub(crate) fn error(&self, now: Timestamp) -> Option<AcquireError> {
        let error = AcquireError::new(self.kind).with_retry_at(Some(self.retry_at));
        let left = self.retry_at.since(now);
        let lasts = now < self.retry_at && left <= self.pause.saturating_add(CLOCK_SKEW);
        lasts.then_some(error)
    }

    /// The entry that records the failures of `name`: of one token, or of all that are acquired with the
    /// partition's refresh token.
    pub(crate) fn entry(name: &str) -> TokenKey {
        TokenKey::from_canonical(&format!("\u{1}setback\u{1}{name}"))
    }

    pub(crate) fn to_value(&self) -> Value {
        let text = format!(
            "{} {} {} {} {}",
            self.kind.as_str(),
            self.count,
            self.retry_at.as_millis(),
            self.about,
            millis(self.pause)
        );
        Value::Token(Token::new(text).with_expires_at(self.retry_at.saturating_add(MEMORY)))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let kind = AcquireErrorKind::from_name(parts.next()?);
        Some(Self {
            kind,
            count: parts.next()?.parse().ok()?,
            retry_at: Timestamp::from_millis(parts.next()?.parse().ok()?),
            about: parts.next()?.into(),
            pause: parts
                .next()
                .and_then(|pause| pause.parse().ok())
                .map_or(LONGEST_ASKED, Duration::from_millis),
        })
    }

    /// What is remembered of failures that concern `name` and this refresh token.
    pub(crate) fn find(
        entries: &ByName<Entry>,
        name: &str,
        refresh_token: &Lookup<Secret>,
    ) -> Option<Self> {
        let of = |name| match &entries.get(Self::entry(name).as_ref())?.value {
            Value::Token(token) => Self::parse(token.access_token()),
            Value::Secret(_) => None,
        };
        let known = [of(REFRESH_TOKEN), of(name)].into_iter().flatten();
        known
            .filter(|failure_record| failure_record.about == digest(refresh_token))
            .max_by_key(|failure_record| failure_record.retry_at)
    }
}

fn digest(refresh_token: &Lookup<Secret>) -> Box<str> {
    let Lookup::Hit(secret) = refresh_token else {
        return "-".into();
    };
    let digest = Sha256::new()
        .chain_update(b"tower-token-cache setback v1\0")
        .chain_update(secret.expose())
        .finalize();
    URL_SAFE_NO_PAD.encode(&digest[..12]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other instances of the fleet, and of the version before, look for it under these names.
    #[test]
    fn its_stored_names_never_change() {
        assert_eq!(
            FailureRecord::entry("graph").as_ref(),
            "\u{1}setback\u{1}graph"
        );
        let secret = Lookup::Hit(Secret::from("spent"));
        assert_eq!(&*digest(&secret), "RgMioeTMryA-PfWg");
    }
}
