//! Acquisition.

pub(crate) mod ask;
pub(crate) mod call;
pub(crate) mod call_slots;
pub(crate) mod commit;
pub(crate) mod flight;
pub(crate) mod flights;
pub(crate) mod join;
pub(crate) mod lease;
pub(crate) mod lease_wait;
pub(crate) mod look;
pub(crate) mod outcome;
