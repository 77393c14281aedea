//! What a server says of itself.

use std::time::Duration;

use tokio::time::Instant;

/// The longest time that the protocol takes as such. Later ends are points in time, by the server's clock.
const LONGEST_SPAN: u64 = 30 * 24 * 3600;
/// What an item takes besides its key and value: at most this.
const ITEM_OVERHEAD: usize = 128;

/// What counts for this store.
#[derive(Debug)]
pub(super) struct Server {
    /// Why it may drop what is stored before its time.
    pub(super) evicts: Option<&'static str>,
    /// What an item takes at most, with its key.
    item_size_max: usize,
    /// Tells its starts apart: its process and the second. 0 where it does not say.
    pub(super) started: u64,
    /// Its clock, in seconds since the Unix epoch, and when it was read here.
    time: (u64, Instant),
}

impl Server {
    /// From what it answers to `stats settings` and `stats`, as name and value. What is not said may be otherwise.
    pub(super) fn read(stats: &[(String, String)]) -> Self {
        let stat = |name: &str| {
            let mut stats = stats.iter().filter(|(known, _)| known == name);
            stats.next().map(|(_, value)| value.as_str())
        };
        let on_disk = stats.iter().any(|(name, _)| name.starts_with("extstore_"));
        let moves = stat("slab_reassign") != Some("no") && stat("slab_automove") != Some("0");
        let number = |name| stat(name).and_then(|value| value.parse::<u32>().ok());
        let seconds = |name| number(name).map_or(0, u64::from);
        let process = seconds("pid");
        Self {
            // The difference of the two does not change while it runs.
            started: (process << 40) | seconds("time").saturating_sub(seconds("uptime")),
            evicts: match () {
                () if stat("evictions") != Some("off") => {
                    Some("it evicts what is old when it is full (no -M)")
                }
                () if moves => Some("it may evict what it moves in memory (no -o slab_automove=0)"),
                () if on_disk => Some("it evicts what is on disk when that is full (ext_path)"),
                () => None,
            },
            item_size_max: number("item_size_max").map_or(1 << 20, |size| size as usize),
            time: (seconds("time"), Instant::now()),
        }
    }

    /// Whether a value of this length under this key can be stored.
    pub(super) fn takes(&self, key: &str, value: usize) -> bool {
        key.len() + value + ITEM_OVERHEAD <= self.item_size_max
    }

    /// The time after which an item may go, as the protocol has it. It is rounded up: the server counts in seconds, and
    /// its current one may be over at once.
    pub(super) fn exptime(&self, keep: Option<Duration>) -> u64 {
        let Some(keep) = keep else {
            return 0;
        };
        let seconds = keep.as_secs().saturating_add(2);
        if seconds <= LONGEST_SPAN {
            return seconds;
        }
        let (time, read_at) = self.time;
        let end = (time + read_at.elapsed().as_secs()).saturating_add(seconds);
        // A server that does not tell its time, and one that cannot count so far, keeps the item for ever.
        if time == 0 || end > i32::MAX as u64 {
            0
        } else {
            end
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: [(&str, &str); 4] = [
        ("evictions", "off"),
        ("slab_automove", "0"),
        ("item_size_max", "1048576"),
        ("time", "1800000000"),
    ];

    fn server(stats: &[(&str, &str)]) -> Server {
        let stats = stats
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Server::read(&stats.collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_known_to_stay_may_be_evicted() {
        assert_eq!(server(&STRICT).evicts, None);
        assert!(server(&[]).evicts.is_some());
        for other in [
            ("evictions", "on"),
            ("slab_automove", "1"),
            ("extstore_io_queue", "0"),
        ] {
            let mut stats = STRICT.to_vec();
            stats.retain(|(name, _)| *name != other.0);
            if other.0 != "extstore_io_queue" {
                assert!(server(&stats).evicts.is_some(), "without {}", other.0);
            }
            stats.push(other);
            assert!(server(&stats).evicts.is_some(), "{other:?}");
        }
    }

    #[test]
    fn starts_are_told_apart() {
        let started =
            |pid, time, uptime| server(&[("pid", pid), ("time", time), ("uptime", uptime)]).started;
        let first = started("1", "1800000000", "0");
        assert_eq!(started("1", "1800000070", "70"), first, "it runs");
        assert_ne!(started("1", "1800000070", "0"), first, "in a container");
        assert_ne!(started("2", "1800000000", "0"), first, "in the same second");
        assert_eq!(server(&[]).started, 0);
    }

    #[test]
    fn nothing_ends_too_early() {
        let day = Duration::from_secs(24 * 3600);
        let known = server(&STRICT);
        assert_eq!(known.exptime(None), 0);
        assert_eq!(known.exptime(Some(Duration::ZERO)), 2);
        assert_eq!(known.exptime(Some(Duration::from_millis(1999))), 3);
        assert_eq!(known.exptime(Some(29 * day)), 29 * 24 * 3600 + 2);
        let end = 1_800_000_000 + 60 * 24 * 3600 + 2;
        assert!((end..end + 60).contains(&known.exptime(Some(60 * day))));
        assert_eq!(known.exptime(Some(Duration::MAX)), 0);
        assert_eq!(server(&STRICT[..3]).exptime(Some(60 * day)), 0);
    }
}
