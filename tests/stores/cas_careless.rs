//! Simple stores that break a rule: the checks notice each.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::store::{CasAdapter, CasStore};
use tower_token_cache::{Clock, StoreError, Timestamp};

/// What the author has not thought of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    /// What begins replaces what is there.
    BeginsOver,
    NoComparison,
    /// Compares, and then writes.
    TwoSteps,
    DeletesAnything,
    RevisionsAreLengths,
    /// Begin anew with a key that was deleted.
    RevisionsCountPerKey,
    ValuesAreText,
    ValuesAreTrimmed,
    KeysAreCut,
    KeysHaveNoCase,
    EndsWhatHasNoEnd,
    KeepsHalfAsLong,
    KeepsAsLongAsTheFirst,
}

struct Careless {
    mistake: Mistake,
    clock: Clock,
    cells: Mutex<HashMap<String, Cell>>,
    count: Mutex<u64>,
}

#[derive(Clone)]
struct Cell {
    bytes: Bytes,
    revision: u64,
    end: Option<Timestamp>,
}

impl Careless {
    fn key(&self, key: &str) -> String {
        match self.mistake {
            Mistake::KeysAreCut => key.chars().take(64).collect(),
            Mistake::KeysHaveNoCase => key.to_lowercase(),
            _ => key.into(),
        }
    }

    fn found(&self, key: &str) -> Option<Cell> {
        let found = self.cells.lock().unwrap().get(key).cloned();
        found.filter(|cell| cell.end.is_none_or(|end| end > self.clock.now()))
    }

    fn written(&self, key: &str, value: Bytes, keep: Option<Duration>) -> Cell {
        let (found, now) = (self.found(key), self.clock.now());
        let mut count = self.count.lock().unwrap();
        *count += 1;
        let bytes: Bytes = match self.mistake {
            Mistake::ValuesAreText => String::from_utf8_lossy(&value).into_owned().into(),
            Mistake::ValuesAreTrimmed => value.trim_ascii_end().to_vec().into(),
            _ => value,
        };
        let end = keep.map(|keep| now.saturating_add(keep));
        Cell {
            revision: match self.mistake {
                Mistake::RevisionsAreLengths => bytes.len() as u64,
                Mistake::RevisionsCountPerKey => found.as_ref().map_or(1, |it| it.revision + 1),
                _ => *count,
            },
            bytes,
            end: match (self.mistake, found) {
                (Mistake::EndsWhatHasNoEnd, _) => Some(end.unwrap_or(now)),
                (Mistake::KeepsHalfAsLong, _) => keep.map(|keep| now.saturating_add(keep / 2)),
                (Mistake::KeepsAsLongAsTheFirst, Some(first)) => first.end,
                _ => end,
            },
        }
    }
}

impl CasStore for Careless {
    type Revision = u64;

    async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, StoreError> {
        tokio::task::yield_now().await;
        let found = self.found(&self.key(key));
        Ok(found.map(|cell| (cell.bytes, cell.revision)))
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&u64>,
        keep: Option<Duration>,
    ) -> Result<bool, StoreError> {
        tokio::task::yield_now().await;
        let key = self.key(key);
        let found = self.found(&key).map(|cell| cell.revision);
        let writes = match self.mistake {
            Mistake::NoComparison => true,
            Mistake::BeginsOver if expected.is_none() => true,
            _ => found.as_ref() == expected,
        };
        if self.mistake == Mistake::TwoSteps {
            tokio::task::yield_now().await;
        }
        if writes {
            let cell = self.written(&key, value, keep);
            self.cells.lock().unwrap().insert(key, cell);
        }
        Ok(writes)
    }

    async fn delete(&self, key: &str, expected: &u64) -> Result<bool, StoreError> {
        tokio::task::yield_now().await;
        let key = self.key(key);
        let Some(found) = self.found(&key) else {
            return Ok(false);
        };
        let deletes = found.revision == *expected || self.mistake == Mistake::DeletesAnything;
        if deletes {
            self.cells.lock().unwrap().remove(&key);
        }
        Ok(deletes)
    }
}

/// Whether it passes.
fn passes(mistake: Mistake) -> bool {
    let checks = std::thread::spawn(move || {
        let clock = Clock::manual(Timestamp::now());
        let store = Careless {
            mistake,
            clock: clock.clone(),
            cells: Mutex::default(),
            count: Mutex::default(),
        };
        let store = CasAdapter::new(store).with_clock(clock.clone());
        let harness = Harness::manual(store, clock);
        conformance::block_on(conformance::cas_store(&harness));
    });
    checks.join().is_ok()
}

#[test]
fn each_mistake_is_noticed() {
    assert!(passes(Mistake::None), "a store that makes none");
    for mistake in [
        Mistake::BeginsOver,
        Mistake::NoComparison,
        Mistake::TwoSteps,
        Mistake::DeletesAnything,
        Mistake::RevisionsAreLengths,
        Mistake::RevisionsCountPerKey,
        Mistake::ValuesAreText,
        Mistake::ValuesAreTrimmed,
        Mistake::KeysAreCut,
        Mistake::KeysHaveNoCase,
        Mistake::EndsWhatHasNoEnd,
        Mistake::KeepsHalfAsLong,
        Mistake::KeepsAsLongAsTheFirst,
    ] {
        assert!(!passes(mistake), "{mistake:?} is not noticed");
    }
}
