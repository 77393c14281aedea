//! The settings of a `CookieStore`.

use std::sync::Arc;
use std::time::Duration;

use super::chunks::Chunks;
use super::sealer::Sealer;
use super::store::{CookieStore, Inner};
use crate::error::ConfigError;
use crate::seal::KeyRing;
use crate::session::SameSite;
use crate::store::{DynStore, Slots, TokenStore};
use crate::time::{Clock, setting};

/// Sets up a [`CookieStore`].
#[derive(Clone)]
#[must_use = "there is no store until `build`"]
pub struct CookieStoreBuilder {
    pub(super) ring: KeyRing,
    pub(super) name: Box<str>,
    pub(super) secure: bool,
    pub(super) same_site: SameSite,
    pub(super) max_size: usize,
    pub(super) max_age: Duration,
    pub(super) memory: u64,
    pub(super) sign_outs: Option<Arc<dyn DynStore>>,
    pub(super) clock: Clock,
}

impl CookieStoreBuilder {
    pub(super) fn new(ring: KeyRing) -> Self {
        Self {
            ring,
            name: "tokens".into(),
            secure: true,
            same_site: SameSite::default(),
            max_size: 16 * 1024,
            max_age: Duration::from_secs(14 * 24 * 3600),
            memory: 64 << 20,
            sign_outs: None,
            clock: Clock::system(),
        }
    }

    /// What the cookies are called, between `__Host-` and the number: 1 to 64 letters, digits, `-`
    /// and `_`. Applications on one host need different names. Defaults to `tokens`.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Cookies without `Secure` and without the prefix `__Host-`, for development on plain http:
    /// whoever is on the way reads and plants them. Secure unless this is called.
    pub fn insecure_for_localhost(mut self) -> Self {
        self.secure = false;
        self
    }

    /// Which requests from other sites carry the cookies. Defaults to [`SameSite::Lax`].
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// How many bytes the cookies may add to a request's head: 1 KiB to 64 KiB. A change that makes
    /// them larger is [`Error::TooLarge`](crate::Error::TooLarge). Defaults to 16 KiB, some 15 KB of
    /// tokens.
    ///
    /// A proxy or server that takes less answers *every* request of such a user with 400 or 431,
    /// until the cookies are removed. What they take in one header line unless told otherwise:
    ///
    /// | | bytes |
    /// |---|---|
    /// | nginx (`large_client_header_buffers`) | 8,192 |
    /// | Apache httpd (`LimitRequestFieldSize`) | 8,190 |
    /// | AWS application load balancer | 16 K |
    /// | Node.js (whole head) | 16 K |
    /// | Envoy (whole head) | 60 K |
    ///
    /// Behind one of the first two set this to 7 KiB, or raise theirs. Browsers take 150 cookies of
    /// 4 KiB and more.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = bytes;
        self
    }

    /// How old cookies may be: since they were last set, whatever the browser says. Defaults to 14
    /// days, the life of a partition. Copied ones that are not used are good for as long; those that
    /// are used are set anew with each change, and once a quarter of this time has gone, up to [`CookieStore::MAX_SESSION_AGE`].
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How many bytes of sessions are remembered that no request uses. Defaults to 64 MiB: some
    /// 9,000 sessions, and 120,000 sign-outs.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Keeps the generation of sessions that were signed out in a store that all instances share:
    /// none of them takes older cookies, and
    /// [`sign_out_user`](crate::TokenCache::sign_out_user) works. The first use of the tokens in a
    /// request then asks that store; a sign-out writes to it, for as long as cookies can live. No
    /// token goes there, only digests, and the ids of a user's sessions, which open nothing without
    /// the ring. While it cannot be asked nobody knows who was signed out: reads are
    /// [`Lookup::Unavailable`](crate::Lookup::Unavailable), and changes fail. None by default: there
    /// may be no store at all.
    pub fn sign_outs_in(mut self, store: impl TokenStore) -> Self {
        self.sign_outs = Some(Arc::new(store));
        self
    }

    /// The clock of ages and lifetimes. Defaults to the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store.
    ///
    /// # Errors
    /// [`ConfigError`] that names the option at fault.
    pub fn build(mut self) -> Result<CookieStore, ConfigError> {
        self.max_age = setting(self.max_age);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(allowed) {
            let reason = "must be 1 to 64 letters, digits, '-' or '_'";
            return Err(ConfigError::new("name", reason));
        }
        if !(1024..=64 * 1024).contains(&self.max_size) {
            let reason = "must be 1 KiB to 64 KiB";
            return Err(ConfigError::new("max_size", reason));
        }
        if self.max_age < Duration::from_secs(1) {
            let reason = "must be at least one second";
            return Err(ConfigError::new("max_age", reason));
        }
        Ok(CookieStore::new(self))
    }
}

impl CookieStore {
    /// Sets up a store whose cookies are sealed with the keys of this ring.
    pub fn builder(ring: KeyRing) -> CookieStoreBuilder {
        CookieStoreBuilder::new(ring)
    }

    fn new(settings: CookieStoreBuilder) -> Self {
        let prefix = if settings.secure { "__Host-" } else { "" };
        let name: Box<str> = format!("{prefix}{}", settings.name).into();
        let sealer = Arc::new(Sealer::new(settings.ring, name.clone()));
        let chunks = Chunks::new(name, settings.same_site, settings.secure);
        let chunks = Arc::new(chunks);
        let (measure, cut, limit) = (sealer.clone(), chunks.clone(), settings.max_size);
        let fits = move |snapshot: &_| {
            // Names and attributes take less than a sixteenth.
            let size = cut.request_bytes(measure.length(snapshot, limit - limit / 16));
            if size <= limit { Ok(()) } else { Err(size) }
        };
        let clock = settings.clock;
        Self(Arc::new(Inner {
            slots: Slots::new(clock.clone(), settings.memory, Box::new(fits)),
            sealer,
            chunks,
            max_size: limit,
            max_age: settings.max_age,
            clock,
            sign_outs: settings.sign_outs,
        }))
    }
}

impl std::fmt::Debug for CookieStoreBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieStoreBuilder")
            .field("name", &self.name)
            .field("secure", &self.secure)
            .field("same_site", &self.same_site)
            .field("max_size", &self.max_size)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}
