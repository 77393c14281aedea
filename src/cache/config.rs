//! `Config`: the settings as a file or the environment has them.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::cache::acquisitions::Acquisitions;
use crate::cache::builder::Builder;
use crate::cache::human::{Bytes, FewBytes, Human};
use crate::cache::l1::L1;
use crate::cache::lifetimes::Lifetimes;
use crate::cache::timeouts::Timeouts;
use crate::policy::{FailurePolicy, RefusedRefreshToken, WriteMode};
#[cfg(feature = "seal")]
use crate::time::Timestamp;

/// The settings of a [`Builder`] that are values, from a file or the environment (feature `serde`).
///
/// It has the names of the builder's methods, and of those of its groups. A name that is not known is an error of
/// the format that is read; a value that a setting cannot have is the [`ConfigError`](crate::ConfigError) of
/// [`build`](Builder::build), as in code. In TOML, with all names:
///
/// ```toml
/// namespace = "shop"
/// failure_policy = "degrade"       # strict, bypass
/// write_mode = "after_response"    # before_response
/// max_pending_changes = 100000
/// max_pending_bytes = "64MiB"
/// journal = "/var/lib/shop/sign-outs"
/// refused_refresh_token = "keep"   # sign_out
/// plaintext = false                # true is Builder::plaintext()
/// require_encryption = false       # with feature `seal`, as the next two
/// seal_from = "2027-01-31T04:00:00Z"
/// accept_plaintext_until = "2027-02-28T04:00:00Z"
///
/// [l1]
/// max_bytes = "500MiB"             # "none" is L1::disabled()
/// expiration_ratio = 1.0
/// revalidate_every = "10s"
/// max_staleness = "60s"
///
/// [lifetimes]
/// after_write = "14d"
/// sliding = "none"
/// absolute = "none"
/// negative_entry = "1s"
///
/// [timeouts]
/// attempt = "250ms"
/// operation = "1s"
///
/// [acquisitions]
/// refresh_before = "5m"
/// timeout = "60s"
/// lease_ttl = "30s"
/// max = 64
/// ```
///
/// A duration is a whole number with `ms`, `s`, `m`, `h` or `d` behind it; a size is one of bytes, or has `KiB`,
/// `MiB` or `GiB`; a time is one of RFC 3339, with its zone. `"none"` is `None`. What is not named has its default; `null` is an error.
///
/// Hooks, the key ring, the clients whose tokens are revoked, the clock and the runtime are set in code alone.
///
/// Any format of serde will do that says of what type a value is. A loader for the environment (`figment`, `config`)
/// has to be told to read numbers as numbers.
///
/// ```
/// use tower_token_cache::{Config, MemoryStore, TokenCache};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config: Config = serde_json::from_str(r#"{ "timeouts": { "operation": "500ms" } }"#)?;
/// let cache = TokenCache::builder(MemoryStore::new()).config(config).build()?;
/// # drop(cache);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "it has no effect until it is given to `Builder::config`"]
pub struct Config {
    #[serde(default, deserialize_with = "named")]
    namespace: Option<Box<str>>,
    #[serde(default, deserialize_with = "named")]
    failure_policy: Option<FailurePolicy>,
    #[serde(default, deserialize_with = "named")]
    write_mode: Option<WriteMode>,
    #[serde(default, deserialize_with = "named")]
    max_pending_changes: Option<u32>,
    #[serde(default, deserialize_with = "named")]
    max_pending_bytes: Option<Human<FewBytes>>,
    #[serde(default, deserialize_with = "named")]
    journal: Option<PathBuf>,
    #[serde(default, deserialize_with = "named")]
    refused_refresh_token: Option<RefusedRefreshToken>,
    #[serde(default, deserialize_with = "named")]
    plaintext: Option<bool>,
    #[cfg(feature = "seal")]
    #[serde(default, deserialize_with = "named")]
    require_encryption: Option<bool>,
    #[cfg(feature = "seal")]
    #[serde(default, deserialize_with = "named")]
    seal_from: Option<Human<Timestamp>>,
    #[cfg(feature = "seal")]
    #[serde(default, deserialize_with = "named")]
    accept_plaintext_until: Option<Human<Timestamp>>,
    #[serde(default, deserialize_with = "named")]
    l1: Option<InL1>,
    #[serde(default, deserialize_with = "named")]
    lifetimes: Option<InLifetimes>,
    #[serde(default, deserialize_with = "named")]
    timeouts: Option<InTimeouts>,
    #[serde(default, deserialize_with = "named")]
    acquisitions: Option<InAcquisitions>,
}

type Time = Option<Human<Duration>>;
type Limit = Option<Human<Option<Duration>>>;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InL1 {
    #[serde(default, deserialize_with = "named")]
    max_bytes: Option<Human<Option<Bytes>>>,
    #[serde(default, deserialize_with = "named")]
    expiration_ratio: Option<f64>,
    #[serde(default, deserialize_with = "named")]
    revalidate_every: Limit,
    #[serde(default, deserialize_with = "named")]
    max_staleness: Limit,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InLifetimes {
    #[serde(default, deserialize_with = "named")]
    after_write: Limit,
    #[serde(default, deserialize_with = "named")]
    sliding: Limit,
    #[serde(default, deserialize_with = "named")]
    absolute: Limit,
    #[serde(default, deserialize_with = "named")]
    negative_entry: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InTimeouts {
    #[serde(default, deserialize_with = "named")]
    attempt: Time,
    #[serde(default, deserialize_with = "named")]
    operation: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InAcquisitions {
    #[serde(default, deserialize_with = "named")]
    refresh_before: Time,
    #[serde(default, deserialize_with = "named")]
    timeout: Time,
    #[serde(default, deserialize_with = "named")]
    lease_ttl: Time,
    #[serde(default, deserialize_with = "named")]
    max: Option<u32>,
}

/// A setting that is named. What is not named has no value: `null` is none.
fn named<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// `to` with the setting, if there is one.
fn set<G, T>(to: G, setting: Option<T>, method: impl FnOnce(G, T) -> G) -> G {
    match setting {
        Some(setting) => method(to, setting),
        None => to,
    }
}

fn set_human<G, T>(to: G, setting: Option<Human<T>>, method: impl FnOnce(G, T) -> G) -> G {
    set(to, setting.map(|Human(value)| value), method)
}

impl Builder {
    /// The settings of a file or of the environment. They take the place of those that were made before; a group
    /// that is named is set as a whole. Defaults to none.
    pub fn config(self, config: Config) -> Self {
        let it = set(self, config.namespace, Self::namespace);
        let it = set(it, config.failure_policy, Self::failure_policy);
        let it = set(it, config.write_mode, Self::write_mode);
        let it = set(it, config.max_pending_changes, Self::max_pending_changes);
        let it = set_human(it, config.max_pending_bytes, |it, FewBytes(bytes)| {
            it.max_pending_bytes(bytes)
        });
        let it = set(it, config.journal, Self::journal);
        let refused = config.refused_refresh_token;
        let it = set(it, refused, Self::refused_refresh_token);
        let it = set(it, config.plaintext, |it, plaintext| Self {
            plaintext,
            ..it
        });
        #[cfg(feature = "seal")]
        let it = {
            let it = set(it, config.require_encryption, |mut it, required| {
                it.encryption.required = required;
                it
            });
            let it = set_human(it, config.seal_from, Self::seal_from);
            let until = config.accept_plaintext_until;
            set_human(it, until, Self::accept_plaintext_until)
        };
        let it = set(it, config.l1.map(InL1::group), Self::l1);
        let it = set(
            it,
            config.lifetimes.map(InLifetimes::group),
            Self::lifetimes,
        );
        let it = set(it, config.timeouts.map(InTimeouts::group), Self::timeouts);
        let acquisitions = config.acquisitions.map(InAcquisitions::group);
        set(it, acquisitions, Self::acquisitions)
    }
}

impl InL1 {
    fn group(self) -> L1 {
        let l1 = match self.max_bytes {
            Some(Human(None)) => L1::disabled(),
            Some(Human(Some(Bytes(bytes)))) => L1::new().max_bytes(bytes),
            None => L1::new(),
        };
        let l1 = set(l1, self.expiration_ratio, L1::expiration_ratio);
        let l1 = set_human(l1, self.revalidate_every, L1::revalidate_every);
        set_human(l1, self.max_staleness, L1::max_staleness)
    }
}

impl InLifetimes {
    fn group(self) -> Lifetimes {
        let it = set_human(Lifetimes::new(), self.after_write, Lifetimes::after_write);
        let it = set_human(it, self.sliding, Lifetimes::sliding);
        let it = set_human(it, self.absolute, Lifetimes::absolute);
        set_human(it, self.negative_entry, Lifetimes::negative_entry)
    }
}

impl InTimeouts {
    fn group(self) -> Timeouts {
        let it = set_human(Timeouts::new(), self.attempt, Timeouts::attempt);
        set_human(it, self.operation, Timeouts::operation)
    }
}

impl InAcquisitions {
    fn group(self) -> Acquisitions {
        let it = set_human(
            Acquisitions::new(),
            self.refresh_before,
            Acquisitions::refresh_before,
        );
        let it = set_human(it, self.timeout, Acquisitions::timeout);
        let it = set_human(it, self.lease_ttl, Acquisitions::lease_ttl);
        set(it, self.max, Acquisitions::max)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
