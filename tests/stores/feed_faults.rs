//! The feed of Redis while servers pause, connections stall and passwords change: what was signed out elsewhere is
//! not served for longer than is said, and the feed comes back by itself.

mod refusals;
mod stalls;

use std::time::{Duration, Instant};

use common::support::*;
use tower_token_cache::{FailurePolicy, RedisStore, TokenCache, Tokens};

/// A proof is believed for so long.
const TRUST: Duration = Duration::from_secs(3);
/// Memory is compared so often where nothing is proven.
const RECHECK: Duration = Duration::from_secs(1);
/// For a busy machine.
const ROOM: Duration = Duration::from_millis(500);
/// What a feed that cannot connect may try in five seconds: four times at first, and then each second.
const ATTEMPTS: u64 = 12;

/// An instance that is asked, and another one that signs users out.
struct Fleet {
    here: TokenCache,
    there: TokenCache,
    round: u32,
}

impl Fleet {
    async fn of(here: RedisStore, there: RedisStore) -> Self {
        let fleet = Self {
            here: cache(here),
            there: cache(there),
            round: 0,
        };
        hears(&fleet.here).await;
        hears(&fleet.there).await;
        fleet
    }

    /// A session that this instance has in memory, as the store has it. No read of it is answered unless it is known.
    async fn known(&mut self) -> Known {
        self.round += 1;
        let key = session(&self.round.to_string());
        let theirs = self.there.tokens(key.clone());
        theirs.insert("graph", token("t")).await.unwrap();
        // A fault that has just ended may cost the first attempt.
        drained(&self.there).await;
        let ours = self.here.tokens(key);
        ours.set_failure_policy(FailurePolicy::Strict);
        let known = Known { ours, theirs };
        eventually("it is in memory", async || {
            let reads = self.here.stats().l2_reads;
            known.is_served().await && self.here.stats().l2_reads == reads
        })
        .await;
        known
    }

    /// A sign-out elsewhere ends the hits here in time.
    async fn a_sign_out_holds_within(&mut self, bound: Duration) {
        let known = self.known().await;
        let began = Instant::now();
        assert_stored(known.theirs.sign_out().await.unwrap());
        known.ends_by(began + bound).await;
    }

    async fn is_lost(&self) {
        eventually("the feed is lost", async || {
            self.here.stats().feed_alive == Some(false)
        })
        .await;
    }
}

struct Known {
    ours: Tokens,
    theirs: Tokens,
}

impl Known {
    async fn is_served(&self) -> bool {
        self.ours.get("graph").await.is_ok_and(|it| it.is_hit())
    }

    /// No hit is served after this time.
    async fn ends_by(&self, deadline: Instant) {
        while self.is_served().await {
            let late = Instant::now().saturating_duration_since(deadline + ROOM);
            assert!(late.is_zero(), "served {late:?} too long");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// An operator's connection, which stays open.
struct Admin(redis::Connection);

impl Admin {
    fn of(url: &str) -> Self {
        let client = redis::Client::open(url).unwrap();
        Self(client.get_connection().unwrap())
    }

    fn run<T: redis::FromRedisValue>(&mut self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query(&mut self.0).unwrap()
    }

    /// Cuts the connections by which instances are told, and no other.
    fn cut_feeds(&mut self) {
        let clients: String = self.run("CLIENT LIST");
        for client in clients.lines() {
            let field = |name: &str| client.split(' ').find_map(|field| field.strip_prefix(name));
            if field("flags=").unwrap().contains('t') {
                let _: u64 = self.run(&format!("CLIENT KILL ID {}", field("id=").unwrap()));
            }
        }
    }

    fn connections(&mut self) -> u64 {
        let stats: String = self.run("INFO stats");
        let count = |line: &str| {
            line.strip_prefix("total_connections_received:")?
                .parse()
                .ok()
        };
        stats.lines().find_map(count).unwrap()
    }
}
