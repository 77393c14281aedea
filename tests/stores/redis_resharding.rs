//! A cluster that is being resharded: slots with what they hold move from one node to another
//! under load. `ASK` answers those who are too early, `MOVED` those who are too late, and nobody
//! notices either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::support::{access, builder, session, token};
use common::topologies::Cluster;
use tokio::task::JoinSet;
use tower_token_cache::{Durability, L1, RedisStore, Timeouts, TokenCache};

/// Users, each in a slot of its own; those of two masters move.
const USERS: usize = 40;
/// How long each state of the slots lasts.
const PHASE: Duration = Duration::from_millis(1500);

struct Load {
    /// One that changes, one that reads, without memory: each read asks L2.
    caches: [TokenCache; 2],
    /// Of the last change of each user that L2 has.
    rounds: Vec<AtomicUsize>,
    commits: AtomicUsize,
    reads: AtomicUsize,
    newcomers: AtomicUsize,
    stopped: AtomicBool,
}

async fn cache(cluster: &Cluster, l1: L1) -> TokenCache {
    // The nodes share this machine with other tests.
    let store = RedisStore::builder(cluster.url()).response_timeout(Duration::from_secs(2));
    builder(store.build().unwrap())
        .timeouts(
            Timeouts::new()
                .attempt(Duration::from_secs(3))
                .operation(Duration::from_secs(5)),
        )
        .l1(l1)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_and_nobody_notices() {
    let cluster = Cluster::start().await;
    let caches = [
        cache(&cluster, L1::new()).await,
        cache(&cluster, L1::disabled()).await,
    ];
    let load = Arc::new(Load {
        caches,
        rounds: (0..USERS).map(|_| AtomicUsize::new(0)).collect(),
        commits: AtomicUsize::new(0),
        reads: AtomicUsize::new(0),
        newcomers: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
    });
    for user in 0..USERS {
        load.change(user).await;
    }
    let mut tasks = JoinSet::new();
    for user in 0..USERS {
        tasks.spawn(load.clone().change_on(user));
        tasks.spawn(load.clone().read_on(user));
    }
    for worker in 0..4 {
        tasks.spawn(load.clone().welcome(worker));
    }
    // All to the first master, which has users of its own: nodes that take slots from each other
    // within moments may disagree on whose they are, for good.
    let mut moves = Vec::new();
    for user in 0..USERS {
        moves.push(load.slot(&cluster, user).await);
    }
    moves.retain(|(_, from)| *from != 0);
    assert!(moves.len() > USERS / 3, "{}", moves.len());
    let nodes = &cluster.nodes;
    let each = |act: &dyn Fn(u16, usize, usize)| {
        for (slot, from) in &moves {
            act(*slot, *from, 0);
        }
    };
    let phase = async |name: &str| {
        let before = [&load.commits, &load.reads].map(|it| it.load(Ordering::Relaxed));
        tokio::time::sleep(PHASE).await;
        let after = [&load.commits, &load.reads].map(|it| it.load(Ordering::Relaxed));
        assert!(before[0] < after[0] && before[1] < after[1], "{name}");
    };
    phase("at rest").await;
    // All is still where it was, and what comes is sent on by `ASK`.
    tokio::task::block_in_place(|| {
        each(&|slot, from, to| cluster.begin_move(slot, &nodes[from], &nodes[to]).unwrap());
    });
    phase("the moves have begun").await;
    // Users who come or change now are elsewhere, and everybody still asks the old node first.
    tokio::task::block_in_place(|| {
        each(&|slot, from, to| {
            while cluster
                .move_keys((slot, 10), &nodes[from], &nodes[to])
                .unwrap()
                > 0
            {}
        });
    });
    phase("all has moved").await;
    tokio::task::block_in_place(|| {
        each(&|slot, from, to| {
            while cluster
                .move_keys((slot, 10), &nodes[from], &nodes[to])
                .unwrap()
                > 0
            {}
            cluster.end_move(slot, &nodes[from], &nodes[to]).unwrap();
        });
    });
    phase("the slots are the others'").await;
    load.stopped.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let asked = nodes
        .iter()
        .map(|node| node.redirections("ASK"))
        .sum::<u64>();
    assert!(asked > 100, "{asked} were sent on");
    for cache in &load.caches {
        let stats = cache.stats();
        assert_eq!(stats.l2_errors, 0, "{stats:?}");
        assert_eq!((stats.pending_changes, stats.abandoned_changes), (0, 0));
    }
    // One that has nothing in memory and came late.
    let fresh = cache(&cluster, L1::new()).await;
    for user in 0..USERS {
        let tokens = fresh.tokens(load.user(user));
        let round = load.rounds[user].load(Ordering::Relaxed);
        assert_eq!(access(&tokens, "graph").await, Some(round.to_string()));
    }
    println!(
        "{} commits, {} reads, {} newcomers, {asked} times ASK",
        load.commits.load(Ordering::Relaxed),
        load.reads.load(Ordering::Relaxed),
        load.newcomers.load(Ordering::Relaxed),
    );
}

impl Load {
    fn user(&self, number: usize) -> tower_token_cache::PartitionKey {
        session(&format!("user-{number}"))
    }

    /// The slot of a user, and the master that has it at first.
    async fn slot(&self, cluster: &Cluster, user: usize) -> (u16, usize) {
        let id = self.caches[0].partition_id(&self.user(user)).await.unwrap();
        let slot = cluster.slot_of(&format!("{}:{{{}}}", id.namespace(), id.encoded()));
        let mut masters = 0..3;
        let from = masters.find(|i| usize::from(slot) < 16384 * (i + 1) / 3);
        (slot, from.unwrap())
    }

    /// One change, which L2 has afterwards.
    async fn change(&self, user: usize) {
        let round = self.rounds[user].load(Ordering::Relaxed) + 1;
        let tokens = self.caches[0].tokens(self.user(user));
        let text = round.to_string();
        tokens.insert("graph", token(&text)).await.unwrap();
        let durability = tokens.commit().await.unwrap();
        assert_eq!(durability, Durability::Stored, "user {user}, {round}");
        self.rounds[user].store(round, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    async fn change_on(self: Arc<Self>, user: usize) {
        while !self.stopped.load(Ordering::Relaxed) {
            self.change(user).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn read_on(self: Arc<Self>, user: usize) {
        while !self.stopped.load(Ordering::Relaxed) {
            let known = self.rounds[user].load(Ordering::Relaxed);
            let asked = Instant::now();
            let tokens = self.caches[1].tokens(self.user(user));
            let found = access(&tokens, "graph").await;
            let found = found.map(|text| text.parse::<usize>().unwrap());
            assert!(
                found >= Some(known),
                "{found:?} {known} {:?}",
                asked.elapsed()
            );
            self.reads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// New users, whose keys are nowhere yet.
    async fn welcome(self: Arc<Self>, worker: usize) {
        while !self.stopped.load(Ordering::Relaxed) {
            let number = self.newcomers.fetch_add(1, Ordering::Relaxed);
            let tokens = self.caches[0].tokens(session(&format!("new-{worker}-{number}")));
            tokens.insert("graph", token("t")).await.unwrap();
            assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
