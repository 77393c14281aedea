//! Checks any [`TokenStore`] against the [contract](super).
//!
//! Run [`all`], or single checks for a quicker answer. A check panics with the rule that the store
//! breaks. Each works on partitions of its own, in a namespace that is new with each [`Harness`],
//! so that the store may hold other data; what they leave behind ends within a day.
//!
//! ```
//! use tower_token_cache::store::conformance::{self, Harness};
//! use tower_token_cache::{Clock, MemoryStore, Timestamp};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let clock = Clock::manual(Timestamp::now());
//! let store = MemoryStore::new().with_clock(clock.clone());
//! conformance::all(&Harness::manual(store, clock)).await;
//! # }
//! ```
//!
//! A store that takes the time from its server is checked with [`Harness::real_time`], which
//! really waits: about half a minute for all checks.

mod commits;
mod epochs;
mod expectations;
mod feeds;
mod generations;
mod harness;
mod leases;
mod lifetimes;
mod relocations;

pub use self::commits::*;
pub use self::epochs::*;
pub use self::expectations::*;
pub use self::feeds::*;
pub use self::generations::*;
pub use self::harness::Harness;
pub use self::leases::*;
pub use self::lifetimes::*;
pub use self::relocations::*;
use super::TokenStore;

/// Runs every check, one after the other.
pub async fn all<S: TokenStore>(harness: &Harness<S>) {
    absent_partitions_load_empty(harness).await;
    values_come_back_as_they_were(harness).await;
    commits_change_only_what_they_name(harness).await;
    versions_rise_by_one(harness).await;
    partitions_stand_alone(harness).await;
    groups_are_answered_in_order(harness).await;
    loads_are_answered_in_order(harness).await;
    repeated_commits_are_not_applied_again(harness).await;
    sixteen_commits_are_remembered(harness).await;
    concurrent_commits_all_survive(harness).await;
    ids_tell_states_apart(harness).await;
    late_repetitions_spare_what_is_newer(harness).await;
    if harness.keeps_lives() {
        nothing_goes_on_in_another_life(harness).await;
        lives_last_from_the_first_commit(harness).await;
    }

    sign_out_is_final(harness).await;
    sign_out_of_an_absent_partition_is_final(harness).await;
    repeated_sign_out_spares_the_new_session(harness).await;
    unconditional_sign_out_always_counts(harness).await;
    sign_outs_are_idempotent(harness).await;
    lower_generations_are_replaced(harness).await;
    absent_partitions_take_any_generation(harness).await;
    tombstones_outlive_the_partition(harness).await;

    lifetime_since_write_ends(harness).await;
    commits_renew_the_lifetime_since_write(harness).await;
    touches_renew_the_sliding_lifetime(harness).await;
    loads_do_not_renew(harness).await;
    touches_stop_at_the_hard_end(harness).await;
    touches_change_nothing_that_has_ended(harness).await;
    commits_do_not_renew_the_maximal_age(harness).await;
    entries_expire_alone(harness).await;
    partitions_end_with_their_last_entry(harness).await;
    without_lifetimes_there_is_no_end(harness).await;

    expectations_are_compared(harness).await;
    conflicts_are_not_remembered(harness).await;
    expired_entries_are_expected_as_absent(harness).await;
    entries_of_the_past_are_expected_as_absent(harness).await;
    conflicts_in_a_group_stand_alone(harness).await;
    concurrent_expectations_have_one_winner(harness).await;

    moves_sign_the_old_partition_out(harness).await;
    moves_of_nothing_leave_a_tombstone(harness).await;
    moves_of_what_has_changed_conflict(harness).await;
    moves_compare_what_they_expect(harness).await;
    repeated_moves_are_not_made_again(harness).await;
    moves_to_a_signed_out_partition_are_stale(harness).await;
    concurrent_moves_have_one_winner(harness).await;

    epochs_never_fall(harness).await;
    absent_epochs_begin(harness).await;
    raised_partitions_hold_nothing(harness).await;
    concurrent_raises_all_count(harness).await;
    epochs_are_never_kept_shorter(harness).await;

    leases_have_one_owner(harness).await;
    leases_obey_their_owner_alone(harness).await;
    leases_run_out(harness).await;
    leases_stand_alone(harness).await;
    leases_outlive_a_sign_out(harness).await;
    concurrent_leases_have_one_owner(harness).await;

    changes_are_told_before_the_proof(harness).await;
    changes_of_all_kinds_are_told(harness).await;
    many_changes_are_told_to_all(harness).await;
    only_changes_are_told(harness).await;
}
