//! How a channel is kept under watch.

use std::time::Duration;

use crate::error::ConfigError;
use crate::time::setting;

/// The longest interval between heartbeats that an instance is granted by others.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(60);

/// How a channel is kept under watch. Instances may differ: a heartbeat says when the next is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    heartbeat: Duration,
    lost_after: Duration,
    forget_after: Duration,
}

/// A heartbeat each second, lost after 3 s, forgotten after 30 s.
impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            lost_after: Duration::from_secs(3),
            forget_after: Duration::from_secs(30),
        }
    }
}

impl KeepAlive {
    /// How often an instance sends a heartbeat, which every instance receives; at most 60 s.
    /// Defaults to 1 s: a lost message is noticed within it, and a hundred instances receive a
    /// hundred small messages a second each.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How long the channel is trusted without a sign of life, at least twice the heartbeat; also
    /// the longest that joining and sending may take. Defaults to 3 s: two heartbeats may be late
    /// before everybody asks L2 again. It is how long changes can go unnoticed when a link dies
    /// silently.
    pub fn lost_after(mut self, timeout: Duration) -> Self {
        self.lost_after = timeout;
        self
    }

    /// After what silence another instance is taken to have died, and its silence no longer for
    /// an outage of the channel; at least `lost_after`. Defaults to 30 s: longer than most
    /// interruptions, and short enough that an instance that crashes costs the others half a
    /// minute of questions to L2.
    pub fn forget_after(mut self, timeout: Duration) -> Self {
        self.forget_after = timeout;
        self
    }

    pub(super) fn validate(mut self) -> Result<Self, ConfigError> {
        self.lost_after = setting(self.lost_after);
        self.forget_after = setting(self.forget_after);
        if self.heartbeat < Duration::from_millis(10) || self.heartbeat > LONGEST_HEARTBEAT {
            return Err(ConfigError::new("heartbeat", "must be 10 ms to 60 s"));
        }
        if self.lost_after < self.heartbeat * 2 {
            return Err(ConfigError::new(
                "lost_after",
                "must be at least two heartbeats",
            ));
        }
        if self.forget_after < self.lost_after {
            return Err(ConfigError::new(
                "forget_after",
                "must be at least `lost_after`",
            ));
        }
        Ok(self)
    }

    pub(super) fn interval(&self) -> Duration {
        self.heartbeat
    }

    pub(super) fn timeout(&self) -> Duration {
        self.lost_after
    }

    /// How long another instance may be silent that sends heartbeats at this interval.
    pub(super) fn patience(&self, interval: Duration) -> Duration {
        self.lost_after.max(interval.min(LONGEST_HEARTBEAT) * 3)
    }

    /// When one with this patience is taken to have died.
    pub(super) fn forget(&self, patience: Duration) -> Duration {
        self.forget_after.max(patience * 2)
    }
}
