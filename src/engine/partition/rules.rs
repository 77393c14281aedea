//! What a partition's state depends on besides itself.

use crate::cache::l1::L1;
use crate::cache::lifetimes::Lifetimes;
use crate::engine::partition::life::Losses;
use crate::engine::partition::links::Users;
use crate::engine::trust::FeedTrust;

/// The settings and the shared knowledge that decide how a partition behaves.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) l1: L1,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) trust: FeedTrust,
    pub(crate) losses: Losses,
    pub(crate) users: Users,
}
