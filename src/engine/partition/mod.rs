//! One partition in memory: what is known of it, and what it has under way.
//!
//! A `State` is guarded by its partition's lock and never held across an await. It is the only
//! place that decides what a read may answer, and (in `admission`) what may enter memory.

pub(crate) mod acks;
pub(crate) mod answer;
pub(crate) mod change;
pub(crate) mod contents;
pub(crate) mod entries;
pub(crate) mod entry;
pub(crate) mod failure_record;
pub(crate) mod hints;
pub(crate) mod life;
pub(crate) mod links;
pub(crate) mod loss;
pub(crate) mod merge;
pub(crate) mod observed;
pub(crate) mod pending;
pub(crate) mod refresh;
pub(crate) mod rules;
pub(crate) mod state;
pub(crate) mod touch;
