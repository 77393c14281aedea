//! Loads: reading a partition from L2 into memory.
//!
//! - Promise: requests that read a partition share one load. If memory may still be
//!   current, only the version is read. What a commit or sign-out has overtaken does not enter memory.
//! - Guarantees: *Instances agree* (revalidation), *Signs out for good* (overtaken reads), *Loses nothing*
//!   (what L2 has lost is written again).
//! - Imports: `Engine`, its parts `l2::questions` and `partition`, and leaves (`error`, `sync`).
//! - Read `single_flight` first.
//!
//! | | asks |
//! |---|---|
//! | `load` | what requests share: by one question where that suffices, else by `confirm` and `fetch` |
//! | `confirm` | for the version only: whether memory is current |
//! | `fetch` | for the partition, in any case, and again where it was overtaken; also what acquisitions ask (`acquire::look`) |
//! | `ask` | the store, together with others; nothing enters memory |

pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod single_flight;
