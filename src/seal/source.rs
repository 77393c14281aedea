//! `Source`: where a ring's keys come from while it lives.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::synchronise::Vault;

pub(super) struct Source {
    pub(super) vault: Vault,
    /// One refresh at a time.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Until when nobody asks for an unknown key again. Set when an answer has come, and not before:
    /// a process that was stopped meanwhile has to ask again at once.
    pub(super) quiet_until: Mutex<Option<Instant>>,
    /// When the repository was last asked on schedule.
    pub(super) refreshed: Mutex<Option<Instant>>,
}

impl Source {
    pub(super) fn new(vault: Vault) -> Self {
        Self {
            vault,
            turn: Arc::default(),
            quiet_until: Mutex::default(),
            refreshed: Mutex::default(),
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        let until = *self.quiet_until.lock();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether nobody has asked on schedule for this long; then it is taken to be asked now.
    pub(super) fn is_due(&self, pause: Duration) -> bool {
        let mut refreshed = self.refreshed.lock();
        let due = refreshed.is_none_or(|last| last.elapsed() >= pause / 2);
        if due {
            *refreshed = Some(Instant::now());
        }
        due
    }

    pub(super) fn keep_quiet(&self, pause: Duration) {
        *self.quiet_until.lock() = Some(Instant::now() + pause);
    }
}
