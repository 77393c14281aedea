//! Tower middleware that keeps your users' OAuth tokens in memory, shared by every instance and
//! durable in Redis or SQL.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod codec;
mod error;
pub mod key;
pub mod layer;
#[cfg(feature = "oauth2")]
mod oauth2;
mod policy;
#[cfg(any(feature = "axum", feature = "actix"))]
mod rejection;
mod secret;
pub mod store;
mod telemetry;
mod time;
mod token;
mod tokens;

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;

pub use crate::cache::{Builder, L1, ShutdownReport, TokenCache};
pub use crate::error::{ConfigError, Error, StoreError, StoreErrorKind};
pub use crate::key::{KeyError, KeyExtractor, PartitionKey, PartitionKind, RequestHead, TokenKey};
pub use crate::layer::{TokenCacheLayer, TokenCacheService};
pub use crate::policy::{FailurePolicy, L2Failure, L2Operation, MissingKey, OnFailure, WriteMode};
#[cfg(any(feature = "axum", feature = "actix"))]
pub use crate::rejection::TokensRejection;
pub use crate::secret::Secret;
#[cfg(feature = "sqlite")]
pub use crate::store::SqliteStore;
pub use crate::store::{MemoryStore, TokenStore};
#[cfg(feature = "redis")]
pub use crate::store::{RedisStore, RedisStoreBuilder};
pub use crate::telemetry::Stats;
pub use crate::time::{Clock, Timestamp};
pub use crate::token::{Token, TokenSet};
pub use crate::tokens::{CacheLevel, Durability, Lookup, Tokens};

/// Decodes an entry as it stands in a store, for the fuzzer.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub fn decode_entry(bytes: &[u8]) -> bool {
    codec::decode(bytes, |_| true).is_ok()
}
