//! Signing out: a session, a user, or all users of a namespace.
//!
//! Promises that what was in progress before a sign-out has no effect after it, on any instance, and that a
//! sign-out which L2 has not acknowledged is sent again until it is. Carries *Signs out for good*. Each of
//! the three raises a number in L2: [`session`] a partition's generation, [`user`] a user's epoch, [`all`]
//! the namespace's number. [`owed`] has the sign-outs of sessions that the journal keeps until L2 has
//! acknowledged them, [`owed_users`] those of users. May import every part. The sign-out of a session begins in `write::sign_out`, which holds in memory at once and queues it;
//! [`session`] is what write-behind then does in L2.

pub(crate) mod all;
#[cfg(feature = "logout")]
mod logout_token;
pub(crate) mod owed;
pub(crate) mod owed_users;
mod revoke;
pub(crate) mod session;
pub(crate) mod user;
