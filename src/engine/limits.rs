//! Durations that several parts share.

use std::time::Duration;

/// The largest error of an instance's clock that is allowed for, where a change made while L2 could not be
/// asked is compared with the time of a sign-out. In doubt the sign-out wins.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The interval at which a partition in use is compared with L2 while its feed is lost. Also how long an answer
/// counts as recent elsewhere: a failure of L2, a write of this process that the feed will announce.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);
