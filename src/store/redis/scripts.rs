//! The scripts, and the commands that run them.

use std::io::Write;
use std::sync::LazyLock;
use std::time::Duration;

use bb8_redis::redis::{Arg, Cmd, RedisWrite, Script, ToRedisArgs, cmd};

use super::record::expiry_to_millis;
use crate::store::{Commit, CommitId, Lease, Origin, PartitionId, Portable, Raise, TOMBSTONE};
use crate::time::millis;

pub(super) static COMMIT: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("commit.lua"),
        "return commit(KEYS[1], ARGV)\n"
    ))
});
pub(super) static CLEAR: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("clear.lua"),
        "return clear(KEYS[1], ARGV[1], ARGV[2], ARGV[3])\n"
    ))
});
pub(super) static RAISE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("raise.lua")
    ))
});
pub(super) static RELOCATE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("commit.lua"),
        include_str!("clear.lua"),
        include_str!("origin.lua"),
        include_str!("relocate.lua")
    ))
});
pub(super) static CHECK: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("commit.lua"),
        include_str!("check.lua")
    ))
});
pub(super) static LEAVE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("clear.lua"),
        include_str!("origin.lua"),
        include_str!("leave.lua")
    ))
});
pub(super) static ADOPT: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("adopt.lua")
    ))
});
pub(super) static REMOVE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("remove.lua")
    ))
});
pub(super) static TOUCH: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("head.lua"),
        include_str!("touch.lua")
    ))
});
pub(super) static ACQUIRE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("acquire.lua")
    ))
});
pub(super) static RENEW: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("read.lua"), include_str!("renew.lua"))));
pub(super) static RELEASE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(
        include_str!("read.lua"),
        include_str!("release.lua")
    ))
});

/// A script and the hash by which the server knows it once it is loaded.
pub(super) struct Lua {
    code: &'static str,
    hash: String,
}

impl Lua {
    fn new(code: &'static str) -> Self {
        let hash = Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    fn on(&self, keys: &[String]) -> Cmd {
        self.with_room(keys, 0, 0)
    }

    /// With room for so many arguments more, of so many bytes.
    fn with_room(&self, keys: &[String], arguments: usize, bytes: usize) -> Cmd {
        let own = 64 + keys.iter().map(String::len).sum::<usize>();
        let mut command = Cmd::with_capacity(3 + keys.len() + arguments, own + bytes);
        command.arg("EVALSHA").arg(&self.hash).arg(keys.len());
        command.arg(keys);
        command
    }

    /// The same command with the script itself, for a server that has lost it, or never had it.
    pub(super) fn in_full(&self, command: &Cmd) -> Cmd {
        let mut full = cmd("EVAL");
        full.arg(self.code);
        for argument in command.args_iter().skip(2) {
            if let Arg::Simple(bytes) = argument {
                full.arg(bytes);
            }
        }
        full
    }
}

/// The hash of a partition. The braces keep all keys of a partition in one cluster slot.
pub(super) fn hash_key(id: &PartitionId) -> String {
    format!("{}:{{{}}}", id.namespace(), id.encoded())
}

pub(super) fn commit(commit: &Commit) -> Cmd {
    // The values are not to be copied once more because the command grows.
    let arguments = 11 + 3 * commit.changes.len();
    let bytes = 192 + 64 * commit.changes.len() + commit.bytes();
    let mut command = COMMIT.with_room(&[hash_key(&commit.partition)], arguments, bytes);
    commit_arguments(&mut command, commit);
    command
}

pub(super) fn relocate(from: &Origin, commit: &Commit) -> Cmd {
    let keys = [&from.partition, &commit.partition].map(hash_key);
    let mut command = RELOCATE.on(&keys);
    command.arg(from.generation).arg(from.version);
    commit_arguments(&mut command, commit);
    command
}

/// What would become of the commit of a move.
pub(super) fn check(commit: &Commit) -> Cmd {
    let mut command = CHECK.on(&[hash_key(&commit.partition)]);
    commit_arguments(&mut command, commit);
    command
}

/// Signs a partition out that is as it was read: the first half of a move to another server.
pub(super) fn leave(from: &Origin, id: CommitId) -> Cmd {
    let mut command = LEAVE.on(&[hash_key(&from.partition)]);
    command
        .arg(from.generation)
        .arg(from.version)
        .arg(&id.0)
        .arg(millis(TOMBSTONE));
    command
}

/// Removes a partition of which this is the last id.
pub(super) fn remove(id: &PartitionId, last: CommitId) -> Cmd {
    let mut command = REMOVE.on(&[hash_key(id)]);
    command.arg(&last.0);
    command
}

/// Puts a partition where there is none.
pub(super) fn adopt(id: &PartitionId, portable: &Portable) -> Cmd {
    let values = portable.entries.iter().map(|entry| entry.value.len());
    let bytes = 256 + 64 * portable.entries.len() + values.sum::<usize>();
    let mut command = ADOPT.with_room(&[hash_key(id)], 9 + 3 * portable.entries.len(), bytes);
    let length = |length: Option<Duration>| length.map_or(-1, |length| exact(length) as i64);
    command
        .arg(portable.generation)
        .arg(portable.version)
        .arg(exact(portable.age))
        .arg(length(portable.cleared_for))
        .arg(length(portable.remaining.hard))
        .arg(length(portable.remaining.idle))
        .arg(portable.sliding.map_or(0, exact))
        .arg(
            portable
                .recent
                .iter()
                .flat_map(|id| id.0)
                .collect::<Vec<u8>>(),
        )
        .arg(millis(TOMBSTONE));
    for entry in &portable.entries {
        let expiry = entry.expires_at.map_or(-1, expiry_to_millis);
        let laid = Laid {
            version: entry.version,
            expiry: expiry.max(0) as u64,
            value: &entry.value,
        };
        command.arg(entry.entry.as_bytes()).arg(expiry).arg(laid);
    }
    command
}

fn commit_arguments(command: &mut Cmd, commit: &Commit) {
    let lifetime = &commit.lifetime;
    let limit = |limit: Option<Duration>| limit.map_or(0, exact);
    command
        .arg(&commit.id.0)
        .arg(commit.generation)
        .arg(limit(lifetime.since_write))
        .arg(limit(lifetime.sliding))
        .arg(limit(lifetime.since_creation))
        .arg(millis(TOMBSTONE));
    match &commit.expected {
        Some(expected) => command.arg(expected.entry.as_bytes()).arg(expected.version),
        None => command.arg("").arg(0),
    };
    let life = commit.life.as_ref().map_or(&[][..], |life| &life.0);
    command.arg(life);
    match commit.repeats {
        Some(version) => command.arg(version),
        None => command.arg(""),
    };
    // A script hashes each byte of a string that it makes, which takes longer than all else that it does.
    let next = commit.base.saturating_add(1);
    command.arg(next);
    for change in &commit.changes {
        command.arg(change.entry.as_bytes());
        match &change.put {
            Some(put) => {
                let expiry = put.expires_at.map_or(-1, expiry_to_millis);
                let laid = Laid {
                    version: next,
                    expiry: expiry.max(0) as u64,
                    value: &put.value,
                };
                command.arg(expiry).arg(laid);
            }
            None => {
                command.arg(-2).arg("");
            }
        }
    }
}

/// An entry as it stands in the hash: see head.lua.
struct Laid<'a> {
    version: u64,
    expiry: u64,
    value: &'a [u8],
}

impl ToRedisArgs for Laid<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let mut writer = out.writer_for_next_arg();
        for part in [
            &self.version.to_be_bytes()[..],
            &self.expiry.to_be_bytes(),
            self.value,
        ] {
            // Into memory, which does not fail.
            let _ = writer.write_all(part);
        }
    }
}

pub(super) fn touch(id: &PartitionId) -> Cmd {
    let mut command = TOUCH.on(&[hash_key(id)]);
    command.arg(millis(TOMBSTONE));
    command
}

pub(super) fn clear(partition: &PartitionId, expected: Option<u64>, id: CommitId) -> Cmd {
    let mut command = CLEAR.on(&[hash_key(partition)]);
    let expected = expected.map_or_else(String::new, |generation| generation.to_string());
    command.arg(expected).arg(millis(TOMBSTONE)).arg(&id.0);
    command
}

pub(super) fn raise(partition: &PartitionId, raise: Raise, keep: Option<Duration>) -> Cmd {
    let mut command = RAISE.on(&[hash_key(partition)]);
    let how = match raise {
        Raise::Beyond(_) => "beyond",
        Raise::To(_) => "to",
        Raise::Begin(_) => "begin",
    };
    let keep = keep.map_or(-1, |keep| exact(keep) as i64);
    command.arg(how).arg(raise.number()).arg(keep);
    command
}

pub(super) fn acquire(lease: &Lease, ttl: Duration) -> Cmd {
    let mut command = of_lease(&ACQUIRE, lease);
    command.arg(bounded(ttl).max(1));
    command
}

pub(super) fn renew(lease: &Lease, ttl: Duration) -> Cmd {
    let mut command = of_lease(&RENEW, lease);
    command.arg(bounded(ttl).max(1));
    command
}

pub(super) fn release(lease: &Lease) -> Cmd {
    of_lease(&RELEASE, lease)
}

fn of_lease(script: &Lua, lease: &Lease) -> Cmd {
    // Not below the prefix of partitions: a lease is no change that a feed tells.
    let (id, entry) = (&lease.partition, lease.entry.encoded());
    let key = format!("{}:l:{{{}}}:{entry}", id.namespace(), id.encoded());
    let mut command = script.on(&[key]);
    command.arg(&lease.owner);
    command
}

/// What the server takes for a duration, in ms: more would overflow its clock.
fn bounded(duration: Duration) -> u64 {
    millis(duration).min(i64::MAX as u64 / 4)
}

/// A duration whose end a script can keep exactly, in ms: no longer than some 140,000 years.
fn exact(duration: Duration) -> u64 {
    millis(duration).min(1 << 52)
}
