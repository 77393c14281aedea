//! Checks any [`TokenStore`] against the [contract](super).
//!
//! Run [`all`], or [`conformance_tests!`](crate::conformance_tests) for a test of each check, or single checks. A
//! check panics with the rule that the store breaks. Each works on partitions of its own, in a namespace that is
//! new with each [`Harness`], so that the store may hold other data; what they leave behind ends within a day.
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

mod cas;
mod commits;
mod epochs;
mod expectations;
mod feeds;
mod generations;
mod harness;
mod leases;
mod lifetimes;
mod movable;
mod relocations;

pub use self::cas::cas_store;
pub use self::commits::*;
pub use self::epochs::*;
pub use self::expectations::*;
pub use self::feeds::*;
pub use self::generations::*;
pub use self::harness::Harness;
pub use self::leases::*;
pub use self::lifetimes::*;
pub use self::movable::movable;
pub use self::relocations::*;
use super::TokenStore;

/// Makes a `#[test]` of each check, of its name. The argument is the [`Harness`] of that test; it may await, and
/// is made anew for each.
///
/// ```
/// # #[allow(unnameable_test_items)]
/// # fn main() {
/// mod my_store {
///     use tower_token_cache::store::conformance::Harness;
///     use tower_token_cache::{Clock, MemoryStore, Timestamp};
///
///     fn harness() -> Harness<MemoryStore> {
///         let clock = Clock::manual(Timestamp::now());
///         Harness::manual(MemoryStore::new().with_clock(clock.clone()), clock)
///     }
///
///     tower_token_cache::conformance_tests!(harness());
/// }
/// # }
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::__conformance_checks! { @each tests ($harness) }
    };
}

/// What is made of the list of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    (@tests ($harness:expr) $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::store::conformance::block_on(async {
                    $crate::store::conformance::$check(&$harness).await;
                });
            }
        )*
    };
    (@run ($harness:expr) $($check:ident)*) => {
        $(
            let named = Named(stringify!($check));
            $check($harness).await;
            drop(named);
        )*
    };
    (@names () $($check:ident)*) => {
        &[$(stringify!($check)),*]
    };
    (@each $what:ident $argument:tt) => {
        $crate::__conformance_checks! {
            @$what $argument

            absent_partitions_load_empty
            values_come_back_as_they_were
            commits_change_only_what_they_name
            versions_rise_by_one
            partitions_stand_alone
            groups_are_answered_in_order
            loads_are_answered_in_order
            repeated_commits_are_not_applied_again
            sixteen_commits_are_remembered
            concurrent_commits_all_survive
            ids_tell_states_apart
            late_repetitions_spare_what_is_newer
            bases_are_hints
            nothing_goes_on_in_another_life
            lives_last_from_the_first_commit

            sign_out_is_final
            sign_out_of_an_absent_partition_is_final
            repeated_sign_out_spares_the_new_session
            unconditional_sign_out_always_counts
            sign_outs_are_idempotent
            lower_generations_are_replaced
            absent_partitions_take_any_generation
            tombstones_outlive_the_partition

            lifetime_since_write_ends
            commits_renew_the_lifetime_since_write
            touches_renew_the_sliding_lifetime
            loads_do_not_renew
            touches_stop_at_the_hard_end
            touches_change_nothing_that_has_ended
            commits_do_not_renew_the_maximal_age
            entries_expire_alone
            partitions_end_with_their_last_entry
            without_lifetimes_there_is_no_end

            expectations_are_compared
            conflicts_are_not_remembered
            expired_entries_are_expected_as_absent
            entries_of_the_past_are_expected_as_absent
            conflicts_in_a_group_stand_alone
            concurrent_expectations_have_one_winner

            moves_sign_the_old_partition_out
            moves_of_nothing_leave_a_tombstone
            moves_of_what_has_changed_conflict
            moves_compare_what_they_expect
            repeated_moves_are_not_made_again
            moves_to_a_signed_out_partition_are_stale
            concurrent_moves_have_one_winner

            epochs_never_fall
            epochs_say_when_they_rose
            absent_epochs_begin
            raised_partitions_hold_nothing
            concurrent_raises_all_count
            epochs_are_never_kept_shorter

            leases_have_one_owner
            leases_obey_their_owner_alone
            leases_run_out
            leases_stand_alone
            leases_outlive_a_sign_out
            concurrent_leases_have_one_owner

            changes_are_told_before_the_proof
            changes_of_all_kinds_are_told
            new_lives_are_told
            many_changes_are_told_to_all
            only_changes_are_told
        }
    };
}

/// The names of all checks.
pub const CHECKS: &[&str] = __conformance_checks! { @each names () };

/// Runs every check, one after the other. One that fails is named on the standard error stream.
pub async fn all<S: TokenStore>(harness: &Harness<S>) {
    __conformance_checks! { @each run (harness) }
}

/// Names a check that panics.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the store does not pass the check `{}`", self.0);
        }
    }
}

/// Runs one check, for the tests that [`conformance_tests!`] makes.
#[doc(hidden)]
pub fn block_on(check: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(check),
        Err(error) => panic!("no runtime: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::CHECKS;

    /// A check that is in no list is run by nothing.
    #[test]
    fn all_checks_are_in_the_list() {
        let sources = [
            include_str!("conformance/commits.rs"),
            include_str!("conformance/epochs.rs"),
            include_str!("conformance/expectations.rs"),
            include_str!("conformance/feeds.rs"),
            include_str!("conformance/generations.rs"),
            include_str!("conformance/leases.rs"),
            include_str!("conformance/lifetimes.rs"),
            include_str!("conformance/relocations.rs"),
        ];
        let lines = sources.iter().flat_map(|source| source.lines());
        let checks = lines.filter_map(|line| line.strip_prefix("pub async fn ")?.split_once('<'));
        let mut checks: Vec<_> = checks.map(|(name, _)| name).collect();
        let mut listed = CHECKS.to_vec();
        checks.sort_unstable();
        listed.sort_unstable();
        assert_eq!(checks, listed);
    }
}
