//! A store in memory that can compare and set, and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tower_token_cache::StoreError;
use tower_token_cache::store::CasStore;

/// Clones share what is stored.
#[derive(Clone, Default)]
pub struct Cells(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    cells: HashMap<String, Cell>,
    count: u64,
    collisions: u32,
}

/// What is under a key.
#[derive(Clone)]
pub struct Cell {
    pub bytes: Bytes,
    pub revision: u64,
    pub keep: Option<Duration>,
}

impl Cells {
    /// The keys, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.table().cells.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    pub fn cell(&self, key: &str) -> Option<Cell> {
        self.table().cells.get(key).cloned()
    }

    /// Writes without a comparison, as an operator would.
    pub fn set(&self, key: &str, bytes: impl Into<Bytes>) {
        self.table().write(key, bytes.into(), None);
    }

    /// So many of the next changes find that another was faster.
    pub fn collide(&self, times: u32) {
        self.table().collisions = times;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no panic")
    }
}

impl Table {
    fn write(&mut self, key: &str, bytes: Bytes, keep: Option<Duration>) {
        self.count += 1;
        let revision = self.count;
        let cell = Cell {
            bytes,
            revision,
            keep,
        };
        self.cells.insert(key.into(), cell);
    }

    fn is_as_read(&mut self, key: &str, expected: Option<&u64>) -> bool {
        let revision = self.cells.get(key).map(|cell| &cell.revision);
        let as_read = self.collisions == 0 && revision == expected;
        self.collisions = self.collisions.saturating_sub(1);
        as_read
    }
}

impl CasStore for Cells {
    type Revision = u64;

    async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, StoreError> {
        // Others have their turn, as over a network.
        tokio::task::yield_now().await;
        let cell = self.cell(key);
        Ok(cell.map(|cell| (cell.bytes, cell.revision)))
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&u64>,
        keep: Option<Duration>,
    ) -> Result<bool, StoreError> {
        tokio::task::yield_now().await;
        let mut table = self.table();
        let as_read = table.is_as_read(key, expected);
        if as_read {
            table.write(key, value, keep);
        }
        Ok(as_read)
    }

    async fn delete(&self, key: &str, expected: &u64) -> Result<bool, StoreError> {
        tokio::task::yield_now().await;
        let mut table = self.table();
        let as_read = table.is_as_read(key, Some(expected));
        if as_read {
            table.cells.remove(key);
        }
        Ok(as_read)
    }
}
