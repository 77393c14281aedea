//! Faults of servers that stand in for each other.

use std::time::{Duration, Instant};

use super::random::Random;
use super::servers::Servers;
use super::timeline::{Scope, Timeline};
use common::topologies::{Cluster, Node};

/// How long a cluster may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Slots that move in one go.
const MOVED_SLOTS: usize = 40;

/// What happens to one of the servers, mostly a master.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NodeFault {
    /// Dies, and comes back: at once, or after another has taken over.
    Kill,
    /// Stands still, and goes on: the same.
    Hang,
    /// Another is made the master, as an operator does for maintenance.
    FailOver,
    /// A sentinel dies and comes back.
    KillSentinel,
    /// Slots with what they hold move to another master.
    MoveSlots,
    Pause(&'static str),
    OutOfMemory,
    ForgetScripts,
    KillClients(&'static str),
}

impl NodeFault {
    pub(crate) fn choose(servers: &Servers, random: &Random) -> Self {
        let own = match servers {
            Servers::Sentinel(_) => Self::KillSentinel,
            _ => Self::MoveSlots,
        };
        random.one_of(&[
            Self::Kill,
            Self::Kill,
            Self::Hang,
            Self::Hang,
            Self::FailOver,
            own,
            own,
            Self::Pause("ALL"),
            Self::Pause("WRITE"),
            Self::OutOfMemory,
            Self::ForgetScripts,
            Self::KillClients("normal"),
        ])
    }

    fn scope(self) -> Scope {
        match self {
            Self::KillSentinel | Self::MoveSlots | Self::ForgetScripts => Scope::Nobody,
            _ => Scope::Server,
        }
    }
}

/// Has the fault, and sees to it that the servers are as many as before.
pub(crate) async fn trouble(
    servers: &mut Servers,
    fault: NodeFault,
    pause: Duration,
    timeline: &Timeline,
    random: &Random,
) {
    if !servers.in_step().await {
        return;
    }
    let Some(at) = tokio::task::block_in_place(|| servers.master(random)) else {
        return;
    };
    let masters = tokio::task::block_in_place(|| servers.masters());
    let span = timeline.begin(fault.scope(), format!("{fault:?} {at}"));
    match fault {
        NodeFault::Kill => {
            let node = &mut servers.nodes()[at];
            tokio::task::block_in_place(|| node.kill());
            tokio::time::sleep(pause).await;
            let node = &mut servers.nodes()[at];
            tokio::task::block_in_place(|| node.restart());
        }
        NodeFault::Hang => {
            servers.nodes()[at].hang();
            tokio::time::sleep(pause).await;
            servers.nodes()[at].wake();
        }
        NodeFault::FailOver => {
            tokio::task::block_in_place(|| fail_over(servers, at));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        NodeFault::KillSentinel => {
            if let Servers::Sentinel(set) = servers {
                let sentinel = random.below(set.sentinels.len());
                let sentinel = &mut set.sentinels[sentinel];
                tokio::task::block_in_place(|| sentinel.kill());
                tokio::time::sleep(pause).await;
                tokio::task::block_in_place(|| sentinel.restart());
            }
        }
        NodeFault::MoveSlots => {
            if let Servers::Cluster(cluster) = servers {
                move_slots(cluster, at, &masters, pause, random).await;
            }
        }
        NodeFault::Pause(what) => {
            let node = &servers.nodes()[at];
            admin(node, &format!("CLIENT PAUSE {} {what}", pause.as_millis()));
            tokio::time::sleep(pause).await;
        }
        NodeFault::OutOfMemory => {
            admin(&servers.nodes()[at], "CONFIG SET maxmemory 1");
            tokio::time::sleep(pause).await;
            admin(&servers.nodes()[at], "CONFIG SET maxmemory 0");
        }
        NodeFault::ForgetScripts => servers.nodes().iter().for_each(|node| {
            admin(node, "SCRIPT FLUSH");
        }),
        NodeFault::KillClients(kind) => {
            admin(&servers.nodes()[at], &format!("CLIENT KILL TYPE {kind}"));
        }
    }
    // Another may be the master only once the old one follows it.
    servers.in_step().await;
    let now = tokio::task::block_in_place(|| servers.masters());
    // A cluster's master that is told to waits until its successor has everything.
    let orderly = matches!(
        (fault, &*servers),
        (NodeFault::FailOver, Servers::Cluster(_))
    );
    timeline.end_as(span, now != masters && !orderly);
}

fn admin(node: &Node, command: &str) {
    // One that is not there has enough trouble.
    let _ = tokio::task::block_in_place(|| node.query::<redis::Value>(command));
}

fn fail_over(servers: &Servers, master: usize) {
    match servers {
        Servers::One(_) => {}
        Servers::Cluster(cluster) => {
            let id = cluster.nodes[master].id().unwrap_or_default();
            let follows = |node: &&Node| {
                let nodes: String = node.query("CLUSTER NODES").unwrap_or_default();
                let own = nodes.lines().find(|line| line.contains("myself"));
                own.is_some_and(|own| own.contains(" slave ") || own.contains(",slave "))
                    && own.is_some_and(|own| own.contains(&id))
            };
            if let Some(replica) = cluster.nodes.iter().find(follows) {
                let _ = replica.query::<()>("CLUSTER FAILOVER");
            }
        }
        Servers::Sentinel(set) => {
            let _ = set.sentinels[0].query::<()>("SENTINEL FAILOVER tokens");
        }
    }
}

/// Moves some slots to another master, and takes its time in the middle of it.
async fn move_slots(
    cluster: &Cluster,
    from: usize,
    masters: &[bool],
    pause: Duration,
    random: &Random,
) {
    let others = (0..masters.len()).filter(|at| *at != from && masters[*at]);
    let others: Vec<_> = others.collect();
    let (from, to) = (&cluster.nodes[from], &cluster.nodes[random.one_of(&others)]);
    let slots = tokio::task::block_in_place(|| cluster.slots_of(from));
    if slots.len() < 4 * MOVED_SLOTS {
        return;
    }
    let first = random.below(slots.len() - MOVED_SLOTS);
    for slot in &slots[first..first + MOVED_SLOTS] {
        persist(|| cluster.begin_move(*slot, from, to)).await;
    }
    tokio::time::sleep(pause.min(Duration::from_secs(1))).await;
    for slot in &slots[first..first + MOVED_SLOTS] {
        while persist(|| cluster.move_keys((*slot, 10), from, to)).await > 0 {}
        persist(|| cluster.end_move(*slot, from, to)).await;
    }
}

/// Does what a cluster refuses while it does not yet know of all its masters again.
async fn persist<T>(act: impl Fn() -> redis::RedisResult<T>) -> T {
    let started = Instant::now();
    loop {
        match tokio::task::block_in_place(&act) {
            Ok(done) => return done,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
