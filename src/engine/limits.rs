//! Times that several parts go by.

use std::time::Duration;

/// The clock of an instance may be set by this much where a change made while L2 could not be asked
/// is compared with the time of a sign-out. In doubt the sign-out wins.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// How often a partition is compared with L2 while its feed is lost.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);
