//! A kit for simple stores: [`CasStore`] is what they have to do, [`CasAdapter`] makes a
//! [`TokenStore`](super::TokenStore) of it.

mod adapter;
mod blob;
mod keys;
mod leases;
mod movable;
mod moves;
mod timed;

use std::time::Duration;

use bytes::Bytes;

pub use self::adapter::CasAdapter;
use crate::error::StoreError;

/// A store of bytes under keys that can compare and set: object storage, a key-value database, a folder.
/// [`CasAdapter`] makes a [`TokenStore`](super::TokenStore) of it, with all that the contract demands.
///
/// A key is ASCII: letters, digits, `.`, `_`, `-` and `:`, at most 132 characters.
///
/// What it must do:
///
/// - A change that is acknowledged is in every [`get`](Self::get) that begins later, from any instance.
///   Reads from a replica that lags behind break every guarantee.
/// - [`put`](Self::put) and [`delete`](Self::delete) compare and change in one atomic step.
/// - Equal revisions of a key stand for equal bytes, also after a restart. A counter that is stored, an `ETag` or a digest
///   of the bytes will do; one that begins anew needs the server's start beside it.
///
/// `conformance::cas_store` (feature `test-util`) checks these rules, as far as one instance can, and
/// `conformance::all` what partitions need of them.
///
/// An operation may be dropped at any await: what has been sent may then be applied or not. An error says the same.
/// [`Refused`](crate::StoreErrorKind::Refused) is for a server that works and does not do this.
///
/// # Example
///
/// A store in this process. The package `custom_store` of the examples keeps one in a folder.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::Duration;
///
/// use bytes::Bytes;
/// use tower_token_cache::store::{CasAdapter, CasStore};
/// use tower_token_cache::{StoreError, TokenCache};
///
/// #[derive(Default)]
/// struct Map(Mutex<(u64, HashMap<String, (Bytes, u64)>)>);
///
/// impl CasStore for Map {
///     type Revision = u64;
///
///     async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, StoreError> {
///         Ok(self.0.lock().expect("no panic").1.get(key).cloned())
///     }
///
///     async fn put(
///         &self,
///         key: &str,
///         value: Bytes,
///         expected: Option<&u64>,
///         _keep: Option<Duration>,
///     ) -> Result<bool, StoreError> {
///         let (count, map) = &mut *self.0.lock().expect("no panic");
///         if map.get(key).map(|(_, revision)| revision) != expected {
///             return Ok(false);
///         }
///         *count += 1;
///         map.insert(key.into(), (value, *count));
///         Ok(true)
///     }
///
///     async fn delete(&self, key: &str, expected: &u64) -> Result<bool, StoreError> {
///         let (_, map) = &mut *self.0.lock().expect("no panic");
///         let as_read = map.get(key).is_some_and(|(_, revision)| revision == expected);
///         Ok(as_read && map.remove(key).is_some())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = TokenCache::builder(CasAdapter::new(Map::default())).build()?;
/// # drop(cache);
/// # Ok(())
/// # }
/// ```
pub trait CasStore: Send + Sync + 'static {
    /// What tells the states of a key apart.
    type Revision: Send + Sync;

    /// The bytes under a key, and their revision; `None` when there is nothing.
    fn get(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<(Bytes, Self::Revision)>, StoreError>> + Send;

    /// Writes these bytes if the key still has the expected revision; without one, if it has nothing. `false`, and
    /// nothing changes, when it is otherwise.
    ///
    /// After `keep` from now on the bytes are of no more use, and the store may drop them. It must not do so earlier:
    /// they may be a tombstone. `None` is for ever. A store that never drops anything keeps the contract, and grows.
    fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&Self::Revision>,
        keep: Option<Duration>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Deletes a key if it still has the expected revision. `false`, and nothing changes, when it is otherwise.
    fn delete(
        &self,
        key: &str,
        expected: &Self::Revision,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Whether a value of this length has room under this key, as far as that can be known without writing it. A move
    /// asks before it ends the old session. Defaults to yes: for a store without a limit below 8 MiB.
    fn takes(
        &self,
        key: &str,
        length: usize,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let _ = (key, length);
        std::future::ready(Ok(true))
    }

    /// As [`TokenStore::identity`](super::TokenStore::identity). Defaults to 0: all of a type are the same.
    fn identity(&self) -> u64 {
        0
    }
}
