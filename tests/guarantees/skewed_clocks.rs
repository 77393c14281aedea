//! Clocks of instances that are an hour apart, or are set (guarantees 3 and 13).

use std::io;
use std::time::Duration;

use tower_token_cache::{Clock, Durability, MemoryStore, Timestamp, Token, TokenSet};

use common::issuer::set;
use common::support::*;

const HOUR: Duration = Duration::from_secs(3600);

/// What was changed while L2 could not be asked is from before a sign-out, whatever the clock of its
/// instance says.
#[tokio::test]
async fn a_sign_out_wins_over_a_change_by_a_clock_that_is_ahead() {
    let store = seeded().await;
    let right = cache(store.clone());
    let ahead = Clock::manual(Timestamp::now().saturating_add(HOUR));
    let ahead = builder(store.clone()).clock(ahead).build().unwrap();
    assert_eq!(access(&ahead.tokens(session("other")), "graph").await, None);
    store.set_down(true);
    let tokens = ahead.tokens(session("s"));
    tokens.insert("mail", token("late")).await.unwrap();
    store.set_down(false);
    let ended = right.tokens(session("s")).sign_out().await.unwrap();
    assert_eq!(ended, Durability::Stored);
    // Far away it may have been there before the sign-out, and has gone with it.
    drained(&ahead).await;
    assert_eq!(stored(store, "s", "mail").await, None);
    if common::far::latency().is_zero() {
        assert_eq!(ahead.stats().signed_out_changes, 1);
    }
}

/// The same where that clock is set between the change and the sign-out: an instance that has never
/// asked L2 can tell only by the time which of them came first.
#[tokio::test]
async fn a_sign_out_wins_over_an_earlier_change_although_the_clock_is_set() {
    let now = Timestamp::now();
    let times = [now.saturating_sub(HOUR), now, now.saturating_add(HOUR)];
    for (then, later) in times.iter().flat_map(|a| times.map(|b| (*a, b))) {
        for everybody in [false, true] {
            let memory = MemoryStore::new();
            let (store, away) = (TestStore::new(memory.clone()), TestStore::new(memory));
            let (right, clock) = (cache(store.clone()), Clock::manual(then));
            let set = builder(away.clone()).clock(clock.clone()).build().unwrap();
            if !everybody {
                // It knows the number of the namespace.
                assert_eq!(access(&set.tokens(session("other")), "graph").await, None);
            }
            away.set_down(true);
            let tokens = set.tokens(session("s"));
            tokens.insert("mail", token("early")).await.unwrap();
            clock.set(later);
            clock.advance(Duration::from_secs(1));
            match everybody {
                true => right.sign_out_all().await.unwrap(),
                false => {
                    let ended = right.tokens(session("s")).sign_out().await.unwrap();
                    assert_eq!(ended, Durability::Stored);
                }
            }
            away.set_down(false);
            drained(&set).await;
            let kept = access(&right.tokens(session("s")), "mail").await;
            assert_eq!(kept, None, "{then:?} {later:?}, everybody: {everybody}");
        }
    }
}

/// The provider is left alone after a failure for as long as was said, not for an hour more.
#[tokio::test]
async fn a_pause_by_a_clock_that_is_ahead_is_no_longer_than_it_was_to_be() {
    for elsewhere in [false, true] {
        let store = TestStore::default();
        let (now, ahead) = (Timestamp::now(), Timestamp::now().saturating_add(HOUR));
        let clock = Clock::manual(ahead);
        let on = |clock: &Clock| builder(store.clone()).clock(clock.clone()).build().unwrap();
        let failing = on(&clock);
        let tokens = failing.tokens(session("s"));
        let old = Token::new("old").with_expires_at(Timestamp::from_millis(1));
        let old = TokenSet::from(old).with_refresh_token("r0");
        tokens.insert("graph", old).await.unwrap();
        let fails = |_| async { Err::<TokenSet, _>(io::Error::other("503")) };
        tokens.get_or_acquire("graph", fails).await.unwrap_err();
        let right = match elsewhere {
            true => on(&Clock::manual(now)),
            false => failing,
        };
        clock.set(now);
        let works = |_| async { Ok::<_, io::Error>(set(1)) };
        let tokens = right.tokens(session("s"));
        let again = tokens.get_or_acquire("graph", works).await;
        assert_eq!(
            again.unwrap().access_token(),
            "a1",
            "elsewhere: {elsewhere}"
        );
    }
}

/// Everybody's sign-out ends what was changed before it, and nothing else, where an instance did not know
/// the number yet: whatever the clock of who called it says.
#[tokio::test]
async fn sign_out_all_by_a_clock_that_is_off_ends_what_was_before_it() {
    let now = Timestamp::now();
    for off in [now.saturating_sub(HOUR), now, now.saturating_add(HOUR)] {
        for before in [true, false] {
            let clock = Clock::manual(now);
            let memory = MemoryStore::new().with_clock(clock.clone());
            let on = |store: &TestStore, clock: Clock| builder(store.clone()).clock(clock).build();
            let (store, ignorant) = (TestStore::new(memory.clone()), TestStore::new(memory));
            ignorant.set_down(true);
            let raiser = on(&store, Clock::manual(off)).unwrap();
            let cache = on(&ignorant, clock.clone()).unwrap();
            if !before {
                raiser.sign_out_all().await.unwrap();
                clock.advance(Duration::from_secs(1));
            }
            let tokens = cache.tokens(session("s"));
            tokens.insert("mail", token("new")).await.unwrap();
            clock.advance(Duration::from_secs(1));
            if before {
                raiser.sign_out_all().await.unwrap();
            }
            ignorant.set_down(false);
            drained(&cache).await;
            let kept = access(&on(&store, clock).unwrap().tokens(session("s")), "mail").await;
            assert_eq!(kept.is_none(), before, "at {off:?}, before: {before}");
        }
    }
}
