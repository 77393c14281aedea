//! Engines that are broken on purpose, each of which the simulation has to notice.

use tower_token_cache::mutation::Mutation;

use super::{names, number, run::run};

/// Seeds within which it has to be noticed; most are within forty.
const SEEDS: u64 = 4000;

fn caught(mutation: Mutation) {
    names::names();
    if let Some(seed) = number("SIM_SEED") {
        let outcome = run(seed, true, Some(mutation));
        outcome.log.iter().for_each(|line| println!("{line}"));
        assert!(outcome.violation.is_some(), "seed {seed}");
        return;
    }
    let seeds = number("SIM_MUTATION_SEEDS").unwrap_or(SEEDS);
    let caught = (0..seeds).find_map(|seed| {
        let violation = run(seed, false, Some(mutation)).violation?;
        Some((seed, violation))
    });
    match caught {
        Some((seed, violation)) => println!("{mutation:?}: seed {seed}, {violation}"),
        None => panic!("{mutation:?} goes unnoticed in {seeds} seeds"),
    }
}

#[test]
fn catches_a_replay_across_a_sign_out() {
    caught(Mutation::ReplayAcrossSignOut);
}

#[test]
fn catches_an_unchecked_back_fill() {
    caught(Mutation::BackFillUnchecked);
}

#[test]
fn catches_an_order_by_the_wall_clock() {
    caught(Mutation::WallClockOrdering);
}

#[test]
fn catches_a_lease_without_compare_and_set() {
    caught(Mutation::LeaseWithoutCompareAndSet);
}

#[test]
fn catches_a_lease_that_is_not_taken() {
    caught(Mutation::LeaseNotTaken);
}

#[test]
fn catches_a_lease_that_is_not_renewed() {
    caught(Mutation::LeaseNotRenewed);
}

#[test]
fn catches_a_feed_that_is_believed_for_ever() {
    caught(Mutation::FeedBelievedForEver);
}

#[test]
fn catches_own_changes_that_are_not_compared() {
    caught(Mutation::OwnChangeNotCompared);
}

#[test]
fn catches_a_hint_that_is_adopted() {
    caught(Mutation::HintAdopted);
}

#[test]
fn catches_an_eviction_that_drops_changes() {
    caught(Mutation::EvictionDropsPending);
}

#[test]
fn catches_a_sign_out_without_a_tombstone() {
    caught(Mutation::SignOutWithoutTombstone);
}

#[test]
fn catches_a_commit_that_is_applied_twice() {
    caught(Mutation::FreshCommitIds);
}

#[test]
fn catches_acquired_tokens_that_are_seen_early() {
    caught(Mutation::AcquiredSeenEarly);
}

#[test]
fn catches_a_recovery_of_what_was_signed_out() {
    caught(Mutation::RecoveryAfterSignOut);
}

#[test]
fn catches_an_absence_that_nobody_knows() {
    caught(Mutation::AbsentWhenUnavailable);
}

#[test]
fn catches_versions_of_another_history() {
    caught(Mutation::VersionsWithoutHistory);
}

#[test]
fn catches_a_shutdown_that_does_not_drain() {
    caught(Mutation::ShutdownWithoutDrain);
}

#[test]
fn catches_a_user_whose_sessions_go_on() {
    caught(Mutation::LinksIgnored);
}

#[test]
fn catches_a_number_that_ends_nothing() {
    caught(Mutation::NumberIgnored);
}

#[test]
fn catches_a_sleep_that_is_not_noticed() {
    caught(Mutation::SleepUnnoticed);
}

#[test]
fn catches_a_value_that_is_taken_without_compare_and_set() {
    caught(Mutation::TakeWithoutCompareAndSet);
}

#[test]
fn catches_a_refusal_that_is_taken_for_success() {
    caught(Mutation::RefusalTakenForSuccess);
}

#[test]
fn catches_a_late_commit_that_is_forgotten() {
    caught(Mutation::LateCommitForgotten);
}

#[test]
fn catches_late_numbers_that_are_skipped() {
    caught(Mutation::LateNumbersSkipped);
}

#[test]
fn catches_a_life_that_nobody_asks_for() {
    caught(Mutation::LifeIgnored);
}
