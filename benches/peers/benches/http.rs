//! Requests over real HTTP on the loopback interface: every read asks Redis, beside the peer whose
//! reads do the same, and beside a layer that does nothing.
//!
//! Each server is a process of its own, so that its CPU time is its own. All are driven from this
//! one, over connections that are kept open, in rounds that take turns.

use std::time::Duration;

use peers::process::cpu_time_of;
use peers::redis::Redis;
use peers::report::{bar, median};

#[path = "http/client.rs"]
mod client;
#[path = "request/no_op.rs"]
mod no_op;
#[path = "http/server.rs"]
mod server;
#[path = "request/sessions.rs"]
mod sessions;

use client::Client;
use server::{SERVE, Server, Stack};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 64;

struct Case {
    stack: Stack,
    server: Server,
    client: Client,
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
    p99_us: Vec<f64>,
}

impl Case {
    async fn round(&mut self, length: Duration) {
        let before = cpu_time_of(self.server.pid());
        let mut load = self.client.run(length).await;
        let cpu = cpu_time_of(self.server.pid()) - before;
        let requests = load.micros.len();
        self.per_second
            .push(requests as f64 / load.lasted.as_secs_f64());
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / requests as f64);
        load.micros.sort_by(f64::total_cmp);
        self.p99_us.push(load.micros[requests * 99 / 100]);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|it| it == SERVE) {
        return server::serve(&arguments[at + 1], &arguments[at + 2]);
    }
    let redis = Stack::ALL.map(|_| Redis::start());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut cases = Vec::new();
    for (stack, redis) in Stack::ALL.into_iter().zip(&redis) {
        let server = Server::start(stack, &redis.url());
        let client = runtime.block_on(Client::connect(server.port, &server.cookies, CONNECTIONS));
        cases.push(Case {
            stack,
            server,
            client,
            per_second: Vec::new(),
            cpu_us: Vec::new(),
            p99_us: Vec::new(),
        });
    }
    for case in &mut cases {
        runtime.block_on(case.round(ROUND / 2));
        (case.per_second, case.cpu_us, case.p99_us) = Default::default();
    }
    for round in 0..ROUNDS {
        for turn in 0..cases.len() {
            let turn = (turn + round) % Stack::ALL.len();
            runtime.block_on(cases[turn].round(ROUND));
        }
    }
    let holds = report(&cases);
    drop(cases);
    drop(redis);
    std::process::exit(i32::from(!holds));
}

fn report(cases: &[Case]) -> bool {
    println!(
        "{CONNECTIONS} connections, {ROUNDS} rounds of {} s; medians\n",
        ROUND.as_secs()
    );
    println!(
        "{:<28} {:>12} {:>12} {:>10}",
        "stack", "requests/s", "CPU µs each", "p99 µs"
    );
    for case in cases {
        println!(
            "{:<28} {:>12.0} {:>12.1} {:>10.0}",
            case.stack.name(),
            median(&mut case.per_second.clone()),
            median(&mut case.cpu_us.clone()),
            median(&mut case.p99_us.clone()),
        );
    }
    println!();
    let find = |stack| {
        let mut cases = cases.iter();
        cases.find(|case| case.stack == stack).expect("all ran")
    };
    let (ours, peer) = (find(Stack::OursL1Off), find(Stack::Sessions));
    let ratio = |ours: &[f64], peer: &[f64]| {
        let ratios = ours.iter().zip(peer).map(|(ours, peer)| ours / peer);
        median(&mut ratios.collect::<Vec<_>>())
    };
    let bare = find(Stack::Bare);
    println!(
        "what any store on the redis crate can reach: {:.2} x requests per second, {:.2} x CPU of tower-sessions'\n",
        ratio(&bare.per_second, &peer.per_second),
        ratio(&bare.cpu_us, &peer.cpu_us),
    );
    let per_second = ratio(&ours.per_second, &peer.per_second);
    let cpu = ratio(&ours.cpu_us, &peer.cpu_us);
    let faster = bar(
        "requests per second, L1 off / tower-sessions, RedisStore",
        per_second,
        1.5,
        true,
    );
    let cheaper = bar(
        "CPU per request, L1 off / tower-sessions, RedisStore",
        cpu,
        0.8,
        false,
    );
    faster && cheaper
}
