//! Clocks of servers that step. A clock that is set back by an hour is one by which all that is stored is an hour later.

use std::time::Duration;

use common::feed::Listener;
use common::store::{commit_of, load_one};
use tower_token_cache::TokenStore;
use tower_token_cache::store::{CommitId, EntryId, Lease, LeaseState, Outcome};

use super::server::{PATIENCE, Server, on_both, partition, send, version};

on_both! {
    a_clock_that_steps_brings_nothing_back_and_loses_nothing
}

const HOUR: i64 = 3_600_000;
const MINUTE: Duration = Duration::from_secs(60);

/// The server's clock is so many milliseconds later from now on.
fn step(server: &impl Server, prefix: &str, by: i64) {
    let tables = [
        (
            "partitions",
            &[
                "created_at",
                "cleared_at",
                "hard_end",
                "idle_end",
                "last_expiry",
            ][..],
        ),
        ("entries", &["expires_at"]),
        ("leases", &["ends_at"]),
    ];
    for (table, columns) in tables {
        // What has ended for ever is at 0.
        let each = columns
            .iter()
            .map(|it| format!("{it} = CASE WHEN {it} > 0 THEN {it} - ({by}) ELSE {it} END"));
        let each = each.collect::<Vec<_>>().join(", ");
        server.query(&format!("UPDATE {prefix}{table} SET {each}"));
    }
}

async fn a_clock_that_steps_brings_nothing_back_and_loses_nothing<S: Server>() {
    let server = S::shared();
    for by in [HOUR, -HOUR] {
        let (store, prefix) = server.store(PATIENCE).await;
        let [kept, out, short] = ["kept", "out", "short"].map(partition);
        for name in [&kept, &out] {
            version(send(&store, &commit_of(name, [1; 8], 1, "value")).await);
        }
        let mut half = commit_of(&short, [1; 8], 1, "value");
        half.lifetime.since_creation = Some(30 * MINUTE);
        version(send(&store, &half).await);
        store.clear(&out, None, CommitId([9; 8])).await.unwrap();
        let lease = |owner| Lease::new(kept.clone(), EntryId::from([1; 16]), [owner; 16]);
        let take = async |owner| store.acquire_lease(&lease(owner), MINUTE).await.unwrap();
        assert_eq!(take(1).await, LeaseState::Granted);
        let mut listener = Listener::on(&store, "test").await;

        step(&*server, &prefix, by);
        let found = load_one(&store, &out).await.unwrap();
        assert_eq!((found.generation, found.entries.len()), (1, 0));
        let late = send(&store, &commit_of(&out, [2; 8], 1, "late"))
            .await
            .unwrap();
        assert_eq!(late, Outcome::Stale { generation: 1 });
        assert_eq!(load_one(&store, &kept).await.unwrap().entries.len(), 1);
        assert_eq!(
            version(send(&store, &commit_of(&kept, [2; 8], 1, "more")).await),
            2
        );
        assert!(listener.until_now().await.names(&kept));
        // As documented: what has an end ends earlier or later by as much.
        let remaining = load_one(&store, &short).await.unwrap().remaining.hard;
        let renewed = store.renew_lease(&lease(1), MINUTE).await.unwrap();
        if by > 0 {
            assert_eq!(remaining, None, "it has ended");
            assert!(!renewed, "its holder learns of it");
            assert_eq!(take(2).await, LeaseState::Granted);
        } else {
            assert!(remaining > Some(80 * MINUTE), "{remaining:?}");
            assert!(renewed);
            // It is as long as it is to be again.
            let held = take(2).await;
            assert!(
                matches!(held, LeaseState::Held { remaining } if remaining <= MINUTE),
                "{held:?}"
            );
        }
        step(&*server, &prefix, -by);
        let found = load_one(&store, &out).await.unwrap();
        assert_eq!((found.generation, found.entries.len()), (1, 0));
        assert_eq!(load_one(&store, &kept).await.unwrap().version, 2);
    }
}
