//! Bringing a ring and its repository to the same keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dir::MAX_RECORDS;
use super::erased::{DynProtector, DynRepository};
use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::{KeyId, RingKey};
use super::keys::{HeldKey, Keys};
use super::record::{self, Kind, NAMING, StoredKey};
use super::repository::KeyRecord;
use super::schedule::Schedule;
use crate::time::Timestamp;

/// Each round adds at most one record that was missing, or finds that another instance has.
const MAX_ROUNDS: usize = 16;

/// Where a ring's keys are kept, and how.
pub(super) struct Vault {
    pub(super) repository: Arc<dyn DynRepository>,
    /// The first one wraps; any unwraps.
    pub(super) protectors: Vec<Arc<dyn DynProtector>>,
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
                let number = next_number(&found, keys.as_ref());
                self.add_key(number, activates, now).await?;
                continue;
            }
            if let Some(keys) = keys {
                self.put_back(&found, &keys, now).await;
                self.copy(&found, &keys).await;
                return Ok(keys);
            }
        }
        // What was added is not listed.
        Err(KeyRingErrorKind::Unreachable.into())
    }

    /// Adds a key besides what the schedule asks for.
    pub(super) async fn rotate(&self, known: &Keys, now: Timestamp) -> Result<KeyId, KeyRingError> {
        for _ in 0..MAX_ROUNDS {
            let activates = now.saturating_add(self.schedule.activation_delay);
            let number = next_number(&self.list().await?, Some(known));
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
        if records.len() > MAX_RECORDS {
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

    /// The keys among the records, and what is known already: a repository that has lost a key or a
    /// revocation does not make a ring forget it. A sealing key that cannot be read is passed over,
    /// so that one damaged record does not stop a fleet; without the names' key there is no ring.
    async fn read(
        &self,
        found: &Found,
        known: Option<&Keys>,
    ) -> Result<(Option<Keys>, Option<KeyRingError>), KeyRingError> {
        let mut known = known;
        let naming = match known.and_then(|keys| keys.naming.as_ref()) {
            Some(naming) if self.is_same(naming, &found.naming) => naming.clone(),
            naming => match (self.read_any(&found.naming).await, naming) {
                // Another ring stands there now.
                (Ok(other), before) => {
                    if before.is_some() {
                        tracing::warn!(
                            "the key repository has another key ring, which takes the place of the one before: what \
                             that has named is found no more, and all users have to sign in again"
                        );
                    }
                    known = None;
                    other
                }
                (Err(error), None) => return Err(error),
                (Err(_), Some(naming)) => {
                    tracing::warn!("the key of the names is unreadable: the known one stays");
                    naming.clone()
                }
            },
        };
        let held = known.map_or(&[][..], |keys| &keys.keys);
        let mut keys = held.to_vec();
        let mut unreadable = None;
        let mut count = 0;
        for records in found.keys.values() {
            if held.iter().any(|held| self.is_same(&held.stored, records)) {
                continue;
            }
            match self.read_any(records).await {
                Ok(key) => keys.push(HeldKey::new(key)),
                Err(error) => {
                    count += 1;
                    unreadable = unreadable.or(Some((error, records)));
                }
            }
        }
        if let Some((error, records)) = &unreadable {
            tracing::warn!(
                count,
                first = records.first().map(|record| record.name.as_str()),
                error = error as &dyn std::error::Error,
                "keys of the ring are unreadable"
            );
        }
        let mut revoked = found.revoked.clone();
        let known = known.into_iter().flat_map(|keys| &keys.revoked);
        for id in known {
            // Ids of no key mean nothing, and are not collected.
            if !revoked.contains(id) && keys.iter().any(|key| key.stored.id == *id) {
                revoked.push(*id);
            }
        }
        let unreadable = unreadable.map(|(error, _)| error);
        Ok((Keys::stored(naming, keys, revoked), unreadable))
    }

    /// Adds records again that the repository has lost. What fails is tried again at the next
    /// refresh.
    async fn put_back(&self, found: &Found, keys: &Keys, now: Timestamp) {
        for id in &keys.revoked {
            if !found.revoked.contains(id) {
                let added = self.revoke(*id, now).await.map(|()| true);
                log_put_back("the revocation of a key", &id.to_string(), added);
            }
        }
        for key in keys.keys.iter().map(|key| &key.stored) {
            let number = record::key_number(&key.name);
            let records = number.and_then(|number| found.keys.get(&number));
            if !records.is_some_and(|records| self.is_same(key, records)) {
                log_put_back("a key", &key.name, self.add(key).await);
            }
        }
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

fn log_put_back(what: &str, name: &str, added: Result<bool, KeyRingError>) {
    match added {
        Ok(true) => tracing::warn!(name, "the key repository had lost {what}: it is put back"),
        // Something else has its name.
        Ok(false) => tracing::warn!(name, "the key repository has lost {what}"),
        Err(error) => tracing::warn!(
            name,
            error = &error as &dyn std::error::Error,
            "the key repository has lost {what}, and does not take it back"
        ),
    }
}

/// The first free number after the keys of the ring. Records that are no keys of it are not counted
/// on from: anybody who can write there can make one with the highest number.
fn next_number(found: &Found, keys: Option<&Keys>) -> u32 {
    let keys = keys.into_iter().flat_map(|keys| &keys.keys);
    let numbers = keys.filter_map(|key| record::key_number(&key.stored.name));
    let mut next = numbers.max().unwrap_or(0) + 1;
    while found.keys.contains_key(&next) {
        next += 1;
    }
    next
}
