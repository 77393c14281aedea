//! What Redis answers, as the store's types.

use std::time::Duration;

use bb8_redis::redis::Value;
use bytes::Bytes;

use crate::store::{
    Cleared, CommitId, EntryId, LeaseState, Loaded, Outcome, Portable, Remaining, Revision,
    StoredEntry,
};
use crate::time::Timestamp;
use crate::wipe::Wiped;

/// Version and expiry before each value, 8 bytes each.
const ENTRY_HEADER: usize = 16;
/// `e` and the entry's id.
const ENTRY_FIELD: usize = 17;

/// The field of a record that says everything but its entries.
pub(super) const HEAD: &str = "h";
/// The form of a head that is read and written; its first byte.
const HEAD_FORM: u8 = 1;
/// Its numbers, of 8 bytes each.
const HEAD_NUMBERS: usize = 9;

/// A script keeps numbers as doubles: beyond this they would not be exact.
const EXACT: u64 = 1 << 53;

/// An expiry as the scripts take it: 0 and negative numbers have other meanings there.
pub(super) fn expiry_to_millis(expiry: Timestamp) -> i64 {
    expiry.as_millis().clamp(1, EXACT - 1) as i64
}

/// The answer of `TIME`.
pub(super) fn time(answer: Value) -> Option<Timestamp> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let mut parts = parts.iter().map(|part| match part {
        Value::BulkString(text) => number(text),
        _ => None,
    });
    let (seconds, micros) = (parts.next()??, parts.next()??);
    Some(Timestamp::from_millis(seconds * 1000 + micros / 1000))
}

/// A head as `head.lua` packs it.
struct Head<'a> {
    generation: u64,
    version: u64,
    created_at: Timestamp,
    cleared_at: Option<Timestamp>,
    hard_end: Option<Timestamp>,
    end: Option<Timestamp>,
    sliding: u64,
    /// Ids of the first commit and of recent ones.
    commits: &'a [u8],
}

impl<'a> Head<'a> {
    /// `None` when it is damaged, or of another form.
    fn read(packed: &'a [u8]) -> Option<Self> {
        let (form, packed) = packed.split_first()?;
        if *form != HEAD_FORM {
            return None;
        }
        let (numbers, commits) = packed.split_at_checked(8 * HEAD_NUMBERS)?;
        let mut numbers = numbers.chunks_exact(8).map(|bytes| {
            let bytes = bytes.iter();
            bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
        });
        let mut exact = || numbers.next().filter(|number| *number < EXACT);
        let (generation, version, created) = (exact()?, exact()?, exact()?);
        let mut time = || match numbers.next()? {
            u64::MAX => Some(None),
            millis if millis < EXACT => Some(Some(Timestamp::from_millis(millis))),
            _ => None,
        };
        let (cleared_at, hard_end, end) = (time()?, time()?, time()?);
        Some(Self {
            generation,
            version,
            created_at: Timestamp::from_millis(created),
            cleared_at,
            hard_end,
            end,
            sliding: numbers.next()?,
            commits,
        })
    }
}

/// The answer of `HGET` for the head.
pub(super) fn revision(answer: &Value) -> Option<Revision> {
    match answer {
        Value::BulkString(packed) => Some(Head::read(packed).map_or_else(
            Revision::default,
            |head| Revision {
                generation: head.generation,
                version: head.version,
                commit: last(head.commits),
            },
        )),
        Value::Nil => Some(Revision::default()),
        _ => None,
    }
}

/// The answer of `HGETALL`, in either version of the protocol; `None` when it is none.
pub(super) fn pairs(answer: Value) -> Option<Vec<(Value, Value)>> {
    match answer {
        Value::Map(pairs) => Some(pairs),
        Value::Array(items) => {
            let mut items = items.into_iter();
            Some(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
        }
        _ => None,
    }
}

/// A partition's hash, as it is read by clients.
pub(super) fn load(answer: Value, now: Timestamp) -> Option<Loaded> {
    let Whole { portable, damaged } = whole(answer, now)?;
    Some(Loaded {
        generation: portable.generation,
        version: portable.version,
        commit: portable.recent.last().copied(),
        life: portable
            .recent
            .first()
            .copied()
            .filter(|_| !portable.has_ended()),
        cleared_for: portable.cleared_for,
        remaining: portable.remaining,
        entries: portable.entries,
        damaged,
    })
}

/// A partition's hash with all that is in it; the default where there is nothing.
#[derive(Default)]
pub(super) struct Whole {
    pub(super) portable: Portable,
    pub(super) damaged: usize,
}

/// Fields that are not as this crate writes them are counted as damaged; `None` when the answer is no hash at all.
pub(super) fn whole(answer: Value, now: Timestamp) -> Option<Whole> {
    let fields = pairs(answer)?;
    if fields.is_empty() {
        return Some(Whole::default());
    }
    let mut packed = None;
    let (mut entries, mut damaged) = (Vec::new(), 0);
    for field in fields {
        let (Value::BulkString(name), Value::BulkString(value)) = field else {
            return None;
        };
        match name.as_slice() {
            [b'e', id @ ..] if name.len() == ENTRY_FIELD => match entry(id, value) {
                Some(entry) => entries.push(entry),
                None => damaged += 1,
            },
            name if name == HEAD.as_bytes() => packed = Some(value),
            _ => {}
        }
    }
    let Some(head) = packed.as_deref().and_then(Head::read) else {
        let damaged = 1;
        return Some(Whole {
            damaged,
            ..Whole::default()
        });
    };
    let ended = head.end.is_some_and(|end| end <= now);
    let alive = |entry: &StoredEntry| entry.expires_at.is_none_or(|at| at > now);
    entries.retain(|entry| !ended && alive(entry));
    let ids = head.commits.as_chunks().0;
    let portable = Portable {
        generation: head.generation,
        version: head.version,
        age: now.since(head.created_at),
        cleared_for: head.cleared_at.map(|at| now.since(at)),
        remaining: Remaining {
            idle: head.end.map(|end| end.since(now)),
            hard: head.hard_end.map(|end| end.since(now)),
        },
        sliding: (head.sliding > 0).then(|| Duration::from_millis(head.sliding)),
        recent: ids.iter().map(|id| CommitId(*id)).collect(),
        entries,
    };
    Some(Whole { portable, damaged })
}

fn entry(id: &[u8], value: Vec<u8>) -> Option<StoredEntry> {
    let header = value.first_chunk::<ENTRY_HEADER>()?;
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let (version, expiry) = (half(0), half(8));
    Some(StoredEntry {
        entry: EntryId::from(<[u8; 16]>::try_from(id).ok()?),
        version,
        expires_at: (expiry > 0).then(|| Timestamp::from_millis(expiry)),
        // Without encryption it holds tokens.
        value: Bytes::from_owner(Wiped::new(value)).slice(ENTRY_HEADER..),
    })
}

/// The answer of `commit.lua`.
pub(super) fn outcome(answer: Value) -> Option<Outcome> {
    let Value::Array(items) = answer else {
        return None;
    };
    match items.as_slice() {
        [Value::Int(0), Value::Int(generation)] => Some(Outcome::Stale {
            generation: u64::try_from(*generation).ok()?,
        }),
        [
            Value::Int(1),
            Value::Int(version),
            Value::Int(idle),
            Value::Int(hard),
            Value::BulkString(previous),
            Value::BulkString(life),
        ] => Some(Outcome::Committed {
            version: u64::try_from(*version).ok()?,
            previous: last(previous),
            life: first(life),
            remaining: remaining(*idle, *hard),
        }),
        [Value::Int(2)] => Some(Outcome::Conflict),
        [Value::Int(4)] => Some(Outcome::Lost),
        _ => None,
    }
}

/// The answer of `clear.lua`.
pub(super) fn cleared(answer: Value) -> Option<Cleared> {
    match integers(answer)?.as_slice() {
        [generation, ended] => Some(Cleared {
            generation: u64::try_from(*generation).ok()?,
            ended: *ended == 1,
        }),
        _ => None,
    }
}

/// The answer of `raise.lua`.
pub(super) fn raised(answer: &Value) -> Option<u64> {
    match answer {
        Value::Int(generation) => u64::try_from(*generation).ok(),
        _ => None,
    }
}

/// The first of these ids.
fn first(recent: &[u8]) -> Option<CommitId> {
    recent.first_chunk().map(|id| CommitId(*id))
}

/// The last of these ids.
fn last(recent: &[u8]) -> Option<CommitId> {
    recent.last_chunk().map(|id| CommitId(*id))
}

/// Whether the answer of `check.lua` is that the commit would be applied.
pub(super) fn is_ready(answer: &Value) -> bool {
    *answer == Value::Array(vec![Value::Int(3)])
}

/// The answer of `acquire.lua`.
pub(super) fn lease(answer: Value) -> Option<LeaseState> {
    let Value::Int(remaining) = answer else {
        return None;
    };
    let held = u64::try_from(remaining).map(|remaining| LeaseState::Held {
        remaining: Duration::from_millis(remaining),
    });
    Some(held.unwrap_or(LeaseState::Granted))
}

/// The answer of `touch.lua`.
pub(super) fn touched(answer: Value) -> Option<Remaining> {
    match integers(answer)?.as_slice() {
        [] => Some(Remaining::default()),
        [idle, hard] => Some(remaining(*idle, *hard)),
        _ => None,
    }
}

fn integers(answer: Value) -> Option<Vec<i64>> {
    let Value::Array(items) = answer else {
        return None;
    };
    let integer = |item| match item {
        Value::Int(integer) => Some(integer),
        _ => None,
    };
    items.into_iter().map(integer).collect()
}

/// Negative is without end.
fn remaining(idle: i64, hard: i64) -> Remaining {
    let rest = |millis: i64| u64::try_from(millis).ok().map(Duration::from_millis);
    Remaining {
        idle: rest(idle),
        hard: rest(hard),
    }
}

/// A natural number that a script can keep exactly.
fn number(text: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number < EXACT).then_some(number)
}
