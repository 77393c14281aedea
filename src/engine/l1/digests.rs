//! Finds the partition in memory that a digest in the change feed means.
//!
//! An entry of the index is dropped with its partition, so that no scan is needed to remove it.

use std::sync::{Arc, Weak};

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

const SHARDS: usize = 256;
/// The least capacity of a shard that has entries.
const LEAST: usize = 16;

/// Memory of an entry, in bytes. A table is between seven sixteenths and seven eighths full.
pub(crate) const FOOTPRINT: usize = 48;

/// The partitions by the first 8 bytes of their digest, which tell the partitions of one process apart.
pub(crate) struct Index<P> {
    shards: Box<[Mutex<HashTable<Place<P>>>]>,
}

struct Place<P> {
    digest: u64,
    partition: Weak<P>,
}

/// A partition's entry in the index; dropping this removes it.
pub(crate) struct Listed<P> {
    index: Arc<Index<P>>,
    digest: u64,
    /// The partition's address. The entry's `Weak` keeps it from being used again.
    address: usize,
}

impl<P> Index<P> {
    pub(crate) fn new() -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards })
    }

    /// Lists the partition under this digest, and under no other.
    pub(crate) fn list(
        self: &Arc<Self>,
        digest: &[u8; 32],
        partition: &Arc<P>,
        listed: &mut Option<Listed<P>>,
    ) {
        let digest = short(digest);
        if listed.as_ref().is_some_and(|it| it.digest == digest) {
            return;
        }
        let place = Place {
            digest,
            partition: Arc::downgrade(partition),
        };
        self.shard(digest)
            .insert_unique(digest, place, |place| place.digest);
        // Drops the entry under the former digest.
        *listed = Some(Listed {
            index: self.clone(),
            digest,
            address: Arc::as_ptr(partition).addr(),
        });
    }

    /// The partition of this digest that is in memory.
    pub(crate) fn find(&self, digest: &[u8; 32]) -> Option<Arc<P>> {
        let digest = short(digest);
        let mut found = None;
        let shard = self.shard(digest);
        // The upgraded `Arc` may be the last one. It must not be dropped under the lock, which dropping
        // takes.
        shard.find(digest, |place| {
            place.digest == digest && {
                found = place.partition.upgrade();
                found.is_some()
            }
        });
        drop(shard);
        found
    }

    fn shard(&self, digest: u64) -> MutexGuard<'_, HashTable<Place<P>>> {
        // The tables use the lowest and the highest bits of the hash.
        self.shards[(digest >> 32) as usize % SHARDS].lock()
    }

    #[cfg(test)]
    fn size(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock();
            (shard.len(), shard.capacity())
        });
        sizes.fold((0, 0), |(len, capacity), (l, c)| (len + l, capacity + c))
    }
}

impl<P> Drop for Listed<P> {
    fn drop(&mut self) {
        let mut shard = self.index.shard(self.digest);
        let is_it = |place: &Place<P>| place.partition.as_ptr().addr() == self.address;
        if let Ok(place) = shard.find_entry(self.digest, is_it) {
            place.remove();
        }
        if shard.capacity() > LEAST && shard.len() < shard.capacity() / 4 {
            let room = (2 * shard.len()).max(LEAST / 2);
            shard.shrink_to(room, |place| place.digest);
        }
    }
}

fn short(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::namespace::NamespaceNumber;
    use crate::engine::partition::state::Partition;
    use crate::key::PartitionKey;

    fn digest(number: usize) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        Sha256::digest(number.to_be_bytes()).into()
    }

    fn listed(index: &Arc<Index<Partition>>, number: usize) -> Arc<Partition> {
        let key = PartitionKey::user(number.to_string()).expect("a key");
        let partition = Partition::new(key, &NamespaceNumber::default());
        index.list(&digest(number), &partition, &mut partition.lock().listed);
        partition
    }

    #[test]
    fn what_is_gone_gives_its_place_and_its_room_back() {
        let index = Index::new();
        let all: Vec<_> = (0..20_000).map(|number| listed(&index, number)).collect();
        for (number, partition) in all.iter().enumerate() {
            let found = index.find(&digest(number)).expect("it is listed");
            assert!(Arc::ptr_eq(&found, partition));
        }
        assert_eq!(index.size().0, 20_000);
        drop(all);
        assert!(index.find(&digest(7)).is_none());
        let (len, capacity) = index.size();
        assert_eq!(len, 0);
        assert!(capacity <= SHARDS * LEAST, "{capacity}");
    }

    #[test]
    fn a_partition_is_known_by_its_latest_digest_only() {
        let index = Index::new();
        let partition = listed(&index, 1);
        index.list(&digest(2), &partition, &mut partition.lock().listed);
        assert!(index.find(&digest(1)).is_none());
        assert!(index.find(&digest(2)).is_some());
        assert_eq!(index.size().0, 1);
    }

    #[test]
    fn a_newer_partition_of_the_same_key_is_found_after_the_older_one_has_gone() {
        let index = Index::new();
        let (older, newer) = (listed(&index, 1), listed(&index, 1));
        drop(older);
        let found = index.find(&digest(1)).expect("one is left");
        assert!(Arc::ptr_eq(&found, &newer));
    }
}
