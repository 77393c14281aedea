//! Engines that are broken on purpose, each of which the simulation has to notice.

use tower_token_cache::sabotage::Sabotage;

use super::{names, number, run::run};

/// Seeds within which it has to be noticed; most are within forty.
const SEEDS: u64 = 4000;

fn caught(sabotage: Sabotage) {
    names::names();
    let seeds = number("SIM_MUTATION_SEEDS").unwrap_or(SEEDS);
    let caught = (0..seeds).find_map(|seed| {
        let violation = run(seed, false, Some(sabotage)).violation?;
        Some((seed, violation))
    });
    match caught {
        Some((seed, violation)) => println!("{sabotage:?}: seed {seed}, {violation}"),
        None => panic!("{sabotage:?} goes unnoticed in {seeds} seeds"),
    }
}

#[test]
fn catches_a_replay_across_a_sign_out() {
    caught(Sabotage::ReplayAcrossSignOut);
}

#[test]
fn catches_an_unchecked_back_fill() {
    caught(Sabotage::BackFillUnchecked);
}

#[test]
fn catches_an_order_by_the_wall_clock() {
    caught(Sabotage::WallClockOrdering);
}

#[test]
fn catches_a_lease_without_compare_and_set() {
    caught(Sabotage::LeaseWithoutCompareAndSet);
}

#[test]
fn catches_a_lease_that_is_not_taken() {
    caught(Sabotage::LeaseNotTaken);
}

#[test]
fn catches_a_lease_that_is_not_renewed() {
    caught(Sabotage::LeaseNotRenewed);
}

#[test]
fn catches_a_feed_that_is_believed_for_ever() {
    caught(Sabotage::FeedBelievedForEver);
}

#[test]
fn catches_own_changes_that_are_not_compared() {
    caught(Sabotage::OwnChangeNotCompared);
}

#[test]
fn catches_a_hint_that_is_adopted() {
    caught(Sabotage::HintAdopted);
}

#[test]
fn catches_an_eviction_that_drops_changes() {
    caught(Sabotage::EvictionDropsPending);
}

#[test]
fn catches_a_sign_out_without_a_tombstone() {
    caught(Sabotage::SignOutWithoutTombstone);
}

#[test]
fn catches_a_commit_that_is_applied_twice() {
    caught(Sabotage::FreshCommitIds);
}

#[test]
fn catches_acquired_tokens_that_are_seen_early() {
    caught(Sabotage::AcquiredSeenEarly);
}

#[test]
fn catches_a_recovery_of_what_was_signed_out() {
    caught(Sabotage::RecoveryAfterSignOut);
}

#[test]
fn catches_an_absence_that_nobody_knows() {
    caught(Sabotage::AbsentWhenUnavailable);
}

#[test]
fn catches_versions_of_another_history() {
    caught(Sabotage::VersionsWithoutHistory);
}

#[test]
fn catches_a_shutdown_that_does_not_drain() {
    caught(Sabotage::ShutdownWithoutDrain);
}

#[test]
fn catches_a_user_whose_sessions_go_on() {
    caught(Sabotage::LinksIgnored);
}

#[test]
fn catches_a_number_that_ends_nothing() {
    caught(Sabotage::NumberIgnored);
}

#[test]
fn catches_a_sleep_that_is_not_noticed() {
    caught(Sabotage::SleepUnnoticed);
}

#[test]
fn catches_a_value_that_is_taken_without_compare_and_set() {
    caught(Sabotage::TakeWithoutCompareAndSet);
}

#[test]
fn catches_a_life_that_nobody_asks_for() {
    caught(Sabotage::LifeIgnored);
}
