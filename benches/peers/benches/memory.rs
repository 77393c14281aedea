//! What L1 costs in memory: growth of the process, beside the payload and beside the limit.
//!
//! Each case runs in a process of its own, over a store that keeps nothing.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use peers::process::resident;
use peers::report::bar;
use peers::users::{PAYLOAD, scaled_set, session_id};
use tower_token_cache::store::{
    Change, Cleared, Commit, CommitId, Lease, LeaseState, Loaded, Outcome, PartitionId, Raise,
    Remaining, StoredEntry,
};
use tower_token_cache::{L1, PartitionKey, StoreError, StoreErrorKind, TokenCache, TokenStore};

const USERS: usize = 100_000;
const LIMIT: u64 = 200 << 20;

/// Takes every commit and keeps none, or answers loads with what the first of them held.
struct NullStore {
    template: Option<OnceLock<Vec<Change>>>,
}

impl NullStore {
    fn remembered(&self) -> Option<&Vec<Change>> {
        self.template.as_ref()?.get()
    }
}

impl TokenStore for NullStore {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        let entries = self
            .remembered()
            .into_iter()
            .flatten()
            .filter_map(|change| {
                let put = change.put.as_ref()?;
                let value = Bytes::copy_from_slice(&put.value);
                Some(StoredEntry::new(change.entry, 1, put.expires_at, value))
            });
        let mut loaded = Loaded::default();
        loaded.version = self.remembered().map_or(0, |_| 1);
        loaded.entries = entries.collect();
        vec![Ok(loaded); group.len()]
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let version = self.remembered().map_or(1, |_| 2);
        if let Some(template) = &self.template {
            template.get_or_init(|| group[0].changes.clone());
        }
        let committed = Outcome::committed(version, None, None, Remaining::default());
        vec![Ok(committed); group.len()]
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        vec![Ok(Remaining::default()); group.len()]
    }

    async fn clear(
        &self,
        _: &PartitionId,
        _: Option<u64>,
        _: CommitId,
    ) -> Result<Cleared, StoreError> {
        Ok(Cleared::new(1, true))
    }

    async fn raise(
        &self,
        _: &PartitionId,
        _: Raise,
        _: Option<Duration>,
    ) -> Result<u64, StoreError> {
        Ok(1)
    }

    async fn acquire_lease(&self, _: &Lease, _: Duration) -> Result<LeaseState, StoreError> {
        not_measured()
    }

    async fn renew_lease(&self, _: &Lease, _: Duration) -> Result<bool, StoreError> {
        not_measured()
    }

    async fn release_lease(&self, _: &Lease) -> Result<bool, StoreError> {
        not_measured()
    }
}

fn not_measured<T>() -> Result<T, StoreError> {
    Err(StoreError::new(StoreErrorKind::Refused))
}

struct Measured {
    growth: f64,
    weighed: f64,
    entries: f64,
}

/// How many heaps glibc may keep for the threads of a process. What one has free no other can use:
/// with several, the growth depends on which thread happened to do what.
#[derive(Clone, Copy, PartialEq)]
enum Arenas {
    One,
    /// As many as it likes; the median of five runs.
    Default,
}

/// Fills L1 in a new process.
fn measure(filled_by: &str, divisor: usize, limit: u64, arenas: Arenas) -> Measured {
    if arenas == Arenas::One {
        return measure_once(filled_by, divisor, limit, arenas);
    }
    let mut runs = [(); 5].map(|()| measure_once(filled_by, divisor, limit, arenas));
    runs.sort_by(|a, b| a.growth.total_cmp(&b.growth));
    let [_, _, median, _, _] = runs;
    median
}

fn measure_once(filled_by: &str, divisor: usize, limit: u64, arenas: Arenas) -> Measured {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if arenas == Arenas::One {
        command.env("MALLOC_ARENA_MAX", "1");
    }
    let output = command
        .args([
            "--child",
            filled_by,
            &divisor.to_string(),
            &limit.to_string(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    Measured {
        growth: next(),
        weighed: next(),
        entries: next(),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, child, filled_by, divisor, limit] = &args[..]
        && child == "--child"
    {
        return fill(
            filled_by == "loads",
            divisor.parse().unwrap(),
            limit.parse().unwrap(),
        );
    }
    println!("{USERS} users; bytes per user; overhead is growth less payload\n");
    println!(
        "{:<10} {:>8} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "filled by", "payload", "growth", "overhead", "weighed", "weighed/", "entries"
    );
    let mut holds = true;
    let row = |filled_by: &str, divisor: usize, limit: u64, arenas| {
        let measured = measure(filled_by, divisor, limit, arenas);
        let users = measured.entries;
        println!(
            "{filled_by:<10} {:>8} {:>10.0} {:>10.0} {:>10.0} {:>10.3} {:>8}",
            PAYLOAD / divisor,
            measured.growth / users,
            measured.growth / users - (PAYLOAD / divisor) as f64,
            measured.weighed / users,
            measured.weighed / measured.growth,
            users,
        );
        measured
    };
    let unlimited = 4 << 30;
    let all: Vec<_> = ["inserts", "loads"]
        .into_iter()
        .flat_map(|filled_by| [4, 2, 1].map(|divisor| (filled_by, divisor)))
        .map(|(filled_by, divisor)| {
            let measured = row(filled_by, divisor, unlimited, Arenas::One);
            (filled_by, divisor, measured)
        })
        .collect();
    let full =
        ["inserts", "loads"].map(|filled_by| (filled_by, row(filled_by, 1, LIMIT, Arenas::One)));
    println!("\nthe same with the arenas that glibc gives to threads:");
    for (limit, filled_by) in [(unlimited, "loads"), (LIMIT, "inserts"), (LIMIT, "loads")] {
        row(filled_by, 1, limit, Arenas::Default);
    }
    println!();
    for (filled_by, _, measured) in all.iter().filter(|(_, divisor, _)| *divisor == 1) {
        assert_eq!(measured.entries, USERS as f64);
        let payload = (USERS * PAYLOAD) as f64;
        holds &= bar(
            &format!("growth / payload, {filled_by}"),
            measured.growth / payload,
            1.15,
            false,
        );
    }
    for (filled_by, measured) in &full {
        assert!(measured.entries < USERS as f64 / 2.0, "nothing was evicted");
        let ratio = measured.growth / LIMIT as f64;
        holds &= bar(
            &format!("growth / limit of 200 MiB, {filled_by}"),
            ratio,
            1.15,
            false,
        );
    }
    std::process::exit(i32::from(!holds));
}

fn fill(by_loads: bool, divisor: usize, limit: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let l1 = L1::new().max_bytes(limit).revalidate_every(None);
        let template = by_loads.then(OnceLock::new);
        let cache = TokenCache::builder(NullStore { template });
        let cache = cache.l1(l1).build().unwrap();
        let tokens = |user| cache.tokens(PartitionKey::session(session_id(user)).unwrap());
        tokens(0)
            .insert("graph", scaled_set(divisor))
            .await
            .unwrap();
        let _ = tokens(0).commit().await.unwrap();
        let before = resident();
        for user in 1..USERS {
            match by_loads {
                true => {
                    let found = tokens(user).get("graph").await.unwrap();
                    assert!(found.is_hit(), "{found:?}");
                }
                false => tokens(user)
                    .insert("graph", scaled_set(divisor))
                    .await
                    .unwrap(),
            }
            // As many changes wait as in a busy server.
            if user % 128 == 0 {
                drain(&cache).await;
            }
        }
        drain(&cache).await;
        let stats = cache.stats();
        let growth = resident() - before;
        println!("{growth} {} {}", stats.l1_bytes, stats.l1_entries);
    });
}

async fn drain(cache: &TokenCache) {
    while cache.stats().pending_changes > 0 {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
