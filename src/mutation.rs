//! Ways to break the engine on purpose, for the tests that must notice. Only the private feature `__tests` has them:
//! elsewhere they are compiled out.
#![cfg_attr(not(feature = "__tests"), allow(unreachable_pub))]

#[cfg(feature = "__tests")]
use std::cell::Cell;
#[cfg(feature = "__tests")]
use std::sync::OnceLock;

/// One way to break it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Changes from before a sign-out are replayed under the generation after it.
    ReplayAcrossSignOut,
    /// A load that a commit, a sign-out or an announcement has overtaken enters memory.
    BackFillUnchecked,
    /// Memory keeps the token that expires later, whatever L2's versions say.
    WallClockOrdering,
    /// What was acquired is committed on no condition.
    LeaseWithoutCompareAndSet,
    /// The lease is not asked for.
    LeaseNotTaken,
    /// The lease is not renewed.
    LeaseNotRenewed,
    /// What the feed has told once is believed for ever.
    FeedBelievedForEver,
    /// An answer that came on another connection than what the feed tells is taken for its proof.
    AnswerTakenForProof,
    /// What this process has written is not compared when the feed tells of it.
    OwnChangeNotCompared,
    /// What the feed tells is taken for the next version, and not compared.
    HintAdopted,
    /// A partition with changes that wait is evicted like any other.
    EvictionDropsPending,
    /// A sign-out removes the entries and leaves the generation as it is.
    SignOutWithoutTombstone,
    /// A commit whose answer was lost goes out again under another id.
    FreshCommitIds,
    /// Acquired tokens are seen before L2 has them.
    AcquiredSeenEarly,
    /// What L2 has lost is written to it again, whatever was missed meanwhile.
    RecoveryAfterSignOut,
    /// What is not known is said to be absent.
    AbsentWhenUnavailable,
    /// Memory takes the same version for the same state, also when L2 has lost data and counts again.
    VersionsWithoutHistory,
    /// A shutdown does not wait for what is to be written.
    ShutdownWithoutDrain,
    /// Sessions go on when their user is signed out.
    LinksIgnored,
    /// What memory has goes on under a later number of the namespace.
    NumberIgnored,
    /// Changes go on in whatever life L2 has, or begin another.
    LifeIgnored,
    /// The time in which the machine slept has not passed.
    SleepUnnoticed,
    /// A session value is taken on no condition.
    TakeWithoutCompareAndSet,
    /// A session value that is taken leaves no mark.
    TakenWithoutMark,
    /// A commit that L2 has given up, for the sake of others or because it is read-only, counts as applied.
    RefusalTakenForSuccess,
    /// A commit without an answer is believed not to have happened, nor to happen later: its changes go into another.
    LateCommitForgotten,
    /// Changes whose numbers become visible after later ones are not told.
    #[cfg(feature = "mysql")]
    LateNumbersSkipped,
}

#[cfg(feature = "__tests")]
thread_local! {
    static CHOSEN: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Breaks all engines that run on this thread, or none.
#[cfg(feature = "__tests")]
pub fn choose(mutation: Option<Mutation>) {
    CHOSEN.set(mutation);
}

#[cfg(feature = "__tests")]
static CHOSEN_FOR_ALL: OnceLock<Mutation> = OnceLock::new();

/// Breaks all engines of this process until it ends. The first choice counts.
#[cfg(feature = "__tests")]
pub fn choose_for_all(mutation: Mutation) {
    // A later choice has no effect.
    let _ = CHOSEN_FOR_ALL.set(mutation);
}

/// How the engines of this thread are broken.
#[cfg(feature = "__tests")]
pub fn chosen() -> Option<Mutation> {
    CHOSEN.get()
}

/// Whether the engine is to be broken in this way.
#[cfg(feature = "__tests")]
pub(crate) fn is(mutation: Mutation) -> bool {
    CHOSEN.get() == Some(mutation) || CHOSEN_FOR_ALL.get() == Some(&mutation)
}

/// Never.
#[cfg(not(feature = "__tests"))]
pub(crate) const fn is(_: Mutation) -> bool {
    false
}
