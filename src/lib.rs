//! Tower middleware that keeps your users' OAuth tokens in memory, shared by every instance of your
//! service and durable in Redis or SQL.
//!
//! A [`TokenCache`] is L1 in memory over an L2 [`store`]. A [`TokenCacheLayer`] finds the
//! [partition](key) of each request and gives it a [`Tokens`] handle; what the request changes is
//! seen by every other request of the process at once, and by the store after the head of the response.
//!
//! ```
//! use tower_token_cache::{Lookup, MemoryStore, PartitionKey, Token, TokenCache};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = TokenCache::builder(MemoryStore::new()).build()?;
//! let tokens = cache.tokens(PartitionKey::user("ada")?);
//! tokens.insert("graph", Token::new("ya29.a0Af")).await?;
//! assert!(matches!(tokens.get("graph").await?, Lookup::Hit(_)));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! None is on by default; `full` is all but `test-util`.
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | [`Tokens`] as an extractor of axum |
//! | `actix` | the layer as a middleware of actix-web, [`Tokens`] as its extractor |
//! | `redis` | `RedisStore` |
//! | `redis-cluster` | Redis Cluster, by `redis+cluster://` |
//! | `redis-sentinel` | servers behind Redis Sentinel, by `redis+sentinel://` |
//! | `redis-tls` | TLS to Redis, by `rediss://`; with rustls and ring |
//! | `memcached` | `MemcachedStore` |
//! | `sqlite` | `SqliteStore` (needs Rust 1.94) |
//! | `postgres` | `PostgresStore`, with TLS by rustls and ring (needs Rust 1.94) |
//! | `mysql` | `MySqlStore`, for MySQL and MariaDB, with TLS by rustls and ring (needs Rust 1.94) |
//! | `oauth2` | conversion from the answers of the `oauth2` and `openidconnect` crates |
//! | `grants` | ready-made sources of tokens: `grant` |
//! | `reqwest-0-12`, `reqwest-0-13` | `grants`, and `reqwest::Client` of that version as its HTTP client |
//! | `logout` | back-channel logout by an OpenID provider: `logout` |
//! | `reqwest-middleware` | [`outgoing::BearerLayer`] as a middleware of `reqwest-middleware` |
//! | `metrics` | counters, gauges and durations for the `metrics` crate: [`Stats`] lists them |
//! | `serde` | `Config`: settings from a file or the environment; [`Stats`], [`Health`] and [`session::SessionInfo`] are `Serialize` |
//! | `seal` | encryption of everything in L2: [`KeyRing`] and the module [`seal`] |
//! | `cookie` | `CookieStore`: sessions in the browser's cookies, without any L2: the module `cookie` |
//! | `protect-certificate` | `seal::CertificateProtector`: the ring's keys wrapped by an X.509 certificate |
//! | `protect-passphrase` | `seal::PassphraseProtector`: the ring's keys wrapped by a passphrase |
//! | `test-util` | `store::conformance`, a test suite for stores; not for release builds |
//!
//! # Glossary
//!
//! | term | here |
//! |---|---|
//! | partition | all tokens of one user, session, assertion or application: what is read, signed out and evicted as a whole |
//! | client | a registration of the application at a provider; in a partition each has tokens, a refresh and an id token of its own |
//! | session value | a small value that an application keeps in a session for a while, such as the state of a login |
//! | generation | counts a partition's sign-outs; a change that was made under an earlier one is refused |
//! | version | counts a partition's commits; L2 assigns it, so the later commit wins whatever the clocks say |
//! | tombstone | what a sign-out leaves in L2 for 24 hours: the generation, and no tokens |
//! | single flight | callers that need the same token at once share one call to the provider |
//! | lease | a right to acquire that L2 gives one instance at a time; it expires unless it is renewed |
//! | write-behind | a change is seen in memory at once, and written to L2 once the head of the response is ready, with others |
//! | change feed | what L2 tells all instances: which partitions may have changed, and until when that is all |
//! | stale | may be older than L2: a partition that another instance has changed, or of which the feed proves nothing |
//! | revalidate | compare the version in memory with that of L2, and read the partition again if they differ |
//! | negative entry | a note in L1 that L2 does not have a partition; believed for a second |
//! | eviction | L1 removes partitions that have not been used for long, to stay within its bytes; never what L2 has not got |
//! | back-off | the pause after a failure; it grows with each failure in a row, and has some chance in it |
//!
//! Who can attack what, and what does not help against it: `docs/threat-model.md`, in these pages the
//! module `threat_model`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod acquisition;
mod answer;
mod cache;
mod challenge;
mod classify;
mod codec;
#[cfg(feature = "cookie")]
pub mod cookie;
#[cfg(not(feature = "cookie"))]
#[path = "cookieless.rs"]
mod cookie;
mod engine;
mod error;
mod estimate;
mod event;
#[cfg(feature = "grants")]
pub mod grant;
#[cfg(feature = "redis")]
pub mod import;
pub mod key;
pub mod layer;
#[cfg(feature = "logout")]
pub mod logout;
mod lookup;
mod memory;
#[cfg(not(feature = "__tests"))]
mod mutation;
#[cfg(feature = "__tests")]
#[doc(hidden)]
pub mod mutation;
#[cfg(feature = "oauth2")]
mod oauth2;
pub mod outgoing;
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
mod panics;
mod patience;
mod policy;
#[cfg(any(feature = "seal", feature = "sqlite"))]
mod private_file;
mod race;
mod random;
mod reasons;
#[cfg(any(feature = "axum", feature = "actix"))]
mod rejection;
mod revoke;
#[cfg(feature = "seal")]
pub mod seal;
mod secret;
pub mod session;
pub mod store;
mod telemetry;
mod time;
mod token;
mod tokens;
mod wipe;

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;

pub use crate::acquire::{
    Acquire, AcquireError, AcquireErrorKind, AcquireFuture, Acquired, BoxError, Metadata, Prior,
    ProviderError, RefreshReason, TokenSource,
};
pub use crate::acquisition::Acquisition;
#[cfg(feature = "serde")]
pub use crate::cache::Config;
pub use crate::cache::{
    Acquisitions, BreakerState, Builder, Health, L1, Lifetimes, ShutdownReport, Timeouts,
    TokenCache,
};
pub use crate::challenge::{Challenge, ChallengeKind};
#[cfg(feature = "cookie")]
pub use crate::cookie::CookieStore;
pub use crate::error::{ConfigError, Error, StoreError, StoreErrorKind};
pub use crate::estimate::Estimate;
pub use crate::event::{Event, EventKind, SessionEnd, SignedOutBy};
pub use crate::key::{KeyError, KeyExtractor, PartitionKey, PartitionKind, RequestHead, TokenKey};
pub use crate::layer::{TokenCacheLayer, TokenCacheService};
pub use crate::lookup::{CacheLevel, Durability, Lookup};
pub use crate::policy::{
    FailurePolicy, InvalidKey, L2Failure, L2Operation, MissingKey, OnFailure, RefusedRefreshToken,
    WriteMode,
};
#[cfg(any(feature = "axum", feature = "actix"))]
pub use crate::rejection::TokensRejection;
pub use crate::revoke::Revoke;
#[cfg(feature = "seal")]
pub use crate::seal::KeyRing;
pub use crate::secret::Secret;
#[cfg(feature = "memcached")]
pub use crate::store::MemcachedStore;
#[cfg(feature = "sqlite")]
pub use crate::store::SqliteStore;
pub use crate::store::{MemoryStore, TokenStore};
#[cfg(feature = "mysql")]
pub use crate::store::{MySql, MySqlStore};
#[cfg(feature = "postgres")]
pub use crate::store::{Postgres, PostgresStore};
#[cfg(feature = "redis")]
pub use crate::store::{RedisCredentials, RedisStore, RedisStoreBuilder};
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use crate::store::{SqlStore, SqlStoreBuilder};
pub use crate::telemetry::{Stats, UnopenableReasons};
pub use crate::time::{Clock, Timestamp};
pub use crate::token::{Token, TokenSet};
pub use crate::tokens::Tokens;

/// Makes the random numbers of this thread repeatable, for simulations.
#[cfg(feature = "__tests")]
#[doc(hidden)]
pub use crate::random::seed as seed_randomness;

/// Decodes an entry as it stands in a store, for the fuzzer.
#[cfg(feature = "__tests")]
#[doc(hidden)]
pub fn decode_entry(bytes: &[u8]) -> bool {
    codec::decode(bytes, |_| true).is_ok()
}

/// Opens a value as it stands in a store, for the fuzzer: with a key that is known, in a place that
/// is known.
#[cfg(all(feature = "seal", feature = "__tests"))]
#[doc(hidden)]
pub fn open_value(bytes: &[u8]) -> bool {
    use std::sync::LazyLock;
    static BENCH: LazyLock<seal::Bench> =
        LazyLock::new(|| seal::Bench::new(seal::RingKey::from_bytes([9; 32])));
    let [payload] = BENCH.open([bytes]);
    payload.is_some_and(|payload| codec::read(payload.as_ref(), |_| true).is_ok())
}

/// Reads what a browser has sent in the cookies of a known store, and the same bytes as what was
/// sealed in them, for the fuzzer.
#[cfg(all(feature = "cookie", feature = "__tests"))]
#[doc(hidden)]
pub fn read_cookies(bytes: &[u8]) -> bool {
    cookie::read_anything(bytes)
}

#[cfg(doc)]
#[doc = include_str!("../docs/threat-model.md")]
pub mod threat_model {}

/// The README's code blocks are tests.
#[cfg(all(doctest, feature = "full"))]
#[doc = include_str!("../README.md")]
struct Readme;
