//! `Cookie`: what a session's cookie is called and how long it lives, and its text.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::SameSite;
use crate::error::ConfigError;
use crate::key::{CookieName, KeyError, PartitionKey, PartitionKind, RequestHead};
use crate::random;
use crate::secret::Secret;
use crate::time::{Timestamp, setting};

/// What browsers hold to `Secure`, `Path=/` and no `Domain` (RFC 6265bis §4.1.3).
const HOST: &str = "__Host-";
/// 256 bits in base64.
const ID_LEN: usize = 43;
/// As long as a partition lives by default.
const AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Part of its age after which a cookie is set anew.
const RENEWED_AFTER: u32 = 4;

/// The cookie that a session's id is in: finds it in requests, and issues it; see the [module](super).
#[derive(Clone, Debug)]
#[must_use = "no cookie is set until a layer has this"]
pub struct Cookie(Arc<Settings>);

#[derive(Clone, Debug)]
struct Settings {
    /// Without `__Host-`.
    name: Box<str>,
    /// With it, if it has it.
    full_name: CookieName,
    secure: bool,
    same_site: SameSite,
    age: Duration,
    rolls: bool,
}

/// The session of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) session: PartitionKey,
    /// When the browser was given the cookie, as the cookie says.
    pub(super) issued_at: Option<Timestamp>,
}

impl Cookie {
    /// A cookie of this name, less `__Host-`, which it gets: 1 to 64 letters, digits, `-` and `_`. Applications on
    /// one host need different names.
    ///
    /// # Errors
    /// [`ConfigError`] for another name.
    pub fn new(name: &str) -> Result<Self, ConfigError> {
        let name = name.strip_prefix(HOST).unwrap_or(name);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) {
            let reason = "must be 1 to 64 letters, digits, '-' or '_'";
            return Err(ConfigError::new("session::Cookie::new", reason));
        }
        Ok(Self(Arc::new(Settings {
            name: name.into(),
            full_name: CookieName::new(format!("{HOST}{name}")),
            secure: true,
            same_site: SameSite::default(),
            age: AGE,
            rolls: true,
        })))
    }

    /// A cookie without `Secure` and without the prefix `__Host-`, for development on plain http: machines
    /// on the way can read and plant it. Secure unless this is called.
    pub fn insecure_for_localhost(self) -> Self {
        self.set(|settings| {
            settings.secure = false;
            settings.full_name = CookieName::new(settings.name.clone());
        })
    }

    /// Which requests from other sites carry the cookie. Defaults to [`SameSite::Lax`].
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.set(|settings| settings.same_site = same_site)
    }

    /// The browser keeps the cookie for this long after it was last used: it is set anew by responses to requests
    /// that find something in the session, or change it, once a quarter of this time has gone. At least a second;
    /// browsers keep no cookie for more than 400 days. The default, with 14 days: as long as a partition lives after its last change.
    pub fn rolling(self, age: Duration) -> Self {
        self.set(|settings| (settings.age, settings.rolls) = (limited(age), true))
    }

    /// The browser keeps the cookie for this long after it was issued, whether it is used or not. At least a
    /// second.
    pub fn fixed(self, age: Duration) -> Self {
        self.set(|settings| (settings.age, settings.rolls) = (limited(age), false))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The session that a request names. What this cookie was never issued with is an error.
    pub(crate) fn find(&self, request: &RequestHead<'_>) -> Result<Option<Found>, KeyError> {
        let mut found = None;
        self.0.full_name.each_value(request, |value| {
            if value.is_empty() {
                return Ok(());
            }
            match found.replace(value) {
                Some(earlier) if earlier != value => Err(KeyError::Ambiguous),
                _ => Ok(()),
            }
        })?;
        found.map(read).transpose()
    }

    pub(super) fn has_name_of(&self, other: &Self) -> bool {
        (&self.0.name, self.0.secure) == (&other.0.name, other.0.secure)
    }

    /// Whether a cookie can carry this partition's id.
    pub(super) fn fits(session: &PartitionKey) -> bool {
        session.kind() == PartitionKind::Session
            && read(session.value()).is_ok_and(|found| found.session == *session)
    }

    /// Whether a cookie of this age should be set anew.
    pub(super) fn is_due(&self, issued_at: Option<Timestamp>, now: Timestamp) -> bool {
        // A time to come is that of a clock that was wrong, or was made up.
        let is_young = |at: Timestamp| at <= now && now.since(at) < self.0.age / RENEWED_AFTER;
        self.0.rolls && !issued_at.is_some_and(is_young)
    }

    /// The `Set-Cookie` line that gives the browser this session.
    pub(super) fn issue(&self, session: &PartitionKey, now: Timestamp) -> String {
        let id = String::from_utf8_lossy(session.value());
        let age = self.0.age.as_secs();
        match self.0.rolls {
            true => self.line(&format!("{id}.{:x}", now.as_millis() / 1000), age),
            false => self.line(&id, age),
        }
    }

    /// The `Set-Cookie` line that takes it away.
    pub(super) fn removal(&self) -> String {
        self.line("", 0)
    }

    fn line(&self, value: &str, age: u64) -> String {
        let Settings {
            name, same_site, ..
        } = &*self.0;
        let (host, secure) = match self.0.secure {
            true => (HOST, "; Secure"),
            false => ("", ""),
        };
        let same_site = same_site.as_str();
        format!(
            "{host}{name}={value}; Path=/; HttpOnly{secure}; SameSite={same_site}; Max-Age={age}"
        )
    }
}

fn limited(age: Duration) -> Duration {
    setting(age).max(Duration::from_secs(1))
}

/// `id`, or `id.time`, as [`Cookie::issue`] writes it. The time decides only when the cookie is set anew.
fn read(value: &[u8]) -> Result<Found, KeyError> {
    let (id, rest) = value
        .split_at_checked(ID_LEN)
        .ok_or(KeyError::InvalidCharacter)?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let issued_at = match rest {
        [] => None,
        [b'.', time @ ..] => {
            let time = std::str::from_utf8(time).ok();
            let seconds = time.and_then(|time| u64::from_str_radix(time, 16).ok());
            let seconds = seconds.ok_or(KeyError::InvalidCharacter)?;
            Some(Timestamp::from_millis(seconds.saturating_mul(1000)))
        }
        _ => return Err(KeyError::TooLong { limit: ID_LEN }),
    };
    if !id.iter().all(allowed) {
        return Err(KeyError::InvalidCharacter);
    }
    let session = PartitionKey::from_header(PartitionKind::Session, id)?;
    let session = session.ok_or(KeyError::Empty)?;
    Ok(Found { session, issued_at })
}

/// A session of a new id that cannot be guessed; `None` on a system without random numbers.
pub(crate) fn new_session() -> Option<PartitionKey> {
    let id = Secret::from(URL_SAFE_NO_PAD.encode(random::secret().ok()?));
    PartitionKey::session(id.expose()).ok()
}
