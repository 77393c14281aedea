//! The messages as bytes. The module `backplane` documents the format.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Invalidation;
use crate::store::CommitId;

const MAGIC: &[u8] = b"ttcb";
const VERSION: u8 = 1;
const HEADER: usize = 4 + 1 + 1 + 16 + 8;
const INVALIDATION: usize = 32 + 8 + 8 + 8;
/// Stands where there is none; the others are random.
const NO_COMMIT: CommitId = CommitId([0; 8]);
/// Invalidations in one message.
pub(super) const MAX_BATCH: usize = 1024;

/// The size of the longest message, in bytes: some 56 KiB.
pub const MAX_MESSAGE: usize = HEADER + 2 + MAX_BATCH * INVALIDATION;

const INVALIDATED: u8 = 1;
const EVERYTHING_CHANGED: u8 = 2;
const HEARTBEAT: u8 = 3;
const GOODBYE: u8 = 4;

/// Tells instances apart: random, of one start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InstanceId(pub(super) [u8; 16]);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) sender: InstanceId,
    pub(super) sequence: u64,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Invalidated(Vec<Invalidation>),
    EverythingChanged(u64),
    Heartbeat(Heartbeat),
    Goodbye,
    /// From a newer release; whatever it said is lost.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heartbeat {
    pub(super) number: u64,
    /// Until the next.
    pub(super) interval: Duration,
}

/// These bytes are no message of ours that we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign;

impl Message {
    /// The message as bytes. A batch has 1 to [`MAX_BATCH`] invalidations.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER + self.body.len());
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.body.kind());
        out.put_slice(&self.sender.0);
        out.put_u64(self.sequence);
        match &self.body {
            Body::Invalidated(batch) => {
                out.put_u16(u16::try_from(batch.len()).unwrap_or(u16::MAX));
                for invalidation in batch {
                    out.put_slice(&invalidation.partition);
                    out.put_u64(invalidation.generation);
                    out.put_u64(invalidation.version);
                    let commit = invalidation.commit.unwrap_or(NO_COMMIT);
                    out.put_slice(&commit.0);
                }
            }
            Body::EverythingChanged(generation) => out.put_u64(*generation),
            Body::Heartbeat(heartbeat) => {
                out.put_u64(heartbeat.number);
                out.put_u32(u32::try_from(heartbeat.interval.as_millis()).unwrap_or(u32::MAX));
            }
            Body::Goodbye | Body::Unknown => {}
        }
        out.freeze()
    }

    /// The message in these bytes, whatever they are.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, Foreign> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Foreign);
        }
        let magic = take(&mut bytes, MAGIC.len())?;
        let version = bytes.try_get_u8().map_err(|_| Foreign)?;
        if magic != MAGIC || version != VERSION {
            return Err(Foreign);
        }
        let kind = bytes.try_get_u8().map_err(|_| Foreign)?;
        let sender = InstanceId(array(&mut bytes)?);
        let sequence = number(&mut bytes)?;
        let body = Body::decode(kind, &mut bytes)?;
        // Only kinds that are known have a known length.
        if !bytes.is_empty() && body != Body::Unknown {
            return Err(Foreign);
        }
        Ok(Self {
            sender,
            sequence,
            body,
        })
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Invalidated(_) => INVALIDATED,
            Self::EverythingChanged(_) => EVERYTHING_CHANGED,
            Self::Heartbeat(_) => HEARTBEAT,
            Self::Goodbye => GOODBYE,
            Self::Unknown => u8::MAX,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Invalidated(batch) => 2 + batch.len() * INVALIDATION,
            Self::EverythingChanged(_) => 8,
            Self::Heartbeat(_) => 8 + 4,
            Self::Goodbye | Self::Unknown => 0,
        }
    }

    /// Whether messages of this kind have sequence numbers of their own.
    pub(super) fn is_numbered(&self) -> bool {
        !matches!(self, Self::Heartbeat(_) | Self::Goodbye)
    }

    fn decode(kind: u8, bytes: &mut &[u8]) -> Result<Self, Foreign> {
        Ok(match kind {
            INVALIDATED => {
                let count = usize::from(bytes.try_get_u16().map_err(|_| Foreign)?);
                if count == 0 || bytes.len() != count * INVALIDATION {
                    return Err(Foreign);
                }
                let batch = (0..count).map(|_| invalidation(bytes));
                Self::Invalidated(batch.collect::<Result<_, _>>()?)
            }
            EVERYTHING_CHANGED => Self::EverythingChanged(number(bytes)?),
            HEARTBEAT => Self::Heartbeat(Heartbeat {
                number: number(bytes)?,
                interval: Duration::from_millis(bytes.try_get_u32().map_err(|_| Foreign)?.into()),
            }),
            GOODBYE => Self::Goodbye,
            _ => Self::Unknown,
        })
    }
}

fn invalidation(bytes: &mut &[u8]) -> Result<Invalidation, Foreign> {
    Ok(Invalidation {
        partition: array(bytes)?,
        generation: number(bytes)?,
        version: number(bytes)?,
        commit: Some(CommitId(array(bytes)?)).filter(|commit| *commit != NO_COMMIT),
    })
}

fn number(bytes: &mut &[u8]) -> Result<u64, Foreign> {
    bytes.try_get_u64().map_err(|_| Foreign)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Foreign> {
    take(bytes, N)?.try_into().map_err(|_| Foreign)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Foreign> {
    let (head, rest) = bytes.split_at_checked(count).ok_or(Foreign)?;
    *bytes = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invalidations() -> impl Strategy<Value = Vec<Invalidation>> {
        let parts = any::<([u8; 32], u64, u64, Option<[u8; 8]>)>();
        let one = parts.prop_map(|(partition, generation, version, commit)| Invalidation {
            partition,
            generation,
            version,
            commit: commit.map(CommitId).filter(|commit| *commit != NO_COMMIT),
        });
        prop::collection::vec(one, 1..40)
    }

    fn body() -> impl Strategy<Value = Body> {
        let heartbeat = any::<(u64, u32)>().prop_map(|(number, millis)| {
            Body::Heartbeat(Heartbeat {
                number,
                interval: Duration::from_millis(millis.into()),
            })
        });
        prop_oneof![
            invalidations().prop_map(Body::Invalidated),
            any::<u64>().prop_map(Body::EverythingChanged),
            heartbeat,
            Just(Body::Goodbye),
            Just(Body::Unknown),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        (any::<([u8; 16], u64)>(), body()).prop_map(|((sender, sequence), body)| Message {
            sender: InstanceId(sender),
            sequence,
            body,
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(message in message()) {
            let bytes = message.encode();
            prop_assert!(bytes.len() <= MAX_MESSAGE);
            prop_assert_eq!(bytes.len(), HEADER + message.body.len());
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
        }

        #[test]
        fn any_bytes_are_a_message_or_foreign(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(&bytes);
            let mut ours = b"ttcb\x01".to_vec();
            ours.extend(&bytes);
            if let Some(kind) = ours.get_mut(5) {
                *kind %= 6;
            }
            let _ = Message::decode(&ours);
        }

        #[test]
        fn a_part_of_a_message_is_foreign(message in message(), cut in any::<prop::sample::Index>()) {
            let bytes = message.encode();
            let part = &bytes[..cut.index(bytes.len())];
            prop_assert_eq!(Message::decode(part), Err(Foreign));
        }

        #[test]
        fn more_than_a_message_is_foreign(message in message(), more in prop::collection::vec(any::<u8>(), 1..100)) {
            let known = message.body != Body::Unknown;
            let mut bytes = message.encode().to_vec();
            bytes.extend(more);
            prop_assert_eq!(Message::decode(&bytes).is_err(), known);
        }

        #[test]
        fn another_version_is_foreign(message in message(), version in any::<u8>()) {
            prop_assume!(version != VERSION);
            let mut bytes = message.encode().to_vec();
            bytes[4] = version;
            prop_assert_eq!(Message::decode(&bytes), Err(Foreign));
        }
    }

    #[test]
    fn the_format_is_as_documented() {
        let message = Message {
            sender: InstanceId([7; 16]),
            sequence: 258,
            body: Body::Invalidated(vec![Invalidation {
                partition: [9; 32],
                generation: 1,
                version: 2,
                commit: Some(CommitId([3; 8])),
            }]),
        };
        let expected = [
            b"ttcb\x01\x01".as_slice(),
            &[7; 16],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 1],
            &[9; 32],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[3; 8],
        ];
        assert_eq!(message.encode(), expected.concat());
        let heartbeat = Message {
            sequence: 0,
            body: Body::Heartbeat(Heartbeat {
                number: 3,
                interval: Duration::from_secs(1),
            }),
            ..message
        };
        let expected = [
            b"ttcb\x01\x03".as_slice(),
            &[7; 16],
            &[0; 8],
            &[0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 0, 3, 232],
        ];
        assert_eq!(heartbeat.encode(), expected.concat());
    }

    #[test]
    fn the_largest_batch_is_a_message_and_a_longer_one_is_not() {
        let batch = |count| Message {
            sender: InstanceId([7; 16]),
            sequence: 1,
            body: Body::Invalidated(vec![
                Invalidation {
                    partition: [9; 32],
                    generation: 1,
                    version: 2,
                    commit: None,
                };
                count
            ]),
        };
        let largest = batch(MAX_BATCH);
        assert_eq!(largest.encode().len(), MAX_MESSAGE);
        assert_eq!(Message::decode(&largest.encode()), Ok(largest));
        assert_eq!(
            Message::decode(&batch(MAX_BATCH + 1).encode()),
            Err(Foreign)
        );
    }
}
