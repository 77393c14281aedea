//! Signing out.

pub(crate) mod all;
pub(crate) mod owed;
pub(crate) mod owed_users;
pub(crate) mod session;
pub(crate) mod user;
