//! Any repository and any protector, as a ring holds them.

use std::pin::Pin;

use zeroize::Zeroizing;

use super::error::KeyRingError;
use super::protector::KeyProtector;
use super::repository::{KeyRecord, KeyRepository};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeyRingError>> + Send + 'a>>;

/// [`KeyRepository`] with boxed futures, which is what makes it object-safe.
pub(super) trait DynRepository: Send + Sync {
    fn list(&self) -> Boxed<'_, Vec<KeyRecord>>;
    fn add<'a>(&'a self, record: &'a KeyRecord) -> Boxed<'a, bool>;
    fn is_beside_data(&self) -> bool;
}

impl<R: KeyRepository> DynRepository for R {
    fn list(&self) -> Boxed<'_, Vec<KeyRecord>> {
        Box::pin(KeyRepository::list(self))
    }

    fn add<'a>(&'a self, record: &'a KeyRecord) -> Boxed<'a, bool> {
        Box::pin(KeyRepository::add(self, record))
    }

    fn is_beside_data(&self) -> bool {
        KeyRepository::is_beside_data(self)
    }
}

/// [`KeyProtector`] with boxed futures.
pub(super) trait DynProtector: Send + Sync {
    fn id(&self) -> String;
    fn protect<'a>(&'a self, key: &'a [u8; 32]) -> Boxed<'a, Vec<u8>>;
    fn unprotect<'a>(&'a self, wrapped: &'a [u8]) -> Boxed<'a, Zeroizing<Vec<u8>>>;
}

impl<P: KeyProtector> DynProtector for P {
    fn id(&self) -> String {
        KeyProtector::id(self)
    }

    fn protect<'a>(&'a self, key: &'a [u8; 32]) -> Boxed<'a, Vec<u8>> {
        Box::pin(KeyProtector::protect(self, key))
    }

    fn unprotect<'a>(&'a self, wrapped: &'a [u8]) -> Boxed<'a, Zeroizing<Vec<u8>>> {
        Box::pin(KeyProtector::unprotect(self, wrapped))
    }
}
