//! What happens to servers, and what others do in them.

use std::time::{Duration, Instant};

use common::feed::Listener;
use common::proxy::{Mode, Proxy};
use common::store::{commit_of, load_one};
use tower_token_cache::store::{CommitId, EntryId, Lease, LeaseState, Origin};
use tower_token_cache::{StoreErrorKind, TokenStore};

use super::server::{Foreign, PATIENCE, Server, hex, on_both, partition, send, version};

on_both! {
    what_was_acknowledged_outlives_a_crash
    a_server_that_hangs_costs_the_time_that_is_allowed
    a_row_that_another_holds_costs_its_own_partition_alone
    a_deadlock_is_resolved
    an_answer_that_is_lost_is_asked_for_again
    a_dropped_operation_leaves_no_answer_behind
    a_plan_that_is_late_is_not_carried_out
    a_runtime_that_ends_takes_its_connections_along
    connections_are_bounded
    what_is_over_is_freed
    damaged_rows_are_passed_over_and_replaced
}

const SECOND: Duration = Duration::from_secs(1);

async fn what_was_acknowledged_outlives_a_crash<S: Server>() {
    let mut server = S::start();
    let (store, _) = server.store(SECOND).await;
    let (kept, ended) = (partition("kept"), partition("ended"));
    for partition in [&kept, &ended] {
        send(&store, &commit_of(partition, [1; 8], 1, "value"))
            .await
            .unwrap();
    }
    store.clear(&ended, None, CommitId([2; 8])).await.unwrap();
    let mut listener = Listener::on(&store, "test").await;
    server.kill();
    listener.until_lost().await;
    let failed = load_one(&store, &kept).await.unwrap_err();
    assert_eq!(failed.kind(), StoreErrorKind::Unreachable);
    server.restart();
    // Connections of before cost no error.
    let loaded = load_one(&store, &kept).await.unwrap();
    assert_eq!((loaded.version, loaded.entries.len()), (1, 1));
    assert_eq!(load_one(&store, &ended).await.unwrap().generation, 1);
    assert!(listener.until_now().await.everything);
    assert_eq!(
        version(send(&store, &commit_of(&kept, [3; 8], 1, "value")).await),
        2
    );
    assert!(listener.until_now().await.names(&kept));
}

async fn a_server_that_hangs_costs_the_time_that_is_allowed<S: Server>() {
    let server = S::start();
    let (store, _) = server.store(SECOND).await;
    let a = partition("a");
    send(&store, &commit_of(&a, [1; 8], 1, "value"))
        .await
        .unwrap();
    let mut listener = Listener::on(&store, "test").await;
    server.hang();
    let asked = Instant::now();
    let late = load_one(&store, &a).await.unwrap_err();
    assert_eq!(late.kind(), StoreErrorKind::Timeout);
    let late = send(&store, &commit_of(&a, [2; 8], 1, "value"))
        .await
        .unwrap_err();
    assert_eq!(late.kind(), StoreErrorKind::Timeout);
    assert!(asked.elapsed() < 5 * SECOND, "{:?}", asked.elapsed());
    listener.until_lost().await;
    server.wake();
    let again = send(&store, &commit_of(&a, [2; 8], 1, "value")).await;
    assert_eq!(version(again), 2);
    assert!(listener.until_now().await.everything);
}

async fn a_row_that_another_holds_costs_its_own_partition_alone<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(SECOND).await;
    let (held, free) = (partition("held"), partition("free"));
    for partition in [&held, &free] {
        send(&store, &commit_of(partition, [1; 8], 1, "value"))
            .await
            .unwrap();
    }
    let others: Vec<_> = (0..12)
        .map(|number| partition(&format!("free {number}")))
        .collect();
    let group = |id, is_put: bool| -> Vec<_> {
        let each = others.iter().map(|partition| {
            let mut commit = commit_of(partition, [id; 8], 1, "value");
            commit.changes[0].put.take_if(|_| !is_put);
            commit
        });
        each.collect()
    };
    for outcome in store.commit(&group(1, true)).await {
        version(outcome);
    }
    let id = hex(&held, &server.url());
    let holds = format!(
        "BEGIN; SELECT 1 FROM {prefix}partitions WHERE id = {id} FOR UPDATE; \
         SELECT 1 FROM {prefix}entries WHERE partition_id = {id} FOR UPDATE"
    );
    let foreign = Foreign::after(&*server, &holds);
    let asked = Instant::now();
    let late = send(&store, &commit_of(&held, [2; 8], 1, "value"))
        .await
        .unwrap_err();
    assert_eq!(late.kind(), StoreErrorKind::Timeout);
    assert!(asked.elapsed() < 8 * SECOND, "{:?}", asked.elapsed());
    assert_eq!(
        version(send(&store, &commit_of(&free, [2; 8], 1, "value")).await),
        2
    );
    // What is removed is found by its key, also in small tables.
    for outcome in store.commit(&group(2, false)).await {
        assert_eq!(version(outcome), 2);
    }
    let ended = store.clear(&free, None, CommitId([3; 8])).await.unwrap();
    assert!(ended.ended);
    assert_eq!(
        load_one(&store, &held).await.unwrap().version,
        1,
        "reads do not wait"
    );
    foreign.end("ROLLBACK");
    assert_eq!(
        version(send(&store, &commit_of(&held, [2; 8], 1, "value")).await),
        2
    );
}

async fn a_deadlock_is_resolved<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let mut both = [partition("one"), partition("other")];
    both.sort_by(|a, b| a.digest().cmp(b.digest()));
    let commits = |id| {
        both.clone()
            .map(|partition| commit_of(&partition, [id; 8], 1, "value"))
    };
    store.commit(&commits(1)).await;
    let holds = |at: usize| {
        let id = hex(&both[at], &server.url());
        format!("UPDATE {prefix}partitions SET idle_end = 1 WHERE id = {id}")
    };
    // The store locks the first one, and waits for the second, which the other has.
    let mut foreign = Foreign::after(&*server, &format!("BEGIN; {}", holds(1)));
    let (committed, ()) = tokio::join!(
        async {
            let commits = commits(2);
            store.commit(&commits).await
        },
        async {
            tokio::time::sleep(SECOND / 2).await;
            foreign.run(&holds(0));
            foreign.run("ROLLBACK");
        }
    );
    for outcome in committed {
        version(outcome);
    }
}

async fn an_answer_that_is_lost_is_asked_for_again<S: Server>() {
    let server = S::shared();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let (_, prefix) = server.store(PATIENCE).await;
    let store = S::build(&url, &prefix, PATIENCE).unwrap();
    let (a, b) = (partition("a"), partition("b"));
    send(&store, &commit_of(&a, [1; 8], 1, "value"))
        .await
        .unwrap();
    for round in 2..12 {
        proxy.set(Mode::LoseAnswer);
        let commit = commit_of(&a, [round; 8], 1, "value");
        assert_eq!(version(send(&store, &commit).await), u64::from(round));
        // The statement that has changed something, too.
        load_one(&store, &b).await.unwrap();
        let lease = Lease::new(a.clone(), EntryId::from([round; 16]), [1; 16]);
        proxy.set(Mode::LoseAnswer);
        let state = store.acquire_lease(&lease, SECOND).await.unwrap();
        assert_eq!(state, LeaseState::Granted);
    }
    proxy.set(Mode::LoseAnswer);
    let cleared = store.clear(&a, Some(0), CommitId([99; 8])).await.unwrap();
    assert_eq!((cleared.generation, cleared.ended), (1, true));
    assert_eq!(load_one(&store, &a).await.unwrap().generation, 1);
    // Wherever in a move the connection breaks, it is made once.
    for at in (1..4000).step_by(150) {
        let names = [format!("from {at}"), format!("to {at}")].map(|name| partition(&name));
        send(&store, &commit_of(&names[0], [1; 8], 1, "value"))
            .await
            .unwrap();
        proxy.set(Mode::CutAnswerAfter(at));
        let from = Origin::new(names[0].clone(), 0, 1);
        let moved = store
            .relocate(&from, &commit_of(&names[1], [2; 8], 1, "value"))
            .await;
        assert_eq!(version(moved), 1);
        proxy.set(Mode::Pass);
        let loaded = store.load(&names).await;
        let states = loaded.into_iter().map(|it| it.unwrap());
        let states: Vec<_> = states.map(|it| (it.generation, it.entries.len())).collect();
        assert_eq!(states, [(1, 0), (0, 1)]);
    }
}

async fn a_dropped_operation_leaves_no_answer_behind<S: Server>() {
    let server = S::shared();
    let (store, _) = server.store(PATIENCE).await;
    let (a, b) = (partition("a"), partition("b"));
    send(&store, &commit_of(&a, [1; 8], 1, vec![7; 100_000]))
        .await
        .unwrap();
    for micros in 0..100 {
        let load = load_one(&store, &a);
        let _ = tokio::time::timeout(Duration::from_micros(micros * 20), load).await;
        assert_eq!(load_one(&store, &b).await.unwrap().version, 0);
    }
    for number in 2..20 {
        let commit = commit_of(&a, [number; 8], 1, "value");
        let wait = Duration::from_micros(u64::from(number) * 300);
        let _ = tokio::time::timeout(wait, send(&store, &commit)).await;
        version(send(&store, &commit).await);
    }
    assert_eq!(
        load_one(&store, &a).await.unwrap().version,
        19,
        "each of them counts once"
    );
}

/// It was made for the time of the reading, and the partition may have ended since.
async fn a_plan_that_is_late_is_not_carried_out<S: Server>() {
    let server = S::shared();
    let (direct, prefix) = server.store(PATIENCE).await;
    let (proxy, url) = Proxy::before(&server.url()).await;
    let store = S::build(&url, &prefix, PATIENCE).unwrap();
    let a = partition("a");
    assert_eq!(
        version(send(&store, &commit_of(&a, [1; 8], 1, "value")).await),
        1
    );
    proxy.delay(1100);
    let late = send(&store, &commit_of(&a, [2; 8], 1, "value"))
        .await
        .unwrap_err();
    assert_eq!(late.kind(), StoreErrorKind::Timeout);
    assert_eq!(load_one(&direct, &a).await.unwrap().version, 1);
    proxy.delay(0);
    assert_eq!(
        version(send(&store, &commit_of(&a, [2; 8], 1, "value")).await),
        2
    );
}

async fn a_runtime_that_ends_takes_its_connections_along<S: Server>() {
    let server = S::shared();
    let (store, _) = server.store(PATIENCE).await;
    let a = partition("a");
    let (elsewhere, id) = (store.clone(), a.clone());
    let ended = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(async {
            let commit = commit_of(&id, [1; 8], 1, "value");
            assert_eq!(version(send(&elsewhere, &commit).await), 1);
            Listener::on(&elsewhere, "test").await
        });
        drop(runtime);
        // A feed needs no runtime to end.
        drop(listener);
    });
    tokio::task::spawn_blocking(|| ended.join().unwrap())
        .await
        .unwrap();
    assert_eq!(load_one(&store, &a).await.unwrap().version, 1);
    Listener::on(&store, "test").await;
}

async fn connections_are_bounded<S: Server>() {
    let server = S::shared();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let (_, prefix) = server.store(PATIENCE).await;
    let store = S::build(&url, &prefix, PATIENCE).unwrap();
    let all = (0..200).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let commit = commit_of(&partition(&format!("{number}")), [1; 8], 1, "value");
            version(send(&store, &commit).await)
        })
    });
    for task in all.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), 1);
    }
    assert!(proxy.accepted() <= 8, "{}", proxy.accepted());
}

async fn what_is_over_is_freed<S: Server>() {
    let server = S::shared();
    let (_, prefix) = server.store(PATIENCE).await;
    let count = |table: &str| {
        let rows = server.query(&format!("SELECT count(*) FROM {prefix}{table}"));
        rows[0].parse::<u64>().unwrap()
    };
    let store = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    let lease = Lease::new(partition("a"), EntryId::from([1; 16]), [1; 16]);
    store.acquire_lease(&lease, Duration::ZERO).await.unwrap();
    let mut group = Vec::new();
    for number in 0..1200 {
        group.push(commit_of(
            &partition(&format!("{number}")),
            [1; 8],
            1,
            "value",
        ));
    }
    // This store has not swept yet, and the other one will not for a minute.
    store.commit(&group).await.into_iter().for_each(|outcome| {
        version(outcome);
    });
    server.query(&format!("UPDATE {prefix}partitions SET purge_hour = 1"));
    let late = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    send(&late, &commit_of(&partition("live"), [1; 8], 1, "value"))
        .await
        .unwrap();
    common::eventually("it is freed", async || {
        (count("partitions"), count("entries"), count("leases")) == (1, 1, 0)
    })
    .await;
    assert_eq!(
        load_one(&late, &partition("live")).await.unwrap().version,
        1
    );
}

async fn damaged_rows_are_passed_over_and_replaced<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let a = partition("a");
    send(&store, &commit_of(&a, [1; 8], 1, "value"))
        .await
        .unwrap();
    server.query(&format!("UPDATE {prefix}entries SET version = -1"));
    let loaded = load_one(&store, &a).await.unwrap();
    assert_eq!(
        (loaded.version, loaded.entries.len(), loaded.damaged),
        (1, 0, 1)
    );
    assert_eq!(
        version(send(&store, &commit_of(&a, [2; 8], 2, "value")).await),
        2
    );
    let entries = server.query(&format!("SELECT count(*) FROM {prefix}entries"));
    assert_eq!(entries, ["1"], "a commit removes what is damaged");
    server.query(&format!("UPDATE {prefix}partitions SET generation = -1"));
    let loaded = load_one(&store, &a).await.unwrap();
    assert_eq!(
        (loaded.version, loaded.entries.len(), loaded.damaged),
        (0, 0, 1)
    );
    assert_eq!(
        version(send(&store, &commit_of(&a, [3; 8], 3, "value")).await),
        1
    );
    let loaded = load_one(&store, &a).await.unwrap();
    assert_eq!(
        (loaded.version, loaded.entries.len(), loaded.damaged),
        (1, 1, 0)
    );
}
