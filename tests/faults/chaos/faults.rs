//! Faults at random from a seed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fleet::{PROCESSES, Process};
use super::random::Random;
use super::servers::Servers;
use super::timeline::{Scope, Timeline};
use super::topologies::{self, NodeFault};
use common::proxy::{Mode, Proxy};
use common::redis::RedisServer;

/// What happens to the server.
#[derive(Clone, Copy, Debug)]
enum ServerFault {
    KillAndRestart,
    Hang,
    Pause(&'static str),
    OutOfMemory,
    ReadOnly,
    ForgetScripts,
    KillClients(&'static str),
}

/// What happens to a process's connections.
#[derive(Clone, Copy, Debug)]
enum LinkFault {
    /// For a while.
    Mode(Mode),
    /// Once, to the next answer.
    Once(Mode),
    Strand,
    Reset,
}

/// Faults of L2, one after the other, until `end`.
pub(crate) async fn trouble_l2(
    mut servers: Servers,
    processes: Arc<Vec<Process>>,
    timeline: Arc<Timeline>,
    random: Random,
    end: Instant,
) -> Servers {
    while Instant::now() < end {
        tokio::time::sleep(random.millis(100, 2500)).await;
        let pause = duration(&random);
        match &mut servers {
            Servers::One(redis) if random.below(2) == 0 => {
                let fault = random.one_of(&SERVER_FAULTS);
                let span = timeline.begin(Scope::Server, format!("{fault:?}"));
                trouble_server(redis, fault, pause).await;
                timeline.end(span);
            }
            Servers::One(_) => {
                let number = random.below(PROCESSES);
                let fault = link_fault(&random);
                let what = format!("store {number}: {fault:?}");
                let span = timeline.begin(Scope::Store(number), what);
                if let Some(store) = &processes[number].store {
                    trouble_link(store, fault, pause).await;
                }
                timeline.end(span);
            }
            several => {
                let fault = NodeFault::choose(several, &random);
                topologies::trouble(several, fault, pause, &timeline, &random).await;
            }
        }
    }
    servers
}

const SERVER_FAULTS: [ServerFault; 11] = [
    ServerFault::KillAndRestart,
    ServerFault::KillAndRestart,
    ServerFault::Hang,
    ServerFault::Hang,
    ServerFault::Pause("ALL"),
    ServerFault::Pause("WRITE"),
    ServerFault::OutOfMemory,
    ServerFault::ReadOnly,
    ServerFault::ForgetScripts,
    ServerFault::KillClients("normal"),
    ServerFault::KillClients("pubsub"),
];

/// Mostly short: what matters is how faults begin and end.
fn duration(random: &Random) -> Duration {
    match random.below(4) {
        0 => random.millis(1000, 4500),
        _ => random.millis(50, 1000),
    }
}

fn link_fault(random: &Random) -> LinkFault {
    random.one_of(&[
        LinkFault::Mode(Mode::BlackHole),
        LinkFault::Mode(Mode::BlackHoleAnswers),
        LinkFault::Mode(Mode::Drip(Duration::from_millis(20))),
        LinkFault::Mode(Mode::Reset),
        LinkFault::Once(Mode::CutAnswerAfter(3)),
        LinkFault::Once(Mode::LoseAnswer),
        LinkFault::Strand,
        LinkFault::Reset,
    ])
}

async fn trouble_link(proxy: &Proxy, fault: LinkFault, pause: Duration) {
    match fault {
        LinkFault::Mode(mode) => proxy.set(mode),
        LinkFault::Once(mode) => proxy.set(mode),
        LinkFault::Strand => proxy.strand(),
        LinkFault::Reset => proxy.reset().await,
    }
    tokio::time::sleep(pause).await;
    proxy.set(Mode::Pass);
}

async fn trouble_server(redis: &mut RedisServer, fault: ServerFault, pause: Duration) {
    let admin = |redis: &RedisServer, command: &str| {
        tokio::task::block_in_place(|| redis.query::<redis::Value>(command));
    };
    match fault {
        ServerFault::KillAndRestart => {
            tokio::task::block_in_place(|| redis.kill());
            tokio::time::sleep(pause).await;
            tokio::task::block_in_place(|| redis.restart());
        }
        ServerFault::Hang => {
            redis.hang();
            tokio::time::sleep(pause).await;
            redis.wake();
        }
        ServerFault::Pause(what) => {
            admin(redis, &format!("CLIENT PAUSE {} {what}", pause.as_millis()));
            tokio::time::sleep(pause).await;
        }
        ServerFault::OutOfMemory => {
            admin(redis, "CONFIG SET maxmemory 1");
            tokio::time::sleep(pause).await;
            admin(redis, "CONFIG SET maxmemory 0");
        }
        ServerFault::ReadOnly => {
            admin(redis, "REPLICAOF 127.0.0.1 1");
            tokio::time::sleep(pause).await;
            admin(redis, "REPLICAOF NO ONE");
        }
        ServerFault::ForgetScripts => admin(redis, "SCRIPT FLUSH"),
        ServerFault::KillClients(kind) => admin(redis, &format!("CLIENT KILL TYPE {kind}")),
    }
}
