//! Whose tokens, and which: partition keys, token keys, and how a request names its partition.

mod cookies;
mod entry;
mod extract;
mod partition;
mod request;
mod short;
mod token_key;

pub(crate) use self::cookies::CookieName;
pub(crate) use self::entry::{ClientName, EntryKind, LINK, id_token_of, refresh_token_of};
pub use self::extract::{
    BearerAssertion, Constant, Cookie, Extension, FromFn, Header, KeyExtractor, Or,
    bearer_assertion, constant, cookie, extension, from_fn, header,
};
pub use self::partition::{PartitionKey, PartitionKind};
pub use self::request::RequestHead;
pub use self::token_key::TokenKey;

use std::fmt;

/// Why a text is no partition key or token key. The message never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing is left of the text.
    Empty,
    /// More bytes than the limit.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Control characters, or bytes outside ASCII where HTTP allows none.
    InvalidCharacter,
    /// The request names two different keys in one place.
    Ambiguous,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the key is empty"),
            Self::TooLong { limit } => write!(f, "the key is longer than {limit} bytes"),
            Self::InvalidCharacter => f.write_str("the key has characters that are not allowed"),
            Self::Ambiguous => f.write_str("the request names two different keys"),
        }
    }
}

impl std::error::Error for KeyError {}
