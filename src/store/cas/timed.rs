//! A store whose answers are counted, one by one.

use std::time::Duration;

use bytes::Bytes;

use super::CasStore;
use crate::error::StoreError;
use crate::patience::answered;

/// An operation takes several round-trips, and more where others are faster. The time of an attempt is for each of them.
pub(super) struct Timed<C>(pub(super) C);

fn told<T>(answer: Result<T, StoreError>) -> Result<T, StoreError> {
    if answer.is_ok() {
        answered();
    }
    answer
}

impl<C: CasStore> CasStore for Timed<C> {
    type Revision = C::Revision;

    async fn get(&self, key: &str) -> Result<Option<(Bytes, Self::Revision)>, StoreError> {
        told(self.0.get(key).await)
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&Self::Revision>,
        keep: Option<Duration>,
    ) -> Result<bool, StoreError> {
        told(self.0.put(key, value, expected, keep).await)
    }

    async fn delete(&self, key: &str, expected: &Self::Revision) -> Result<bool, StoreError> {
        told(self.0.delete(key, expected).await)
    }

    async fn takes(&self, key: &str, length: usize) -> Result<bool, StoreError> {
        self.0.takes(key, length).await
    }

    fn identity(&self) -> u64 {
        self.0.identity()
    }
}
