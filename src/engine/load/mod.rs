//! Loads.

pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod single_flight;
