//! The file's format: a magic number, then records, each of a length, a content and a checksum.
//!
//! A record that is cut off or changed ends the file: the records after it were not acknowledged.

use sha2::{Digest, Sha256};

use crate::store::CommitId;
use crate::time::Timestamp;

pub(crate) const MAGIC: &[u8; 8] = b"TTCSIGN1";
const CHECKSUM: usize = 8;

const NAMESPACE: u8 = 0;
const OWED: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const OWED_USER: u8 = 3;

/// A sign-out that L2 has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// It signs out a user, not one partition.
    pub(crate) user: bool,
    /// The digest of the partition, or of the user's epoch, without the namespace's number.
    pub(crate) digest: [u8; 32],
    /// The namespace's number at the time, if it was known.
    pub(crate) under: Option<u64>,
    pub(crate) sign_out: CommitId,
    pub(crate) since: Timestamp,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The namespace whose file it is.
    Namespace(String),
    Owed(u64, Record),
    /// L2 has acknowledged the sign-out of this number.
    Acknowledged(u64),
}

impl Line {
    pub(crate) fn write(&self, file: &mut Vec<u8>) {
        let start = file.len();
        file.push(0);
        match self {
            Self::Namespace(namespace) => {
                file.push(NAMESPACE);
                file.extend(namespace.bytes());
            }
            Self::Owed(number, record) => {
                file.push(if record.user { OWED_USER } else { OWED });
                file.extend(number.to_le_bytes());
                file.extend(record.digest);
                // The number plus one; 0 is unknown.
                let under = record.under.map_or(0, |under| under.saturating_add(1));
                file.extend(under.to_le_bytes());
                file.extend(record.sign_out.0);
                file.extend(record.since.as_millis().to_le_bytes());
            }
            Self::Acknowledged(number) => {
                file.push(ACKNOWLEDGED);
                file.extend(number.to_le_bytes());
            }
        }
        let length = file.len() - start - 1;
        file[start] = u8::try_from(length).unwrap_or(u8::MAX);
        let sum = Sha256::digest(&file[start..]);
        file.extend(&sum[..CHECKSUM]);
    }

    /// The first record, and the rest of the file; `None` if there is no valid record.
    pub(crate) fn read(file: &[u8]) -> Option<(Self, &[u8])> {
        let length = 1 + usize::from(*file.first()?);
        let (line, rest) = file.split_at_checked(length)?;
        let (sum, rest) = rest.split_at_checked(CHECKSUM)?;
        if Sha256::digest(line)[..CHECKSUM] != *sum {
            return None;
        }
        let (&kind, content) = line[1..].split_first()?;
        let line = match kind {
            NAMESPACE => Self::Namespace(String::from_utf8(content.into()).ok()?),
            OWED | OWED_USER => {
                let (number, content) = number(content)?;
                let (digest, content) = content.split_first_chunk()?;
                let (under, content) = self::number(content)?;
                let (sign_out, content) = content.split_first_chunk()?;
                let (since, _) = self::number(content)?;
                let record = Record {
                    user: kind == OWED_USER,
                    digest: *digest,
                    under: under.checked_sub(1),
                    sign_out: CommitId(*sign_out),
                    since: Timestamp::from_millis(since),
                };
                Self::Owed(number, record)
            }
            ACKNOWLEDGED => Self::Acknowledged(number(content)?.0),
            _ => return None,
        };
        Some((line, rest))
    }
}

fn number(content: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = content.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn record(number: u8) -> Record {
        Record {
            user: number == 2,
            digest: [number; 32],
            under: (number > 1).then_some(u64::from(number)),
            sign_out: CommitId([number; 8]),
            since: Timestamp::from_millis(7),
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let lines = [
            Line::Namespace("ttc".into()),
            Line::Owed(1, record(1)),
            Line::Owed(2, record(2)),
            Line::Acknowledged(1),
        ];
        let mut file = Vec::new();
        for line in &lines {
            line.write(&mut file);
        }
        let mut rest = file.as_slice();
        for line in &lines {
            let (read, next) = Line::read(rest).expect("sound");
            assert_eq!(read, *line);
            rest = next;
        }
        assert!(rest.is_empty());
        for at in 0..file.len() {
            assert!(Line::read(&file[..at]).is_none() || at >= 13, "cut at {at}");
            let mut changed = file.clone();
            changed[at] ^= 1;
            let mut rest = changed.as_slice();
            let mut sound = 0;
            while let Some((_, next)) = Line::read(rest) {
                (rest, sound) = (next, sound + 1);
            }
            assert!(sound < lines.len(), "changed at {at}");
        }
    }
}
