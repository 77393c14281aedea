//! Bringing a ring and its repository to the same keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dir::MAX_RECORDS;
use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::{KeyId, RingKey};
use super::keys::{HeldKey, Keys};
use super::protector::KeyProtector;
use super::record::{self, Kind, MAX_CONTENT, NAMING, StoredKey};
use super::repository::{KeyRecord, KeyRepository};
use super::schedule::Schedule;
use crate::time::Timestamp;

/// Each round adds at most one record that was missing, or finds that another instance has.
const MAX_ROUNDS: usize = 16;

/// Where a ring's keys are kept, and how.
pub(super) struct Vault {
    pub(super) repository: Arc<dyn KeyRepository>,
    /// The first one wraps; any unwraps.
    pub(super) protectors: Vec<Arc<dyn KeyProtector>>,
    pub(super) schedule: Schedule,
}

/// The records, by what they are.
#[derive(Default)]
struct Found {
    /// The same key under each name, wrapped by different protectors.
    naming: Vec<KeyRecord>,
    keys: BTreeMap<u32, Vec<KeyRecord>>,
    revoked: Vec<KeyId>,
}

impl Vault {
    /// What the repository has, after what was missing is added. Of any number of instances that
    /// do this at once, all get the same keys: a record's name is its place, and the first to take
    /// it wins.
    pub(super) async fn synchronise(
        &self,
        known: Option<&Keys>,
        now: Timestamp,
    ) -> Result<Keys, KeyRingError> {
        for _ in 0..MAX_ROUNDS {
            let found = self.list().await?;
            if found.naming.is_empty() {
                self.begin(known, now).await?;
                continue;
            }
            let (keys, unreadable) = self.read(&found, known).await?;
            if let Some(activates) = self.schedule.due(keys.as_ref(), now) {
                if let (None, Some(error)) = (&keys, unreadable) {
                    return Err(error);
                }
                self.add_key(next_number(&found), activates, now).await?;
                continue;
            }
            if let Some(keys) = keys {
                self.copy(&found, &keys).await;
                return Ok(keys);
            }
        }
        // What was added is not listed.
        Err(KeyRingErrorKind::Unreachable.into())
    }

    /// Adds a key besides what the schedule asks for.
    pub(super) async fn rotate(&self, now: Timestamp) -> Result<KeyId, KeyRingError> {
        for _ in 0..MAX_ROUNDS {
            let activates = now.saturating_add(self.schedule.activation_delay);
            let number = next_number(&self.list().await?);
            if let Some(id) = self.add_key(number, activates, now).await? {
                return Ok(id);
            }
        }
        Err(KeyRingErrorKind::Unreachable.into())
    }

    pub(super) async fn revoke(&self, id: KeyId, now: Timestamp) -> Result<(), KeyRingError> {
        let record = record::revocation(id, now)?;
        self.repository.add(&record).await.map(drop)
    }

    async fn list(&self) -> Result<Found, KeyRingError> {
        let records = self.repository.list().await?;
        let too_large = |record: &KeyRecord| record.content.len() > MAX_CONTENT;
        if records.len() > MAX_RECORDS || records.iter().any(too_large) {
            return Err(KeyRingErrorKind::TooLarge.into());
        }
        let mut found = Found::default();
        for record in records {
            let name = record.name.as_str();
            if record::base_name(name) == NAMING {
                found.naming.push(record);
            } else if let Some(number) = record::key_number(name) {
                found.keys.entry(number).or_default().push(record);
            } else {
                found.revoked.extend(record::revoked(name));
            }
        }
        Ok(found)
    }

    /// Starts an empty repository. What has lost everything gets back what this ring knows.
    async fn begin(&self, known: Option<&Keys>, now: Timestamp) -> Result<(), KeyRingError> {
        let Some((known, naming)) = known.and_then(|keys| Some((keys, keys.naming.as_ref()?)))
        else {
            let naming = StoredKey {
                name: NAMING.into(),
                kind: Kind::Naming,
                id: KeyId::random()?,
                created: now,
                activates: now,
                key: RingKey::generate()?,
            };
            return self.add(&naming).await.map(drop);
        };
        tracing::warn!("the key repository is empty: its keys are put back");
        for id in &known.revoked {
            self.revoke(*id, now).await?;
        }
        // The name's key comes last: what is found complete is.
        for key in &known.keys {
            self.add(&key.stored).await?;
        }
        self.add(naming).await.map(drop)
    }

    async fn add_key(
        &self,
        number: u32,
        activates: Timestamp,
        now: Timestamp,
    ) -> Result<Option<KeyId>, KeyRingError> {
        let key = StoredKey {
            name: record::key_name(number),
            kind: Kind::Sealing,
            id: KeyId::random()?,
            created: now,
            activates,
            key: RingKey::generate()?,
        };
        let added = self.add(&key).await?;
        if added {
            tracing::info!(key = %key.id, ?activates, "a sealing key was made");
        }
        Ok(added.then_some(key.id))
    }

    async fn add(&self, key: &StoredKey) -> Result<bool, KeyRingError> {
        let protector = self.protectors.first();
        let record = key.record(protector.map(|p| &**p), false).await?;
        self.repository.add(&record).await
    }

    /// The keys among the records. A sealing key that cannot be read is passed over, so that one
    /// damaged record does not stop a fleet; without the names' key there is no ring.
    async fn read(
        &self,
        found: &Found,
        known: Option<&Keys>,
    ) -> Result<(Option<Keys>, Option<KeyRingError>), KeyRingError> {
        let naming = match known.and_then(|keys| keys.naming.as_ref()) {
            // Compared with the record before it is believed: another ring may stand there now.
            Some(naming) if self.is_same(naming, &found.naming) => naming.clone(),
            _ => self.read_any(&found.naming).await?,
        };
        let mut keys = Vec::with_capacity(found.keys.len());
        let mut unreadable = None;
        for records in found.keys.values() {
            let held = known.into_iter().flat_map(|keys| &keys.keys);
            let mut held = held.filter(|held| self.is_same(&held.stored, records));
            if let Some(held) = held.next() {
                keys.push(held.clone());
                continue;
            }
            match self.read_any(records).await {
                Ok(key) => keys.push(HeldKey::new(key)),
                Err(error) => {
                    let name = records.first().map(|record| record.name.as_str());
                    tracing::warn!(
                        name,
                        error = &error as &dyn std::error::Error,
                        "a key of the ring is unreadable"
                    );
                    unreadable = Some(error);
                }
            }
        }
        Ok((
            Keys::stored(naming, keys, found.revoked.clone()),
            unreadable,
        ))
    }

    /// Whether the records say that they hold this key, so that nobody needs to be asked to unwrap
    /// it again.
    fn is_same(&self, key: &StoredKey, records: &[KeyRecord]) -> bool {
        records
            .iter()
            .any(|record| record::base_name(&record.name) == key.name && key.is_in(record))
    }

    async fn read_any(&self, records: &[KeyRecord]) -> Result<StoredKey, KeyRingError> {
        let mut first = None;
        for record in records {
            match record::read(record, &self.protectors).await {
                Ok(key) => return Ok(key),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| KeyRingErrorKind::Damaged.into()))
    }

    /// Adds copies for the present protector of keys that only an older one has wrapped. What
    /// fails is tried again at the next refresh.
    async fn copy(&self, found: &Found, keys: &Keys) {
        let Some(protector) = self.protectors.first() else {
            return;
        };
        let id = protector.id();
        let names = keys.naming.iter();
        for key in names.chain(keys.keys.iter().map(|key| &key.stored)) {
            let records = match record::key_number(&key.name) {
                Some(number) => found.keys.get(&number).map_or(&[][..], Vec::as_slice),
                None => &found.naming,
            };
            let is_wrapped =
                |record: &KeyRecord| record::protector_of(record).as_deref() == Some(&*id);
            if records.iter().any(is_wrapped) {
                continue;
            }
            let copied = match key.record(Some(&**protector), true).await {
                Ok(record) => self.repository.add(&record).await,
                Err(error) => Err(error),
            };
            if let Err(error) = copied {
                tracing::warn!(
                    name = key.name,
                    error = &error as &dyn std::error::Error,
                    "a key could not be wrapped anew"
                );
            }
        }
    }
}

fn next_number(found: &Found) -> u32 {
    found
        .keys
        .last_key_value()
        .map_or(1, |(number, _)| number + 1)
}
