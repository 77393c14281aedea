//! `KeyRepository`: where a ring's keys are kept.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::KeyRingError;

/// A record of a key ring: a name and what stands under it. `Debug` does not show the content,
/// which holds a key in the clear where no [`KeyProtector`](super::KeyProtector) is set; it is
/// wiped on drop.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRecord {
    /// At most 64 letters, digits, `.` and `-`; unique within the repository. Good as a file or
    /// blob name.
    pub name: String,
    /// At most 16 KiB of text.
    pub content: Zeroizing<Vec<u8>>,
}

impl KeyRecord {
    /// What stands under this name.
    pub fn new(name: impl Into<String>, content: impl Into<Zeroizing<Vec<u8>>>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
        }
    }
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Where the keys of a ring are kept, for all instances: a folder, a store, or any storage that can
/// add an object only if there is none of the name (blob storage: `If-None-Match: *`).
///
/// The methods are written as `async fn`. Records are never changed or removed. A ring has a handful, and
/// some four more per year.
pub trait KeyRepository: Send + Sync + 'static {
    /// All records, in any order. What was added before this was called is among them.
    fn list(&self) -> impl Future<Output = Result<Vec<KeyRecord>, KeyRingError>> + Send;

    /// Adds a record durably if there is none of its name, atomically: of any number of instances
    /// that add one of the same name, one gets `true` and all others `false`. A record is seen
    /// whole or not at all.
    fn add(&self, record: &KeyRecord) -> impl Future<Output = Result<bool, KeyRingError>> + Send;

    /// Whether the keys lie beside what they seal: keys in the clear then protect nothing, and
    /// [`KeyRingBuilder::open`](super::KeyRingBuilder::open) refuses to be without a
    /// [protector](super::KeyRingBuilder::protector). Defaults to no.
    fn is_beside_data(&self) -> bool {
        false
    }
}

impl<R: KeyRepository> KeyRepository for Arc<R> {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        (**self).list().await
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        (**self).add(record).await
    }

    fn is_beside_data(&self) -> bool {
        (**self).is_beside_data()
    }
}
