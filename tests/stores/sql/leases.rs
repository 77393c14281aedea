//! Leases of many sessions, which go out in groups.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tower_token_cache::store::{EntryId, Lease, LeaseState};
use tower_token_cache::{StoreErrorKind, TokenStore};

use super::server::{Foreign, PATIENCE, Server, hex, on_both, partition};

on_both! {
    each_of_many_is_answered_for_itself
    one_that_is_dropped_takes_no_other_with_it
    one_that_somebody_holds_up_holds_no_other_up
}

const MINUTE: Duration = Duration::from_secs(60);

/// More than a group, and than there are connections.
const MANY: u8 = 200;

fn lease(number: u8, owner: u8) -> Lease {
    let partition = partition(&format!("session {number}"));
    Lease::new(partition, EntryId::from([number; 16]), [owner; 16])
}

async fn each_of_many_is_answered_for_itself<S: Server>() {
    let server = S::shared();
    let (store, _) = server.store(PATIENCE).await;
    // Two owners for each, at the same time: one gets it.
    let asks = (0..2 * u32::from(MANY)).map(|at| {
        let lease = lease((at / 2) as u8, 1 + (at % 2) as u8);
        let store = &store;
        async move { store.acquire_lease(&lease, MINUTE).await.unwrap() }
    });
    let states = join_all(asks).await;
    let releases = states.chunks(2).enumerate().flat_map(|(number, states)| {
        let granted = |state: &LeaseState| *state == LeaseState::Granted;
        assert_eq!(states.iter().filter(|it| granted(it)).count(), 1);
        let store = &store;
        [1, 2].map(|owner| async move {
            let released = store.release_lease(&lease(number as u8, owner)).await;
            assert_eq!(released.unwrap(), granted(&states[usize::from(owner) - 1]));
        })
    });
    join_all(releases).await;
    let again = (0..MANY).map(async |number| store.acquire_lease(&lease(number, 3), MINUTE).await);
    for state in join_all(again).await {
        assert_eq!(state.unwrap(), LeaseState::Granted);
    }
}

async fn one_that_is_dropped_takes_no_other_with_it<S: Server>() {
    let server = S::shared();
    let (store, _) = server.store(PATIENCE).await;
    let store = Arc::new(store);
    let ask = |number| {
        let store = store.clone();
        tokio::spawn(async move { store.acquire_lease(&lease(number, 1), MINUTE).await })
    };
    let asks: Vec<_> = (0..MANY).map(ask).collect();
    let (dropped, kept): (Vec<_>, Vec<_>) = asks
        .into_iter()
        .enumerate()
        .partition(|(number, _)| number % 3 > 0);
    // At whatever each of them waits for just then.
    for (_, ask) in dropped {
        tokio::task::yield_now().await;
        ask.abort();
    }
    for (_, ask) in kept {
        assert_eq!(ask.await.unwrap().unwrap(), LeaseState::Granted);
    }
}

/// A row of one is locked, by a transaction that stands still.
async fn one_that_somebody_holds_up_holds_no_other_up<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    store
        .acquire_lease(&lease(0, 1), Duration::ZERO)
        .await
        .unwrap();
    let id = hex(&lease(0, 1).partition, &server.url());
    // By the whole key: a range would hold up what is to be inserted into it.
    let entry = match server.url().starts_with("postgres") {
        true => format!("'\\x{}'", "00".repeat(16)),
        false => format!("x'{}'", "00".repeat(16)),
    };
    let row = format!("partition_id = {id} AND entry_id = {entry}");
    let locked = format!("BEGIN; SELECT ends_at FROM {prefix}leases WHERE {row} FOR UPDATE");
    let foreign = Foreign::after(&*server, &locked);
    let hasty = S::build(&server.url(), &prefix, Duration::from_secs(1)).unwrap();
    let asks = (0..20).map(async |number| hasty.acquire_lease(&lease(number, 2), MINUTE).await);
    let mut states = join_all(asks).await.into_iter();
    let held_up = states.next().unwrap().unwrap_err();
    assert_eq!(held_up.kind(), StoreErrorKind::Timeout);
    for state in states {
        assert_eq!(state.unwrap(), LeaseState::Granted);
    }
    foreign.end("ROLLBACK");
}
