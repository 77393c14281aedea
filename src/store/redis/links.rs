//! Connections belong to the runtime that uses them: what one of them waits for is driven there, and
//! ends with it.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bb8_redis::redis::{Pipeline, RedisError, RedisResult, Value};
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;

use super::access::Access;
use super::link::Link;
use crate::error::ConfigError;
use crate::store::PartitionId;

/// A link for each runtime that uses the store. Clones share them.
#[derive(Clone)]
pub(super) struct Links(Arc<Inner>);

struct Inner {
    access: Access,
    timeout: Duration,
    is_cluster: bool,
    made: Mutex<Vec<Made>>,
    /// How many were made so far.
    count: AtomicU64,
}

/// The link of one runtime.
struct Made {
    runtime: Id,
    number: u64,
    link: Link,
    /// Takes this away when the runtime ends.
    ends: AbortHandle,
}

/// Dropped by the runtime when that ends, or when its link is given up.
struct End {
    links: Weak<Inner>,
    number: u64,
}

impl Links {
    /// Nothing is connected before it is used.
    pub(super) fn new(access: Access, timeout: Duration) -> Result<Self, ConfigError> {
        let is_cluster = Link::check(access.address()?, &access)?;
        Ok(Self(Arc::new(Inner {
            access,
            timeout,
            is_cluster,
            made: Mutex::default(),
            count: AtomicU64::default(),
        })))
    }

    /// Links to the same servers that are not shared with these.
    pub(super) fn apart(&self) -> Result<Self, ConfigError> {
        Self::new(self.0.access.clone(), self.0.timeout)
    }

    /// Sends the commands at once. Each has an answer of its own.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        self.here()?.send(pipeline).await
    }

    /// Whether two partitions may be kept by two servers.
    pub(super) fn is_cluster(&self) -> bool {
        self.0.is_cluster
    }

    /// Which server keeps a partition, as far as any link knows.
    pub(super) fn server(&self, id: &PartitionId) -> usize {
        let made = self.0.made.lock();
        made.first().map_or(0, |known| known.link.server(id))
    }

    pub(super) fn access(&self) -> &Access {
        &self.0.access
    }

    /// What tells these servers from others.
    pub(super) fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.access.hash_place(&mut hasher);
        hasher.finish()
    }

    /// The link of this runtime.
    fn here(&self) -> RedisResult<Link> {
        let handle = Handle::try_current().map_err(std::io::Error::other)?;
        let runtime = handle.id();
        if let Some(known) = self.known(runtime) {
            return Ok(known);
        }
        // They were found to be good before.
        let bad = |error: ConfigError| RedisError::from(std::io::Error::other(error));
        let address = self.0.access.address().map_err(bad)?;
        let link = Link::new(address, &self.0.access, self.0.timeout).map_err(bad)?;
        let number = self.0.count.fetch_add(1, Ordering::Relaxed);
        let end = End {
            links: Arc::downgrade(&self.0),
            number,
        };
        let ends = handle.spawn(async move {
            let _end = end;
            std::future::pending::<()>().await;
        });
        let new = Made {
            runtime,
            number,
            link: link.clone(),
            ends: ends.abort_handle(),
        };
        let mut made = self.0.made.lock();
        if let Some(known) = made.iter().find(|known| known.runtime == runtime) {
            let known = known.link.clone();
            // Its end is told to the same list.
            drop(made);
            drop(new);
            return Ok(known);
        }
        made.push(new);
        Ok(link)
    }

    fn known(&self, runtime: Id) -> Option<Link> {
        let made = self.0.made.lock();
        let known = made.iter().find(|known| known.runtime == runtime);
        known.map(|known| known.link.clone())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(links) = self.links.upgrade() {
            let ended = {
                let mut made = links.made.lock();
                let at = made.iter().position(|known| known.number == self.number);
                at.map(|at| made.swap_remove(at))
            };
            drop(ended);
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.ends.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_ends_takes_its_connections_along() {
        let access = Access::new("redis://127.0.0.1:1".into());
        let links = Links::new(access, Duration::from_millis(10)).expect("a URL");
        for _ in 0..10 {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime
                .block_on(async { links.here().map(drop) })
                .expect("a link");
            runtime
                .block_on(async { links.here().map(drop) })
                .expect("the same");
            assert_eq!(links.0.made.lock().len(), 1);
        }
        assert!(links.0.made.lock().is_empty());
    }
}
