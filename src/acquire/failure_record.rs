//! Failed acquisitions, remembered for a while so that the provider is not asked again too soon.
//!
//! A failure record is an entry of the partition, so that all instances share it, it expires by itself, and a
//! sign-out ends it. It concerns one refresh token: a new sign-in voids it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{AcquireError, AcquireErrorKind, Cause, Meaning};
use crate::challenge::Challenge;
use crate::engine::limits::CLOCK_SKEW;
use crate::key::TokenKey;
use crate::lookup::Lookup;
use crate::memory::ALLOCATION;
use crate::random::{SLIGHTLY, jittered};
use crate::secret::Secret;
use crate::time::{Timestamp, millis};

/// How long a refused grant is believed: the user's next attempts are answered at once, and a provider that
/// would accept it by then is soon asked again.
const REFUSED: Duration = Duration::from_secs(30);
/// The pause after the first failure of another kind; it doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that a provider can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// The longest claims that are remembered, in bytes: many times what providers send, and little beside a session in cookies.
const MAX_CLAIMS: usize = 1024;
/// How long after its pause a failure record still makes the next pause longer.
const MEMORY: Duration = Duration::from_secs(120);

/// Why an acquisition failed, and when to try again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FailureRecord {
    kind: AcquireErrorKind,
    /// Failures in a row.
    count: u32,
    retry_at: Timestamp,
    /// The pause as it was set at the failure.
    pause: Duration,
    /// The digest of the refresh token that it concerns, and of the claims if it concerns these alone.
    about: Box<str>,
    /// The claims that the provider demands of the user's next login.
    demand: Option<Challenge>,
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

    /// What is remembered of failures that concern `name`, this refresh token and these claims.
    pub(crate) fn failure_record(
        &self,
        name: &TokenKey,
        refresh_token: &Lookup<Secret>,
        claims: Option<&str>,
        now: Timestamp,
    ) -> Option<&FailureRecord> {
        let over = self.failure_record.expires_at() <= now;
        let concerns = self.name == *name && self.failure_record.concerns(refresh_token, claims);
        (concerns && !over).then_some(&self.failure_record)
    }
}

impl FailureRecord {
    /// A failure now, after `previous` ones, that concerns this refresh token, or only what was to have these claims by
    /// it.
    pub(crate) fn new(
        kind: AcquireErrorKind,
        asked: Option<Duration>,
        previous: Option<&Self>,
        concerned: (&Lookup<Secret>, Option<&str>),
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
            about: digest(concerned.0, concerned.1),
            demand: None,
        }
    }

    /// The same with what the provider demands of the user's next login: it is told again while the pause lasts.
    pub(crate) fn demanding(mut self, demand: Option<Challenge>) -> Self {
        self.demand = demand.filter(|it| it.claims().is_some_and(|it| it.len() <= MAX_CLAIMS));
        self
    }

    /// The error that is returned while the pause lasts. If more of the pause is left than its length, it was
    /// set by a different clock (another instance's, or this one's before it was adjusted), and does not
    /// count.
    pub(crate) fn error(&self, now: Timestamp) -> Option<AcquireError> {
        let left = self.retry_at.since(now);
        if now >= self.retry_at || left > self.pause.saturating_add(CLOCK_SKEW) {
            return None;
        }
        let error = AcquireError::new(self.kind).with_retry_at(Some(self.retry_at));
        // What a wrapper of the error shows of it is its source.
        let mut cause = Cause::from(Meaning {
            retry_after: Some(left),
            ..Meaning::of(self.kind)
        });
        cause.claims = self.demand.as_ref().and_then(Challenge::shared_claims);
        Some(error.with_source(cause.into()))
    }

    /// When it is forgotten.
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.retry_at.saturating_add(MEMORY)
    }

    /// The time until which the provider is not asked again.
    pub(crate) fn retry_at(&self) -> Timestamp {
        self.retry_at
    }

    /// Whether it concerns what is acquired with this refresh token, and is to have these claims.
    pub(crate) fn concerns(&self, refresh_token: &Lookup<Secret>, claims: Option<&str>) -> bool {
        let is_about = |claims| self.about == digest(refresh_token, claims);
        is_about(None) || (claims.is_some() && is_about(claims))
    }

    /// Bytes that it owns, allocator overhead included.
    pub(crate) fn footprint(&self) -> usize {
        let claims = self.demand.as_ref().and_then(Challenge::claims);
        // The challenge, and the claims in it.
        let demand = claims.map_or(0, |claims| {
            size_of::<Challenge>() + claims.len() + 4 * ALLOCATION
        });
        self.about.len() + ALLOCATION + demand
    }

    /// The text as which it is stored.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "{} {} {} {} {}",
            self.kind.as_str(),
            self.count,
            self.retry_at.as_millis(),
            self.about,
            millis(self.pause)
        );
        // The version before passes over it.
        if let Some(claims) = self.demand.as_ref().and_then(Challenge::claims) {
            text.push(' ');
            URL_SAFE_NO_PAD.encode_string(claims, &mut text);
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
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
            demand: parts.next().and_then(|claims| {
                let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
                Challenge::of_claims(String::from_utf8(claims).ok()?.into())
            }),
        })
    }
}

fn digest(refresh_token: &Lookup<Secret>, claims: Option<&str>) -> Box<str> {
    let secret = match (refresh_token, claims) {
        (Lookup::Hit(secret), _) => secret.expose(),
        (_, None) => return "-".into(),
        (_, Some(_)) => "",
    };
    let mut digest = Sha256::new()
        .chain_update(b"tower-token-cache setback v1\0")
        .chain_update(secret);
    if let Some(claims) = claims {
        digest = digest.chain_update(b"\0claims\0").chain_update(claims);
    }
    let digest = digest.finalize();
    URL_SAFE_NO_PAD.encode(&digest[..12]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other instances of the fleet, and of the version before, compare it.
    #[test]
    fn the_digest_of_a_refresh_token_never_changes() {
        let secret = Lookup::Hit(Secret::from("spent"));
        assert_eq!(&*digest(&secret, None), "RgMioeTMryA-PfWg");
    }

    #[test]
    fn what_a_provider_demands_is_told_as_long_as_the_refusal_is_remembered() {
        let kind = AcquireErrorKind::ReauthenticationRequired;
        let now = Timestamp::now();
        let claims = r#"{"a": {"essential": true}}"#;
        let demand = Challenge::of_claims(claims.into());
        let record = FailureRecord::new(kind, None, None, (&Lookup::Absent, None), now);
        let plain = record.to_text();
        let demanding = record.clone().demanding(demand.clone());
        let read = FailureRecord::parse(&demanding.to_text()).unwrap();
        assert_eq!(read, demanding);
        assert_eq!(read.error(now).unwrap().challenge(), demand);
        assert!(!format!("{read:?}").contains("essential"));
        assert!(read.footprint() > claims.len());
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_CLAIMS));
        let forgetful = record.demanding(Challenge::of_claims(long.into()));
        assert_eq!(forgetful.to_text(), plain);
        // One of the version before, or with what is no claims.
        for text in [plain.clone(), format!("{plain} %"), format!("{plain} Nw")] {
            let read = FailureRecord::parse(&text).unwrap();
            assert_eq!(read.error(now).unwrap().challenge(), None, "{text}");
        }
    }

    #[test]
    fn what_is_refused_to_some_claims_concerns_these_alone() {
        let [one, other] = ["one", "other"].map(|text| Lookup::Hit(Secret::from(text)));
        let kind = AcquireErrorKind::ReauthenticationRequired;
        let now = Timestamp::now();
        let refused = |about, claims| FailureRecord::new(kind, None, None, (about, claims), now);
        let concerns = |record: &FailureRecord| {
            let about = [
                (&one, None),
                (&one, Some("c")),
                (&one, Some("d")),
                (&other, Some("c")),
            ];
            about.map(|(refresh_token, claims)| record.concerns(refresh_token, claims))
        };
        assert_eq!(
            concerns(&refused(&one, Some("c"))),
            [false, true, false, false]
        );
        assert_eq!(concerns(&refused(&one, None)), [true, true, true, false]);
        // Where there is no refresh token.
        let record = refused(&Lookup::Absent, Some("c"));
        assert!(record.concerns(&Lookup::Absent, Some("c")));
        assert!(!record.concerns(&Lookup::Absent, None));
    }
}
