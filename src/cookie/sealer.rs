//! Partitions to sealed text, and back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::compress::{Compressor, max_packed, unpack};
use super::payload;
use crate::codec::Unopenable;
use crate::seal::{self, AFTER, BEFORE, KeyId, KeyRing, Place};
use crate::store::{EntryId, PartitionId, Snapshot};
use crate::time::Timestamp;

/// Names a session. It stands in the cookies in the clear, and is bound to what is sealed.
pub(super) type SessionId = [u8; 16];

const VERSION: u8 = 1;
/// What stands before the sealed envelope: the format version and the session.
const HEAD: usize = 1 + size_of::<SessionId>();

pub(super) struct Sealer {
    ring: KeyRing,
    /// Of the cookies, with their prefix.
    name: Box<str>,
    compressor: Compressor,
}

/// A partition that was in cookies.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: SessionId,
    pub(super) snapshot: Snapshot,
    pub(super) issued_at: Timestamp,
    /// What it was sealed with.
    pub(super) key: KeyId,
}

impl Sealer {
    pub(super) fn new(ring: KeyRing, name: Box<str>) -> Self {
        Self {
            ring,
            name,
            compressor: Compressor::default(),
        }
    }

    pub(super) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Where a session's partition is sealed, and nowhere else opens.
    fn partition(&self, session: &SessionId) -> PartitionId {
        let digest = Sha256::new()
            .chain_update(b"tower-token-cache cookie v1\0")
            .chain_update((self.name.len() as u64).to_be_bytes())
            .chain_update(self.name.as_bytes())
            .chain_update([VERSION])
            .chain_update(session)
            .finalize();
        PartitionId::from_digest("cookie", digest.into())
    }

    fn place(partition: &PartitionId) -> Place<'_> {
        Place {
            partition,
            // It is inside: nobody knows it before the cookies are open.
            generation: 0,
            entry: EntryId::from([0; 16]),
        }
    }

    /// The text for the cookies; `None` when it is too long for the cipher.
    pub(super) fn seal(
        &self,
        session: &SessionId,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Option<String> {
        let plain = payload::write(snapshot, now);
        let mut envelope = self.compressor.pack(&plain, BEFORE, AFTER);
        let partition = self.partition(session);
        let sealer = self.ring.sealer(&partition);
        sealer.seal(Self::place(&partition), &mut envelope)?;
        let mut sealed = Vec::with_capacity(HEAD + envelope.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(session);
        sealed.extend_from_slice(&envelope);
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The length of the text for the cookies. Exact where it is more than `enough`.
    pub(super) fn length(&self, snapshot: &Snapshot, enough: usize) -> usize {
        let text = |packed: usize| (HEAD + BEFORE + packed + AFTER).div_ceil(3) * 4;
        let most = text(max_packed(payload::max_written(snapshot)));
        if most <= enough {
            return most;
        }
        let plain = payload::write(snapshot, Timestamp::MAX);
        text(self.compressor.pack(&plain, 0, 0).len())
    }

    pub(super) fn open(&self, text: &[u8]) -> Result<Opened, Unopenable> {
        let sealed = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| Unopenable::Foreign)?;
        let (head, envelope) = sealed.split_at_checked(HEAD).ok_or(Unopenable::Foreign)?;
        if head[0] != VERSION {
            return Err(Unopenable::UnknownVersion);
        }
        let session: SessionId = head[1..].try_into().map_err(|_| Unopenable::Foreign)?;
        let key = seal::key_id(envelope).ok_or(Unopenable::Foreign)?;
        let partition = self.partition(&session);
        let mut opener = self.ring.opener(&partition);
        let packed = opener.open(Self::place(&partition), envelope);
        if let Err(Unopenable::UnknownKey) = packed {
            // Perhaps this instance is behind, and the next request need not find it so.
            self.ring.learn_soon(key);
        }
        let packed = packed?;
        let plain = unpack(&packed).ok_or(Unopenable::Damaged)?;
        let (snapshot, issued_at) = payload::read(&plain).ok_or(Unopenable::Damaged)?;
        Ok(Opened {
            session,
            snapshot,
            issued_at,
            key,
        })
    }
}
