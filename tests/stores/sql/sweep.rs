//! What is over is freed by one instance at a time, which holds nobody up.

use std::time::{Duration, Instant};

use common::eventually;
use common::store::{commit_of, load_one};
use sha2::{Digest, Sha256};
use tower_token_cache::TokenStore;
use tower_token_cache::store::{EntryId, Lease, PartitionId};

use super::server::{Foreign, PATIENCE, Server, hex, on_both, partition, send, version};

on_both! {
    of_many_instances_one_sweeps_at_a_time
    the_lock_of_a_sweeper_that_dies_is_free
    the_lock_of_a_sweep_that_fails_is_free
    what_another_holds_is_left_to_a_later_sweep
    commits_go_on_while_a_lot_is_freed
}

/// Rows of each table that are freed at once.
const BATCH: u64 = 500;

async fn of_many_instances_one_sweeps_at_a_time<S: Server>() {
    let server = S::start();
    let swept = Swept::new(&server, 4 * BATCH + 7).await;
    swept.run(
        "CREATE TABLE {deleted} (number bigserial PRIMARY KEY, session bigint NOT NULL)",
        "CREATE TABLE {deleted} (number BIGINT AUTO_INCREMENT PRIMARY KEY, session BIGINT NOT NULL)",
    );
    swept.before_delete(
        "INSERT INTO {deleted} (session) VALUES (pg_backend_pid())",
        "INSERT INTO {deleted} (session) VALUES (CONNECTION_ID())",
    );
    let all = (0..8).map(|_| {
        let store = swept.another();
        tokio::spawn(async move { begins_to_sweep(&store).await })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    swept.until_left(0).await;
    let sessions = swept.rows("SELECT session FROM {deleted} ORDER BY number");
    let batches: Vec<_> = sessions.chunk_by(|one, next| one == next).collect();
    let (_, whole) = batches.split_last().unwrap();
    for batch in whole {
        let rows = batch.len() as u64;
        assert_eq!(rows % BATCH, 0, "two were at it at a time");
    }
}

async fn the_lock_of_a_sweeper_that_dies_is_free<S: Server>() {
    let server = S::start();
    let swept = Swept::new(&server, 2 * BATCH).await;
    swept.before_delete(
        "PERFORM pg_advisory_xact_lock_shared(4711)",
        "DO GET_LOCK('held', 60), RELEASE_LOCK('held')",
    );
    let holds = swept.of(
        "SELECT pg_advisory_lock(4711)",
        "SELECT GET_LOCK('held', 0)",
    );
    let foreign = Foreign::after(&server, &holds);
    let store = swept.another();
    begins_to_sweep(&store).await;
    eventually("it is in the middle", async || swept.sweeper().is_some()).await;
    let dies = swept.sweeper().unwrap();
    swept.run(
        &format!("SELECT pg_terminate_backend({dies})"),
        &format!("KILL {dies}"),
    );
    eventually("its lock is free", async || swept.sweeper().is_none()).await;
    foreign.end("SELECT 1");
    assert_eq!(swept.left(), 2 * BATCH, "nothing is half done");
    begins_to_sweep(&swept.another()).await;
    swept.until_left(0).await;
}

/// Also where the connection is kept, because the database has given up for the sake of others.
async fn the_lock_of_a_sweep_that_fails_is_free<S: Server>() {
    let server = S::start();
    let swept = Swept::new(&server, 2 * BATCH).await;
    swept.run(
        "CREATE SEQUENCE {attempts}",
        "CREATE TABLE {attempts} (number BIGINT AUTO_INCREMENT PRIMARY KEY) ENGINE = MyISAM",
    );
    // What is counted is not undone.
    swept.before_delete(
        "PERFORM nextval('{attempts}')",
        "INSERT INTO {attempts} VALUES ()",
    );
    swept.before_delete(
        "RAISE EXCEPTION USING ERRCODE = '40001'",
        "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213",
    );
    let store = swept.another();
    begins_to_sweep(&store).await;
    let attempts = swept.of(
        "SELECT last_value FROM {attempts} WHERE is_called",
        "SELECT number FROM {attempts}",
    );
    eventually("it fails", async || !server.query(&attempts).is_empty()).await;
    eventually("its lock is free", async || swept.sweeper().is_none()).await;
    assert_eq!(swept.left(), 2 * BATCH, "nothing is half done");
    begins_to_sweep(&store).await;
    swept.run(
        "DROP TRIGGER before_delete_2 ON {partitions}",
        "DROP TRIGGER {prefix}before_delete_2",
    );
    begins_to_sweep(&swept.another()).await;
    swept.until_left(0).await;
}

async fn what_another_holds_is_left_to_a_later_sweep<S: Server>() {
    let server = S::start();
    let swept = Swept::new(&server, 2 * BATCH).await;
    for number in 0..2 {
        let lease = Lease::new(numbered(number), EntryId::from([1; 16]), [1; 16]);
        let acquired = swept.store.acquire_lease(&lease, Duration::ZERO).await;
        acquired.unwrap();
    }
    // An entry that has expired, of a partition that has not.
    let held = hex(&partition("held"), &server.url());
    let over = hex(&numbered(1), &server.url());
    swept.rows(&format!(
        "INSERT INTO {{partitions}} VALUES ({held}, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, '', NULL); \
         INSERT INTO {{entries}} VALUES ({held}, {held}, 1, 1, 1, 'x')"
    ));
    let holds = swept.named(&format!(
        "BEGIN; SELECT 1 FROM {{partitions}} WHERE id = {over} FOR UPDATE; \
         SELECT 1 FROM {{entries}} WHERE partition_id = {held} FOR UPDATE; \
         SELECT 1 FROM {{leases}} WHERE partition_id = {over} FOR UPDATE"
    ));
    let foreign = Foreign::after(&server, &holds);
    begins_to_sweep(&swept.store).await;
    swept.until_left(1).await;
    let left = |of: &str| {
        let rows = swept.rows(&format!("SELECT count(*) FROM {of}"));
        rows[0].parse::<u64>().unwrap()
    };
    // One is that of the commit that began the sweep.
    let freed = async || (left("{entries}"), left("{leases}")) == (2, 1);
    eventually("the rest is freed", freed).await;
    foreign.end("ROLLBACK");
    begins_to_sweep(&swept.another()).await;
    swept.until_left(0).await;
    let freed = async || (left("{entries}"), left("{leases}")) == (1, 0);
    eventually("all is freed", freed).await;
}

async fn commits_go_on_while_a_lot_is_freed<S: Server>() {
    let server = S::start();
    let swept = Swept::new(&server, 200 * BATCH).await;
    let started = Instant::now();
    begins_to_sweep(&swept.store).await;
    let (mut made, mut longest) = (0, Duration::ZERO);
    while swept.left() > 0 {
        // One that begins, and one that begins anew where another is over.
        for partition in [partition(&format!("live {made}")), numbered(made)] {
            let asked = Instant::now();
            let commit = commit_of(&partition, [1; 8], 1, "value");
            assert_eq!(version(send(&swept.store, &commit).await), 1);
            longest = longest.max(asked.elapsed());
        }
        made += 1;
    }
    let whole = started.elapsed();
    assert!(made >= 10, "{made} in {whole:?}");
    assert!(longest < whole / 4, "{longest:?} of {whole:?}");
    for number in 0..made {
        for partition in [partition(&format!("live {number}")), numbered(number)] {
            let loaded = load_one(&swept.store, &partition).await.unwrap();
            assert_eq!((loaded.version, loaded.entries.len()), (1, 1));
        }
    }
}

/// The first commit of a store begins a sweep.
async fn begins_to_sweep(store: &impl TokenStore) {
    let commit = commit_of(&partition("live"), [1; 8], 1, "value");
    version(send(store, &commit).await);
}

/// A partition that was over when the test began.
fn numbered(number: u64) -> PartitionId {
    let digest = Sha256::digest(number.to_string());
    PartitionId::from_digest("test", digest.into())
}

/// Tables with partitions that are over, each with an entry.
struct Swept<'a, S: Server> {
    server: &'a S,
    store: S::Store,
    prefix: String,
    triggers: std::cell::Cell<u32>,
}

impl<'a, S: Server> Swept<'a, S> {
    async fn new(server: &'a S, partitions: u64) -> Self {
        let (store, prefix) = server.store(PATIENCE).await;
        let swept = Self {
            server,
            store,
            prefix,
            triggers: std::cell::Cell::new(0),
        };
        swept.put(partitions);
        swept
    }

    fn put(&self, partitions: u64) {
        let last = partitions - 1;
        let id = self.of("sha256(n::text::bytea)", "UNHEX(SHA2(n, 256))");
        let entry = self.of("decode(repeat('01', 16), 'hex')", "UNHEX(REPEAT('01', 16))");
        let numbers = self.of(
            &format!("generate_series(0, {last}) n"),
            &format!("(SELECT seq AS n FROM seq_0_to_{last}) numbers"),
        );
        for insert in [
            format!(
                "INSERT INTO {{partitions}} SELECT {id}, 1, 0, 1, 0, NULL, NULL, NULL, 1, 1, '', 1"
            ),
            format!("INSERT INTO {{entries}} SELECT {id}, {entry}, 1, 1, 1, 'x'"),
        ] {
            let insert = self.named(&format!("{insert} FROM {numbers}"));
            self.server.query(&insert);
        }
    }

    /// A store that has not swept yet.
    fn another(&self) -> S::Store {
        S::build(&self.server.url(), &self.prefix, PATIENCE).unwrap()
    }

    fn is_postgres(&self) -> bool {
        self.server.url().starts_with("postgres")
    }

    fn of(&self, postgres: &str, mysql: &str) -> String {
        self.named(if self.is_postgres() { postgres } else { mysql })
    }

    /// With the names of the tables in the place of `{partitions}` and so on.
    fn named(&self, statement: &str) -> String {
        let mut named = statement.replace("{prefix}", &self.prefix);
        for table in ["partitions", "entries", "leases", "deleted", "attempts"] {
            let name = format!("{}{table}", self.prefix);
            named = named.replace(&format!("{{{table}}}"), &name);
        }
        named
    }

    fn run(&self, postgres: &str, mysql: &str) -> Vec<String> {
        self.server.query(&self.of(postgres, mysql))
    }

    fn rows(&self, query: &str) -> Vec<String> {
        self.server.query(&self.named(query))
    }

    /// What is done before a partition is deleted, after all that was said before.
    fn before_delete(&self, postgres: &str, mysql: &str) {
        let number = self.triggers.get() + 1;
        self.triggers.set(number);
        let name = format!("before_delete_{number}");
        self.run(
            &format!(
                "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN {postgres}; RETURN OLD; END $$; \
                 CREATE TRIGGER {name} BEFORE DELETE ON {{partitions}} FOR EACH ROW EXECUTE FUNCTION {name}()"
            ),
            &format!(
                "CREATE TRIGGER {{prefix}}{name} BEFORE DELETE ON {{partitions}} FOR EACH ROW {mysql}"
            ),
        );
    }

    /// Partitions that are over.
    fn left(&self) -> u64 {
        let rows = self.rows("SELECT count(*) FROM {partitions} WHERE purge_hour = 1");
        rows[0].parse().unwrap()
    }

    async fn until_left(&self, partitions: u64) {
        // Thousands of rows take a busy machine a while.
        let freed = async {
            while self.left() != partitions {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let freed = tokio::time::timeout(Duration::from_secs(60), freed).await;
        freed.expect("it is freed");
    }

    /// Which session has the lock of sweeps.
    fn sweeper(&self) -> Option<String> {
        let sessions = self.run(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid <> 4711",
            "SELECT IS_USED_LOCK('{prefix}sweep')",
        );
        sessions.into_iter().find(|session| session != "NULL")
    }
}
