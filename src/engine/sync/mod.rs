//! What tasks share.

pub(crate) mod in_use;
pub(crate) mod once;
pub(crate) mod until;
