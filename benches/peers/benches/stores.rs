//! Each store beside the bare driver that it is built on: reads of users that are not in memory, and commits, one at a
//! time and in groups.
//!
//! *Ours* is [`TokenStore::load`](tower_token_cache::TokenStore::load) and `commit`, without the engine. *Raw* sends
//! what ours sends to the same server: the same commands, or the same text of statements with as many values of the same
//! length, prepared, over the same number of connections. It spares itself all that ours does on this side: a pool,
//! limits of time, what rows and bytes mean, what a commit is to change. The two take turns on records of their own in
//! the same tables. Calls are one after the other, so that what is compared is the time that a caller waits. Servers do
//! not flush to disk, or only once a second, as in the tests: a disk would hide what ours costs.
//!
//! Each group is of partitions of three entries, of 4, 2 and 2 KiB, all of which a commit replaces; the first has an
//! expiry.

#[path = "stores/mariadb.rs"]
mod mariadb;
#[path = "stores/memcached.rs"]
mod memcached;
#[path = "stores/postgres.rs"]
mod postgres;
#[path = "stores/redis.rs"]
mod redis;
#[path = "stores/side.rs"]
mod side;
#[path = "stores/sqlite.rs"]
mod sqlite;
#[path = "stores/turns.rs"]
mod turns;

use peers::report::bar;
use peers::users::USERS;

use self::side::PAYLOAD;
use self::turns::{Measured, ROUNDS, TURN};

#[tokio::main(worker_threads = 2)]
async fn main() {
    // Those that are named, or all.
    let names: Vec<String> = std::env::args().skip(1).collect();
    let all = ["Redis", "PostgreSQL", "MariaDB", "SQLite", "Memcached"];
    let is_named = |store: &&str| names.iter().any(|name| store.eq_ignore_ascii_case(name));
    let some = all.into_iter().any(|store| is_named(&store));
    let mut measured = Vec::new();
    for store in all.into_iter().filter(|store| !some || is_named(store)) {
        measured.push(match store {
            "Redis" => redis::measure(store).await,
            "PostgreSQL" => postgres::measure(store).await,
            "MariaDB" => mariadb::measure(store).await,
            "SQLite" => sqlite::measure(store).await,
            _ => memcached::measure(store).await,
        });
    }
    std::process::exit(i32::from(!report(&measured)));
}

fn report(measured: &[Measured]) -> bool {
    println!(
        "{USERS} users of {} KiB in three entries; {ROUNDS} rounds of {} ms; medians\n",
        PAYLOAD >> 10,
        TURN.as_millis()
    );
    println!(
        "{:<12} {:<14} {:>10} {:>10} {:>8} {:>14} {:>12}",
        "store", "", "ours µs", "raw µs", "ratio", "CPU: ours µs", "raw µs"
    );
    for store in measured {
        for row in &store.rows {
            println!(
                "{:<12} {:<14} {:>10.0} {:>10.0} {:>8.2} {:>14.0} {:>12.0}",
                store.store,
                row.case.to_string(),
                row.ours.time,
                row.raw.time,
                row.ratio,
                row.ours.cpu,
                row.raw.cpu
            );
        }
    }
    println!(
        "\n{:<12} {:>14} {:>14} {:>20}",
        "store", "bytes a user", "of payload", "after two changes"
    );
    for store in measured {
        let of_payload = |bytes: u64| bytes as f64 / (USERS * PAYLOAD) as f64;
        println!(
            "{:<12} {:>14} {:>14.2} {:>20.2}",
            store.store,
            store.stored / USERS as u64,
            of_payload(store.stored),
            of_payload(store.changed),
        );
    }
    println!();
    let mut holds = true;
    for store in measured {
        for row in &store.rows {
            let what = format!("{}, {}: throughput, ours / raw", store.store, row.case);
            holds &= bar(&what, row.ratio, 0.85, true);
        }
        let what = format!("{}: bytes a user, of what `Estimate` says", store.store);
        let ratio = store.stored as f64 / store.estimate as f64;
        holds &= bar(&what, ratio, 1.15, false);
    }
    holds
}
