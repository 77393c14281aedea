//! Whether the servers may evict what is ours.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{RedisResult, cmd};
use parking_lot::Mutex;

use super::failure::is_unanswered;

/// Asks each server once, and tells of the first that evicts. Clones share what is known.
#[derive(Clone, Default)]
pub(super) struct Eviction(Arc<Known>);

#[derive(Default)]
struct Known {
    told: AtomicBool,
    asked: Mutex<HashSet<String>>,
}

impl Eviction {
    /// Asks in the background, over a connection that has just been made to this server.
    pub(super) fn look(&self, server: impl FnOnce() -> String, connection: &MultiplexedConnection) {
        if self.0.told.load(Ordering::Acquire) {
            return;
        }
        let server = server();
        if !self.0.asked.lock().insert(server.clone()) {
            return;
        }
        let (known, mut connection) = (self.0.clone(), connection.clone());
        tokio::spawn(async move {
            let info = cmd("INFO").arg("memory").query_async(&mut connection).await;
            known.learn(&server, info);
        });
    }
}

impl Known {
    fn learn(&self, server: &str, info: RedisResult<String>) {
        let info = match info {
            Ok(info) => info,
            // The next connection to it asks again.
            Err(error) if is_unanswered(&error) => {
                self.asked.lock().remove(server);
                return;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "it is not known whether Redis may evict keys");
                return;
            }
        };
        let Some(policy) = field(&info, "maxmemory_policy") else {
            return;
        };
        if policy != "noeviction" && !self.told.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                policy,
                maxmemory = field(&info, "maxmemory"),
                "Redis may evict keys once it is full: sessions end early, and with the mark of a \
                 sign-out goes what keeps a signed-out session from coming back; set \
                 maxmemory-policy to noeviction"
            );
        }
    }
}

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let field = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(field).map(str::trim)
}
