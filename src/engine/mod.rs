//! The engine: everything between the handles ([`Tokens`](crate::Tokens)) and the store.
//!
//! ```text
//!   operations    read   write   take   rename   sessions   sign_in   sign_out   what a handle asks for
//!                 (beside them: fallback, shutdown, stats, health, listed, tell)
//!                                 |
//!   work          acquire   write_behind   load   coherence        flights and background tasks
//!                                 |
//!   core          Engine, the state that all of them share
//!                                 |
//!   resources     l2 (the store)   l1 (memory)   journal (disk)
//!                                 |
//!   partition     the state of one partition: pure, no I/O; it marks what is to be sent
//!                                 |
//!   leaves        trust   namespace   error   limits   budget   fingerprint   revocations   events
//!                 sync   runtime
//!                 the settings: cache::{l1, lifetimes, timeouts, acquisitions}
//! ```
//!
//! Imports go down, and no file imports itself in a circle. Parts call each other by methods of `Engine`, which
//! take no import. Three kinds of imports go up: `core` owns the tables of the parts above it (`Flights`,
//! `Coherence`, `Queue`, `Deferred`, `UserSignOuts`); `partition` keeps a place in an index (`l1::digests`), a
//! count of sign-outs (`journal::unacknowledged`) and tokens to revoke ([`revocations`]), which import no other part;
//! `runtime::{detached, bounded}` are methods of `Engine`.
//!
//! # A hit
//!
//! The layer (`layer/service.rs`) puts a handle into the request's extensions, and axum takes it from there. Then five files:
//! `tokens.rs` (`get`, `read`, `hit`), [`read`] (`hit`), [`l1::table`] (`hit`), [`partition::answer`] (`fresh_value`) and
//! [`trust`] (`usable_era`). No await, no I/O. A value is served if
//!
//! - `fresh_hit_until` has not come: one moment for all that depends on time alone (sliding and absolute end, when to ask again);
//! - the partition is of the feed's era, the feed has proven that it is alive, and it has not announced another number of the
//!   namespace. A new era begins when changes may have gone unheard, also after a sleep of the machine (`Engine::now` in [`core`]);
//! - no linked user may have been signed out ([`partition::links`]), and the token has not expired ([`partition::entry`]).
//!
//! Generation and version are not compared. What others change and sign out is told by the feed: [`partition::hints`] counts an
//! invalidation, through `Partitions::with`, which ends with `update_deadlines`: that sets `fresh_hit_until` to zero. It is zero
//! as well while changes are pending, and while memory does not have all entries. Then `read` goes on: `State::answer` serves from memory what it knows to be current, such as
//! pending changes, and the rest is compared with L2 first. While L2 does not answer, [`Degrade`](crate::FailurePolicy::Degrade)
//! serves a value that is only unproven (`stale_value`, and `short_circuits` in [`fallback`], which may begin a probe); never one of
//! which a change was announced.
//!
//! Beside that a hit notes what the handle observes, once per handle ([`partition::observed`]), and a use if the order of eviction has
//! to know ([`l1::eviction`]).
//!
//! # A refresh
//!
//! From `tokens/acquire.rs` (`get_or_acquire`, which looks for a hit first) in nine steps, each in the file that it begins with.
//!
//! 1. `acquisition.rs` (`find`): the token in memory or L2 will not do, and the handle asks for one.
//! 2. [`acquire::join`]: joins the flight that acquires it, or starts one ([`acquire::flights`]).
//! 3. [`acquire::flight`] (`acquire`): takes the lock ([`acquire::redemption`]) and the lease, and reads L2 again (`look`). While
//!    another instance has the lease, it waits ([`acquire::lease_wait`]). Where it sees under the lease that another one is
//!    needed (there is a refresh token that it did not know of), it gives this one back and takes that.
//! 4. [`acquire::lease`] (`guard`): the lease is renewed while the call runs; the call runs only while it is held (`Gate` in
//!    [`acquire::call`]).
//! 5. [`acquire::ask`]: waits for a call slot, reserves room, and asks the provider.
//! 6. [`acquire::commit`]: queues the answer as an acquired batch, which memory does not show yet, and waits for L2.
//! 7. [`write_behind::group`] (`take_work`, `commit_group`): the task that writes ([`write_behind::drain`]) sends it, with the work of other
//!    partitions (`next_commit` in [`partition::pending`]; in Redis `commit.lua`). A batch is a commit of its own, sent before
//!    other changes, and hidden until it is acknowledged.
//! 8. [`write_behind::settle`]: hands L2's answer to the partition.
//! 9. [`partition::acks`] (`committed`): memory shows the tokens, and the flight learns that they are stored. It publishes
//!    them to all waiters, and releases the lease (`end_when_written`: where L2 does not have the tokens yet, the lease is kept
//!    until it has).
//!
//! Two redemptions of one refresh token are prevented by, in this order: the flight, which requests of one token share; the lock, which flights
//! of one refresh token share; the lease, which instances share, and which is of the session's generation; reading L2 again once all
//! three are held; and `Gate`, which stops the call when the lease is lost, unless L2 cannot be reached at all. The commit's condition ([`partition::refresh`]: the refresh token's
//! entry still has its version, or the token's own where there is none) prevents no call; it keeps an answer from replacing a newer one.
//!
//! Waits for L2 before the answer is published share one allowance ([`runtime::bounded`]): `wait_for_busy_l2` for what decides whether
//! the provider may be asked, which an L2 that answers others does not use up, and `wait_for_l2` for the rest.
//!
//! Other instances hear of it by the store's feed (Redis: client tracking), in [`coherence::events`]; this one hears of
//! its own commits, too, and compares memory with L2 in the background.
//!
//! # Terms of the engine
//!
//! Those of users are in the crate's glossary.
//!
//! | term | meaning |
//! |---|---|
//! | life | a partition in L2, from its first commit to its end; a change continues the life in which it was made, or is dropped: [`partition::life`] |
//! | loss | L2 has no longer a life that should not have ended: it has lost this partition alone, or everything: [`partition::loss`] |
//! | marker | the record of the namespace's number in L2; if it is gone or another, L2 has lost everything |
//! | epoch | a record in L2 that has a number and no entries; to raise it signs out all that depends on it: [`partition::links`] has those of users |
//! | number | the namespace's epoch, and a part of every partition's name in L2: [`namespace`]; `under` is the number at the time of some work |
//! | era | counts the times when changes may have gone unheard; what memory has of an earlier era is compared with L2: [`trust`] |
//! | hint | an announcement of the feed: a partition, an epoch or the number may have changed: [`partition::hints`] |
//! | floor | what was known of a partition when a read of L2 began; if that has changed at the end, the read is overtaken: [`partition::merge`] |
//! | observed | what a handle saw at its first use of a partition; a sign-out since refuses its changes: [`partition::observed`] |
//! | flight | one acquisition in progress, which all requests that need the token wait for: [`acquire::flight`] |
//! | allowance | how much longer an acquisition waits for L2, in all its steps together: [`sync::allowance`] |
//! | acquired batch | the tokens of one acquisition, committed together and on a condition: [`partition::change`] |

pub(crate) mod acquire;
pub(crate) mod budget;
pub(crate) mod coherence;
pub(crate) mod core;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod fallback;
pub(crate) mod fingerprint;
pub(crate) mod health;
pub(crate) mod journal;
pub(crate) mod l1;
pub(crate) mod l2;
pub(crate) mod limits;
pub(crate) mod listed;
pub(crate) mod load;
pub(crate) mod namespace;
#[cfg(test)]
mod overload_tests;
pub(crate) mod partition;
pub(crate) mod read;
pub(crate) mod rename;
pub(crate) mod revocations;
pub(crate) mod runtime;
pub(crate) mod sessions;
pub(crate) mod shutdown;
pub(crate) mod sign_in;
pub(crate) mod sign_out;
pub(crate) mod stats;
pub(crate) mod sync;
pub(crate) mod take;
mod tell;
pub(crate) mod trust;
pub(crate) mod write;
pub(crate) mod write_behind;
