//! How a token was come by.

use std::time::Duration;

use crate::lookup::{CacheLevel, Durability};
use crate::time::Timestamp;
use crate::token::Token;

/// Why a token was, or is to be, asked of the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshReason {
    /// It was not: the cache had it.
    #[default]
    NotApplicable,
    /// The caller demanded a new one, needs other claims, or had the old one rejected.
    ForceRefreshOrClaims,
    /// There was none.
    NoCachedAccessToken,
    /// The one there was has expired, or has less left than was asked for.
    Expired,
    /// The one there is will expire soon; it is served while the new one is asked for.
    ProactivelyRefreshed,
}

impl RefreshReason {
    /// The value of `cache_refresh_reason` in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotApplicable => "not_applicable",
            Self::ForceRefreshOrClaims => "force_refresh_or_claims",
            Self::NoCachedAccessToken => "no_cached_access_token",
            Self::Expired => "expired",
            Self::ProactivelyRefreshed => "proactively_refreshed",
        }
    }
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenSource {
    /// L1 or L2.
    #[default]
    Cache,
    /// The provider was asked, by this process, for this call or for one that ran meanwhile.
    IdentityProvider,
}

impl TokenSource {
    /// The value of `token_source` in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::IdentityProvider => "identity_provider",
        }
    }
}

/// A token and how it was come by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Acquired {
    /// The token. It has not expired.
    pub token: Token,
    /// How it was come by.
    pub metadata: Metadata,
}

/// How the answer of a read or an acquisition was come by.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// How long the call took.
    pub duration_total: Duration,
    /// The part of it spent in the cache: memory, L2, and waiting for other instances.
    pub duration_in_cache: Duration,
    /// The part of it spent in the acquire function.
    pub duration_in_http: Duration,
    /// Who gave the token.
    pub token_source: TokenSource,
    /// The level that answered; [`CacheLevel::None`] when the provider did.
    pub cache_level: CacheLevel,
    /// Why the provider was asked.
    pub refresh_reason: RefreshReason,
    /// When the token expires.
    pub expires_at: Option<Timestamp>,
    /// When a new token will be asked for in the background; `None` is never.
    pub refresh_at: Option<Timestamp>,
    /// Whether L2 has the token.
    pub durability: Option<Durability>,
    /// Whether L2 kept other instances from asking the provider at the same time. `false` when it
    /// could not be asked, and for a session or user that L2 does not have and that has nothing to
    /// redeem: then only this process was kept from it.
    pub exclusive: bool,
}
