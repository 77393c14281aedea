//! Acquisitions: getting a token from the provider, once for all requests that need it.
//!
//! - Promise: requests that need the same token share one call (`flights`). One instance at a time redeems a
//!   refresh token (`lease`). L2 has the new tokens before a request gets them, unless it fails and the
//!   policy is to continue, or has newer ones from elsewhere (`commit`).
//! - Guarantee: *Refreshes once*.
//! - Imports: `Engine`, its parts `load` and `partition`, and leaves (`budget`, `error`, `limits`, `sync`).
//! - Read `join` first, then `flight`. `ahead` is for tokens that are still good.

pub(crate) mod ahead;
pub(crate) mod ask;
pub(crate) mod call;
pub(crate) mod call_slots;
pub(crate) mod commit;
pub(crate) mod exclusion;
pub(crate) mod flight;
pub(crate) mod flights;
pub(crate) mod gate;
pub(crate) mod held_still;
pub(crate) mod join;
pub(crate) mod lease;
pub(crate) mod lease_wait;
pub(crate) mod look;
pub(crate) mod outcome;
pub(crate) mod redemption;
