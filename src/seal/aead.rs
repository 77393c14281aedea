//! Sealing and opening of one value.

use std::cell::RefCell;

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

use super::key::{KeyId, RingKey};
use crate::codec::{MARK, PROTECTION_SEALED, VERSION};
use crate::store::{EntryId, PartitionId};
use crate::wipe::Wiped;

const HEADER: [u8; 3] = [MARK, VERSION, PROTECTION_SEALED];
const NONCE: usize = 12;
/// What stands before the encrypted payload.
pub(crate) const BEFORE: usize = HEADER.len() + 8 + NONCE;
/// What stands after it.
pub(crate) const AFTER: usize = 16;

const PURPOSE: &[u8] = b"tower-token-cache seal v1\0";

/// Where a value stands. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) partition: &'a PartitionId,
    /// How often the partition was signed out before.
    pub(crate) generation: u64,
    pub(crate) entry: EntryId,
}

impl Place<'_> {
    /// What the tag covers besides the payload. Every part has a fixed length, so no two places
    /// give the same bytes.
    fn associated_data(&self, key: KeyId) -> [u8; 67] {
        let mut data = [0; 67];
        data[..3].copy_from_slice(&HEADER);
        data[3..11].copy_from_slice(key.as_bytes());
        data[11..43].copy_from_slice(self.partition.digest());
        data[43..59].copy_from_slice(self.entry.as_bytes());
        data[59..].copy_from_slice(&self.generation.to_be_bytes());
        data
    }
}

/// A key that seals. Each partition has one of its own, derived from it.
#[derive(Clone)]
pub(super) struct SealingKey {
    pub(super) id: KeyId,
    /// The state after the key was taken in.
    mac: Hmac<Sha256>,
}

impl SealingKey {
    pub(super) fn new(id: KeyId, key: &RingKey) -> Self {
        Self { id, mac: key.mac() }
    }

    /// HKDF-Expand of RFC 5869, of which one block is enough; the ring's keys are random, so there
    /// is nothing to extract.
    fn cipher(&self, partition: &PartitionId) -> Aes256GcmSiv {
        let mut mac = self.mac.clone();
        mac.update(PURPOSE);
        mac.update(partition.digest());
        mac.update(&[1]);
        let mut key = mac.finalize().into_bytes();
        let cipher = Aes256GcmSiv::new(&key);
        key.as_mut_slice().zeroize();
        cipher
    }

    /// What seals and opens for one partition.
    pub(super) fn of_partition(&self, partition: &PartitionId) -> PartitionCipher {
        PartitionCipher {
            id: self.id,
            cipher: self.cipher(partition),
        }
    }
}

/// Seals and opens for one partition, with the key that is derived for it.
pub(crate) struct PartitionCipher {
    pub(super) id: KeyId,
    /// Wiped on drop.
    cipher: Aes256GcmSiv,
}

impl PartitionCipher {
    /// Seals what stands in `buffer` after [`BEFORE`] bytes, in place; the place is in the partition
    /// that this is for. There must be room for [`AFTER`] bytes more. `None` when the payload is too
    /// long for the cipher.
    pub(crate) fn seal(&self, place: Place<'_>, buffer: &mut Wiped<Vec<u8>>) -> Option<()> {
        debug_assert!(buffer.len() >= BEFORE && buffer.capacity() >= buffer.len() + AFTER);
        let nonce = random_nonce();
        let data = place.associated_data(self.id);
        let (head, payload) = buffer.split_at_mut_checked(BEFORE)?;
        head[..3].copy_from_slice(&HEADER);
        head[3..11].copy_from_slice(self.id.as_bytes());
        head[11..].copy_from_slice(&nonce);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce, &data, payload.into())
            .ok()?;
        buffer.extend_from_slice(&tag);
        Some(())
    }

    /// The payload of an envelope with this key's id; `None` when it was sealed elsewhere or is
    /// not as it was sealed.
    pub(super) fn open(&self, place: Place<'_>, envelope: &[u8]) -> Option<Wiped<Vec<u8>>> {
        let (head, rest) = envelope.split_at_checked(BEFORE)?;
        let (payload, tag) = rest.split_at_checked(rest.len().checked_sub(AFTER)?)?;
        let nonce = Nonce::try_from(&head[11..]).ok()?;
        let tag = Tag::try_from(tag).ok()?;
        let data = place.associated_data(self.id);
        let mut payload = Wiped::new(payload.to_vec());
        self.cipher
            .decrypt_inout_detached(&nonce, &data, payload.as_mut_slice().into(), &tag)
            .ok()?;
        Some(payload)
    }
}

/// The key id of a sealed envelope; `None` when it is none, or too short for one.
pub(crate) fn key_id(envelope: &[u8]) -> Option<KeyId> {
    let rest = envelope.strip_prefix(&HEADER)?;
    rest.first_chunk().copied().map(KeyId::from_bytes)
}

/// Whether the envelope says that it is sealed.
pub(crate) fn is_sealed(envelope: &[u8]) -> bool {
    envelope.starts_with(&HEADER)
}

/// Nonces that nobody has used. They are no secret; the system is asked for many at once, because
/// asking takes a tenth of the time that sealing does.
struct Nonces {
    bytes: [u8; 64 * NONCE],
    used: usize,
}

impl Nonces {
    const NONE: Self = Self {
        bytes: [0; 64 * NONCE],
        used: 64 * NONCE,
    };

    fn next(&mut self) -> Nonce {
        let mut nonce = Nonce::default();
        if self.used == self.bytes.len() {
            if getrandom::fill(&mut self.bytes).is_err() {
                // A system without random numbers, after the ring's keys were made from them. This
                // cipher bears a nonce that repeats: it then tells only whether two values are
                // equal.
                let random = std::hash::RandomState::new();
                let number = std::hash::BuildHasher::hash_one(&random, 0);
                nonce[..8].copy_from_slice(&number.to_be_bytes());
                return nonce;
            }
            self.used = 0;
        }
        nonce.copy_from_slice(&self.bytes[self.used..][..NONCE]);
        self.used += NONCE;
        nonce
    }
}

fn random_nonce() -> Nonce {
    thread_local! {
        static NONCES: RefCell<Nonces> = const { RefCell::new(Nonces::NONE) };
    }
    NONCES.with_borrow_mut(Nonces::next)
}

#[cfg(test)]
#[path = "aead_tests.rs"]
mod tests;
