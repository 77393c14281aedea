//! The issuer's public keys (JWKS, RFC 7517).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::LogoutError;
use super::signature::PublicKey;
use super::token::{Compact, Header};
use crate::engine::core::Engine;
use crate::error::ConfigError;
use crate::grant::HttpClient;
use crate::grant::endpoint::endpoint;
use crate::time::Moment;

/// How long a fetch may take, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest document that is read, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;
/// How many keys are kept.
const MAX_KEYS: usize = 100;
/// From then on keys are fetched again: one that the issuer has withdrawn counts no longer than this.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Between two fetches, whatever tokens come: anyone can send one with an unknown `kid`.
const PAUSE: Duration = Duration::from_secs(60);
/// The same after one that has failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The keys of one issuer, as they were fetched last.
pub(super) struct Keys {
    url: Url,
    http: HttpClient,
    known: Mutex<Known>,
    /// One task fetches; the others find what it got.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Known {
    keys: Arc<[PublicKey]>,
    fetched_at: Option<Moment>,
    failed: Option<(Moment, LogoutError)>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl Keys {
    pub(super) fn new(http: HttpClient, jwks_uri: &str) -> Result<Self, ConfigError> {
        let url = endpoint(jwks_uri).map_err(|reason| ConfigError::new("jwks_uri", reason))?;
        Ok(Self {
            url,
            http,
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Checks the signature of a token. Where the keys that are known do not verify it, the issuer may have others by now,
    /// under the same names perhaps.
    pub(super) async fn verify(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        token: &Compact<'_>,
    ) -> Result<(), LogoutError> {
        let known = self.known.lock().clone();
        let checked = check(&known.keys, token);
        let now = engine.now().moment;
        if (checked.is_ok() && known.is_young(now)) || !known.is_due(now) {
            return known.verdict(checked);
        }
        let (keys, clock) = (self.clone(), engine.clock.clone());
        // In a task of its own: a sender that hangs up ends no fetch that others wait for.
        let fetched = engine.runtime.spawn(async move {
            let _alone = keys.fetching.lock().await;
            if keys.is_due(clock.read().moment) {
                let fetched = keys.fetch().await;
                keys.learn(fetched, clock.read().moment);
            }
        });
        let _ = fetched.await;
        let known = self.known.lock().clone();
        known.verdict(check(&known.keys, token))
    }

    fn is_due(&self, now: Moment) -> bool {
        self.known.lock().is_due(now)
    }

    fn learn(&self, fetched: Result<Vec<PublicKey>, LogoutError>, now: Moment) {
        let mut known = self.known.lock();
        match fetched {
            Ok(keys) => {
                *known = Known {
                    keys: keys.into(),
                    fetched_at: Some(now),
                    failed: None,
                }
            }
            // Keys that are known go on.
            Err(error) => known.failed = Some((now, error)),
        }
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, LogoutError> {
        let answer = self.http.document(&self.url, MAX_DOCUMENT, TIMEOUT).await;
        let answer = answer.map_err(LogoutError::keys)?;
        let document = match answer.status() {
            StatusCode::OK => read(answer.body()),
            _ => None,
        };
        document.ok_or_else(|| LogoutError::keys(Unusable))
    }
}

impl Known {
    /// What is said of a token that these keys were tried on. While they cannot be fetched, it is not known whether another
    /// key has signed it.
    fn verdict(&self, checked: Result<(), LogoutError>) -> Result<(), LogoutError> {
        match &self.failed {
            Some((_, error)) if checked.is_err() => Err(error.clone()),
            _ => checked,
        }
    }

    fn is_young(&self, now: Moment) -> bool {
        self.fetched_at.is_some_and(|at| now.since(at) < MAX_AGE)
    }

    fn is_due(&self, now: Moment) -> bool {
        let is_over = |at: Moment, pause| now.since(at) >= pause;
        self.fetched_at.is_none_or(|at| is_over(at, PAUSE))
            && (self.failed.as_ref()).is_none_or(|(at, _)| is_over(*at, PAUSE_AFTER_FAILURE))
    }
}

/// The keys of a document. One that is not understood is left out: it is of another use.
fn read(document: &[u8]) -> Option<Vec<PublicKey>> {
    let document: Document = serde_json::from_slice(document).ok()?;
    let keys = document
        .keys
        .into_iter()
        .filter_map(|jwk| PublicKey::read(&jwk));
    Some(keys.take(MAX_KEYS).collect())
}

/// Whether one of these keys has signed the token.
fn check(keys: &[PublicKey], token: &Compact<'_>) -> Result<(), LogoutError> {
    let key = find(keys, &token.header);
    let key = key.ok_or(LogoutError::Invalid("its key is none of the issuer's"))?;
    match key.has_signed(&token.header.alg, token.message, &token.signature) {
        true => Ok(()),
        false => Err(LogoutError::Invalid("its signature is not the issuer's")),
    }
}

/// The key that has signed. Without a `kid` it is the only one that fits, so that a token is tried with one key only.
fn find<'a>(keys: &'a [PublicKey], header: &Header) -> Option<&'a PublicKey> {
    let mut fitting = keys.iter().filter(|key| {
        let is_named = header.kid.is_none() || header.kid.as_deref() == key.kid();
        is_named && key.is_for(&header.alg)
    });
    let first = fitting.next()?;
    (header.kid.is_some() || fitting.next().is_none()).then_some(first)
}

/// The document was thrown away.
#[derive(Debug)]
struct Unusable;

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is no JWKS of at most 256 KiB")
    }
}

impl std::error::Error for Unusable {}
