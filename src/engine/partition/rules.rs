//! How the settings of the cache bear on a partition.

use std::time::Duration;

use crate::engine::partition::life::Losses;
use crate::engine::partition::links::Users;
use crate::engine::trust::FeedTrust;

/// How the settings of the cache bear on a partition.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) negative_ttl: Duration,
    pub(crate) expiration_ratio: f64,
    pub(crate) revalidate_every: Option<Duration>,
    pub(crate) max_staleness: Option<Duration>,
    pub(crate) sliding: Option<Duration>,
    pub(crate) trust: FeedTrust,
    pub(crate) losses: Losses,
    pub(crate) users: Users,
}
