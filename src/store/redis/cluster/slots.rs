//! Which node of a cluster keeps what.

use std::sync::Arc;

use bb8_redis::redis::{Arg, Cmd, Value};

/// A node's host and port.
pub(in crate::store::redis) type Place = (Arc<str>, u16);

const COUNT: u16 = 16384;

/// The master of each slot, as far as it is known.
#[derive(Clone, Default)]
pub(super) struct Slots {
    masters: Vec<Place>,
    /// One more than the master's index; 0 is unknown.
    of: Box<[u16]>,
}

impl Slots {
    /// From an answer to `CLUSTER SLOTS` of this node; `None` for one that names no slot.
    pub(super) fn parse(answer: &Value, from: &Place) -> Option<Self> {
        let Value::Array(ranges) = answer else {
            return None;
        };
        let mut slots = Self::default();
        for range in ranges {
            let Value::Array(parts) = range else {
                return None;
            };
            let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(master),
                ..,
            ] = &parts[..]
            else {
                return None;
            };
            let [host, Value::Int(port), ..] = &master[..] else {
                return None;
            };
            let host = match text(host) {
                // A node that does not know its own name is where we have found it.
                Some("" | "?") | None => from.0.clone(),
                Some(host) => host.into(),
            };
            let place = (host, u16::try_from(*port).ok()?);
            for slot in *first..=*last {
                slots.set(u16::try_from(slot).ok()?, &place);
            }
        }
        (!slots.masters.is_empty()).then_some(slots)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.masters.is_empty()
    }

    /// The masters.
    pub(super) fn masters(&self) -> &[Place] {
        &self.masters
    }

    /// The master of a slot; of one that nobody keeps some other, who says so.
    pub(super) fn master(&self, slot: u16) -> Option<&Place> {
        self.masters.get(self.number(slot))
    }

    /// Which of the masters it is.
    fn number(&self, slot: u16) -> usize {
        let known = self.of.get(usize::from(slot % COUNT)).copied();
        usize::from(known.unwrap_or_default().saturating_sub(1))
    }

    /// A slot has moved.
    pub(super) fn set(&mut self, slot: u16, place: &Place) {
        if self.of.is_empty() {
            self.of = vec![0; usize::from(COUNT)].into();
        }
        let known = self.masters.iter().position(|master| master == place);
        let index = known.unwrap_or_else(|| {
            self.masters.push(place.clone());
            self.masters.len() - 1
        });
        self.of[usize::from(slot % COUNT)] = u16::try_from(index + 1).unwrap_or(0);
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The slot of the command's key.
pub(super) fn slot_of(command: &Cmd) -> Option<u16> {
    let mut arguments = command.args_iter();
    let key = match arguments.next()? {
        // Before it are the script and the number of keys.
        Arg::Simple(b"EVALSHA" | b"EVAL") => arguments.nth(2)?,
        _ => arguments.next()?,
    };
    let Arg::Simple(key) = key else { return None };
    Some(slot(tag(key)))
}

/// The slot of a hash tag.
pub(super) fn slot(tag: &[u8]) -> u16 {
    crc16(tag) % COUNT
}

/// What of a key decides its slot: what is between the first braces, if anything.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(0) | None => key,
        Some(close) => &rest[..close],
    }
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use bb8_redis::redis::cmd;

    use super::*;

    #[test]
    fn keys_have_the_slots_of_the_specification() {
        let slot = |key: &str| slot_of(cmd("GET").arg(key)).unwrap();
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot("{foo}.bar"), slot("foo"));
        assert_eq!(slot("a{foo}{bar}"), slot("foo"));
        assert_ne!(slot("{}foo"), slot("foo"));
        let mut script = cmd("EVALSHA");
        script
            .arg("hash")
            .arg(1)
            .arg("ns:{foo}:l:x")
            .arg("argument");
        assert_eq!(slot_of(&script), Some(12182));
        assert_eq!(slot_of(&cmd("TIME")), None);
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let node = vec![Value::BulkString(host.into()), Value::Int(port)];
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            Value::Array(node.clone()),
            Value::Array(node),
        ])
    }

    #[test]
    fn slots_are_read_and_move() {
        let from = ("here".into(), 1);
        let answer = Value::Array(vec![range(0, 99, "a", 7000), range(100, 16383, "", 7001)]);
        let mut slots = Slots::parse(&answer, &from).unwrap();
        let place = |host: &str, port| (Arc::from(host), port);
        assert_eq!(slots.master(99), Some(&place("a", 7000)));
        assert_eq!(slots.master(100), Some(&place("here", 7001)));
        slots.set(100, &place("b", 7002));
        assert_eq!(slots.master(100), Some(&place("b", 7002)));
        assert_eq!(slots.master(101), Some(&place("here", 7001)));
        assert_eq!(slots.masters().len(), 3);
    }

    #[test]
    fn other_answers_are_none() {
        let from = ("here".into(), 1);
        for answer in [
            Value::Nil,
            Value::Array(Vec::new()),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 1, "a", 70000)]),
            Value::Array(vec![range(-1, 1, "a", 7000)]),
        ] {
            assert!(Slots::parse(&answer, &from).is_none(), "{answer:?}");
        }
        assert_eq!(Slots::default().master(7), None);
    }
}
