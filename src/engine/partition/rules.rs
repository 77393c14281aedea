//! What a partition's state depends on besides itself.

use std::time::Duration;

use crate::engine::partition::life::Losses;
use crate::engine::partition::links::Users;
use crate::engine::trust::FeedTrust;

/// The settings and the shared knowledge that decide how a partition behaves.
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
