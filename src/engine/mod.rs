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
//! The six ways below name the files in the order in which a request, or its task, comes through them.
//!
//! # A hit
//!
//! The layer (`layer/service.rs`) takes the key from the request (`begin` in `layer/settings.rs`) and puts a handle into its extensions;
//! axum takes it from there. Then five files:
//!
//! 1. `tokens.rs` (`get`, `read`, `hit`): takes the name of the entry, and the handle's session, and notes that it was used.
//! 2. [`read`] (`hit`): takes the time, decides what may be served, counts it, and notes once what the handle observes: a sign-out
//!    after that refuses its changes.
//! 3. [`l1::table`] (`hit`): finds the partition, and at times notes a use, so that the order of eviction is known.
//! 4. [`partition::answer`] (`fresh_value`): the conditions.
//! 5. [`trust`] (`usable_era`): whether the feed vouches for memory.
//!
//! No await, no I/O. A value is served if
//!
//! - `fresh_hit_until` has not come: the first of the moments at which the partition ends, has to be touched in L2, or is to be read again
//!   ([`L1::expiration_ratio`](crate::L1), and without a feed the settings for that). It is zero while changes or a sign-out are pending,
//!   while memory does not have all entries, and once the feed has announced a change of another instance;
//! - the partition is of the era that is usable now: the feed has proven within three seconds that it is alive, and has not
//!   announced another number of the namespace. A new era begins when changes may have gone unheard, also after a sleep of the machine
//!   (`Engine::now` in [`core`]). Over a store without a feed there is one era only;
//! - no linked user may have been signed out (`may_be_signed_out` in [`partition::links`]): not since the link was made, as far as is
//!   known, and nothing was announced of that user, nor of all, since L2 was last asked;
//! - memory has the token, and it has not expired by the wall clock.
//!
//! Generation and version are not compared: the feed tells. `Partitions::with` ends with `update_deadlines`, so that each change of the
//! state sets `fresh_hit_until` again. One announcement does not set it to zero: the one that this process is due for a write of its
//! own ([`partition::hints`]). The store may merge it with that of another instance, so memory is compared with L2 in the
//! background, 5 ms later or after the writes that are under way (half a second at most).
//!
//! Else `read` goes on (see *A miss*). While L2 does not answer, [`Degrade`](crate::FailurePolicy::Degrade) serves in step 2 a value
//! that is only unproven (`stale_value`), and starts a probe that is due; never one of which a change was announced. With L1 off there
//! is no hit.
//!
//! # A miss
//!
//! Memory does not have the partition, or may not answer from it. `tokens.rs` (`read_further`), then nine files:
//!
//! 1. [`read`] (`read`) and [`partition::answer`] (`answer`): what memory knows to be current it answers: a pending change, an absence
//!    for a second ([`Lifetimes::negative_entry`](crate::Lifetimes)), while the feed is lost whatever was compared within a second. If only
//!    a touch or a read in the background is due, it answers and starts that. The rest is loaded; under `Bypass` nothing is, and values that
//!    are only unproven are served.
//! 2. [`fallback`] (`load_once`): waits for the load, at most for the operation timeout, and where memory has a value to degrade to only
//!    while L2 answers anybody. A handle that L2 has just failed, and that degrades, does not wait again for a second.
//! 3. [`load::single_flight`] (`start_load`): joins the load of the partition, or starts one, which no caller's end cancels. Before
//!    L2 is asked the feed's index has the partition, so that no change is missed. Where memory has a version, that alone is
//!    compared first (`confirm` in [`load::fetch`]).
//! 4. [`load::groups`]: what waits goes out together, up to 64 partitions to each server.
//! 5. [`l2::calls`] (`load`): one call of the store, which [`l2::attempts`] gives its timeout, its breaker and the hook's retries.
//! 6. The store. In Redis `store/redis/calls.rs`: `HGETALL` for each, and the server's `TIME` once; `store/redis/record.rs` leaves out
//!    what has ended or expired by that clock. A tombstone has a generation and no entries.
//! 7. [`load::fetch`] (`decode`, `merge`): decodes, and opens what is sealed; what cannot be opened is set apart. A session that is
//!    linked to users is taken only after their epochs (`merge_linked` in step 3).
//! 8. [`partition::merge`]: refused if the partition was signed out since the question, or memory has something newer by now; the read is
//!    then repeated. A higher generation drops the changes that were pending under the lower one; those that remain lie over what was
//!    read. If a change was announced meanwhile, the read is taken, and `read` loads once more.
//! 9. [`l1::table`] (`with`): keeps the partition if it has entries; those without are in a small table of their own.
//!
//! The answer is then `answer_as_read` ([`partition::answer`]). If L2 fails, `degrade` (step 2) says whether the request goes on: with
//! a value that is only unproven, else with [`Unavailable`](crate::Lookup::Unavailable).
//!
//! # A change
//!
//! `tokens/change.rs` (`insert`, `keep`, `change`), then nine files:
//!
//! 1. [`write`] (`change`): makes sure that the generation is known (`know_generation` in [`read`]), which asks L2 only if memory cannot
//!    vouch for it; reserves room in the budget; refuses what was signed out since the handle's first look. Then all readers of the process see it.
//! 2. [`write_behind::late_heads`]: it waits for the head of the response, but for no longer than a second. From a handle without a
//!    request, or one whose head is ready, it is queued at once.
//! 3. `layer/future.rs`: the head is ready. It waits, for the operation timeout at most, for what has to be in L2 before it
//!    ([`WriteMode::BeforeResponse`](crate::WriteMode::BeforeResponse), `Strict`, and removals); otherwise the guard's drop queues the
//!    change (`end` in `tokens/request.rs`).
//! 4. [`write_behind::drain`]: the task that writes. It takes up to four groups of 64 partitions, and repeats what failed after
//!    a back-off of 50 ms to a second. What L2 has not taken for 12 hours is given up.
//! 5. [`write_behind::group`] (`take_work`, and `next_commit` in [`partition::pending`]): what a partition sends next. It has one commit
//!    under way at a time, and one whose answer was lost is sent again with the same id.
//! 6. The store; in Redis `commit.lua`: refused if L2 has a higher generation, if the life has ended in which the change was made, or if the
//!    commit expects another version; done once for each id; and the version goes up.
//! 7. [`write_behind::settle`], [`partition::acks`]: memory follows the version, and those who wait are told.
//! 8. On the other instances [`coherence::events`]: the feed announces the key, and the index finds the partition. In Redis that is
//!    `CLIENT TRACKING`.
//! 9. [`partition::hints`]: it is invalidated. The next read is a miss, which compares the version.
//!
//! How old what they serve may be is `staleness_bound` (step 8): while the feed is alive the age of its last proof, half a second as
//! a rule, although a change is heard of within milliseconds; while it is lost a second, if L2 answers. *A gap* has what lies between.
//!
//! # A refresh
//!
//! From `tokens/acquire.rs` (`get_or_acquire`, which looks for a hit first), and `acquisition.rs` (`find`: neither memory nor L2 has a
//! token that will do), in nine files:
//!
//! 1. [`acquire::join`]: joins the flight for this token, or starts one ([`acquire::flights`]). A flight whose call has not begun ends with
//!    the last request that waits, unless it refreshes ahead of time; one whose call has begun goes on without any.
//! 2. [`acquire::flight`] (`acquire`): takes the lock, then the lease, and reads L2 again ([`acquire::look`], which writes pending changes
//!    first). What another instance has acquired is the answer. While another instance has the lease, it looks again after each pause of
//!    [`acquire::lease_wait`]. Where another lease is needed (there is a refresh token that it did not know of), it begins again.
//! 3. [`acquire::exclusion`]: the lock ([`acquire::redemption`]) and the lease, and how they end (`end_when_written`).
//! 4. [`acquire::ask`]: under the lease it waits for a call slot, reserves room, and asks the provider.
//! 5. [`acquire::lease`] (`guard`): renews the lease while that work runs, and lets it run only while the lease is held
//!    ([`acquire::gate`]).
//! 6. [`acquire::commit`]: queues the answer as an acquired batch, which memory does not show yet, and waits for L2.
//! 7. [`write_behind::group`]: sends it, as any change. A batch is a commit of its own, before other changes.
//! 8. The store; in Redis `acquire.lua`, `renew.lua`, `release.lua` for the lease, and `commit.lua`.
//! 9. [`partition::acks`] (`committed`): memory shows the tokens, and the flight learns that they are stored.
//!
//! Then the flight publishes the answer to all waiters (`publish`), and releases the lease.
//!
//! Two redemptions of one refresh token are prevented by, in this order: the flight, which requests of one token share; the lock, which flights
//! of one refresh token share; the lease, which instances share, and which is of the session's generation; reading L2 again once all
//! three are held; and the gate, which stops a call that has not sent its request yet. The lease does not end with the answer: it is renewed
//! until the commit has ended, and where L2 does not have the tokens then, it is asked for again until it has. The commit's condition
//! ([`partition::refresh`]: the refresh token's entry still has its version, or the token's own where there is none) prevents no call; it keeps
//! an answer from replacing a newer one. There is none if L2 could not be read right before the call.
//!
//! What happens when L2 fails:
//!
//! | | before the call | during the call | at the commit |
//! |---|---|---|---|
//! | under [`Strict`](crate::FailurePolicy::Strict) | the request fails | as below; a call that still waits for its slot is not made | the requests fail; the tokens are kept as below |
//! | L2 is busy: it lets this question wait in vain, and has meanwhile taken a change or given a lease of another | waits up to `lease_ttl` and the allowance, then the request fails; nothing is redeemed | as below | as below |
//! | L2 is away, or refuses | waits while another instance is known to hold the lease, and while the allowance lasts (not if a breaker is open); then the provider is asked without a lease | once the lease has ended, the work stands still while the allowance lasts, then goes on without a lease: an answer that is given up may be the only successor of the spent refresh token | memory shows the tokens once sending has failed; the lease, if there was one, is asked for until L2 has them |
//! | another instance took the lease over | | the work is given up if that instance has stored tokens; while it has not, this one waits | the commit's condition keeps the newer tokens |
//!
//! The failure hook's decision goes before the policy. So one refresh token can be redeemed twice
//!
//! - if L2 is away from an instance before its call for longer than the allowance, and it was not told before that the lease is held;
//! - if a lease ends while the request is with the provider, or before L2 has the answer: L2 was away from this instance for so long, or
//!   has lost the lease, or the process stood still or has ended;
//! - if a call is cut off by its timeout or by the end of its runtime, after the provider has got the request.
//!
//! [`Metadata::exclusive`](crate::Metadata) tells the caller of the first, and of a lease that was lost before the answer. With
//! [`Bypass`](crate::FailurePolicy::Bypass) there is neither lock nor lease, unless memory has a refresh token that L2 is to have.
//!
//! These waits share one allowance ([`runtime::bounded`]), the operation timeout: `wait_for_busy_l2` for what decides whether the
//! provider may be asked, which a busy L2 does not use up before the call, and `wait_for_l2` for the rest.
//!
//! # A sign-out
//!
//! `tokens/whole_session.rs` (`sign_out`; where the layer issues ids the handle becomes anonymous, and the head takes the cookie away), then eight files:
//!
//! 1. [`write`] (`sign_out_if`): ends it in memory, tells the application, and queues it. If L2 does not have it within the operation
//!    timeout, or sending fails, the journal takes it, if there is one ([`sign_out::owed`]), and the next start of the process sends it. Without a
//!    journal a kill after [`Pending`](crate::Durability::Pending) loses it.
//! 2. [`partition::sign_out`]: drops entries and pending changes. From here on all readers of this process see no tokens, and what was
//!    in progress is refused (`signed_out_since` in [`partition::observed`]): a call to the provider goes on, its answer is dropped, and its
//!    waiters get [`SignedOut`](crate::Error::SignedOut).
//! 3. [`write_behind::group`] (`take_work`): sends it alone, after a write of the partition that is under way and before all others, and again
//!    until L2 has it, with the pauses of [`write_behind::drain`].
//! 4. [`sign_out::session`] (`end_generation`): asks L2 for the generation to end, until that was answered once, and ends it; if L2 does not
//!    say which, it ends whatever L2 has. Then the caller is told, and the refresh tokens are revoked, if that is on.
//! 5. The store; in Redis `clear.lua`: removes the entries, and leaves a tombstone with the next generation for 24 hours.
//! 6. On the other instances [`coherence::events`]. The feed announces it as any change.
//! 7. [`partition::hints`]: their memory may not answer any more, as after a change, and as late; the next read compares, and finds the tombstone.
//! 8. [`write_behind::settle`]: what they have not written yet L2 answers with *stale*, and it is dropped; so it is by a read that finds a higher
//!    generation.
//!
//! # A gap
//!
//! Changes may have gone unheard, because the feed's connection hung, was lost or overflowed, or the machine slept (which `Engine::now` in
//! [`core`] notices by its two clocks). Six files:
//!
//! 1. The store; in Redis `store/redis/feed.rs`: asks every 500 ms for an answer on the connection that announces changes. What was told
//!    before the answer is complete (`FeedEvent::CompleteUntil`). Without an answer for a second, or when the connection ends, it tells `Lost`,
//!    and `Everything` once it is connected again. So a connection that hangs is believed for 1.5 seconds. What overflows is `Everything` alone.
//! 2. [`coherence::events`] (`handle_event`): moves how long the feed is believed, or begins an era. With `Everything` all users' epochs and the
//!    namespace's number are in doubt, too. A feed with one gap after the other is not believed ([`coherence::gaps`]).
//! 3. [`trust`]: a proof vouches for three seconds from when it was asked for. No event is needed to end the trust, so a task that stands
//!    still cannot prolong it.
//! 4. [`partition::answer`] (`is_coherent`): memory of an earlier era is compared when it is next read; while the feed is lost, each second.
//! 5. [`load::fetch`] (`confirm`): compares the version and the users' epochs; if they are the same, memory is of the new era.
//! 6. [`sign_out::all`] (`watch_number`): while the feed is lost the namespace's number is looked up each second.
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
//! | floor | what was known of a partition when a read of L2 began. After a sign-out, or if memory has become newer than what was read, the read is overtaken: [`partition::merge`] |
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
