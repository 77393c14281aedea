//! Guarantee 4 in a whole fleet: one redemption, whatever happens. Real processes of both
//! frameworks share one real Redis, and the provider ends the family of a refresh token that is
//! redeemed twice.

mod bursts;
mod faults;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use common::playground::{Answer, PLAYGROUNDS, Playground};
use common::provider::{CLIENT_ID, CLIENT_SECRET, Provider};
use common::redis::RedisServer;
use common::{eventually, many_connections};
use futures_util::future::join_all;
use tokio::sync::MutexGuard;
use tokio::task::JoinHandle;

use crate::MACHINE;

const PROCESSES: usize = 4;

struct Fleet {
    provider: Provider,
    redis: RedisServer,
    /// Number `n` knows the provider by the issuer named `n`.
    processes: Vec<Arc<Playground>>,
    _alone: MutexGuard<'static, ()>,
}

/// Requests to one process that are under way.
struct Burst(Vec<JoinHandle<Option<Answer>>>);

impl Fleet {
    async fn start() -> Self {
        Self::start_with(RedisServer::start(), "30").await
    }

    /// With leases of so many seconds.
    async fn start_with(redis: RedisServer, lease: &str) -> Self {
        let alone = MACHINE.lock().await;
        many_connections();
        let provider = Provider::start().await;
        let process = |number: usize| {
            let (store, issuer) = (redis.url(), provider.issuer(&number.to_string()));
            let options = [
                ["--store", &store],
                ["--lease", lease],
                ["--issuer", &issuer],
                ["--client-id", CLIENT_ID],
                ["--client-secret", CLIENT_SECRET],
            ];
            let example = PLAYGROUNDS[number % PLAYGROUNDS.len()];
            Arc::new(Playground::start(example, options.as_flattened()))
        };
        Self {
            processes: (0..PROCESSES).map(process).collect(),
            provider,
            redis,
            _alone: alone,
        }
    }

    /// The user has a refresh token, and an access token of another name that has expired.
    async fn sign_in(&self, user: &str) {
        let refresh_token = self.provider.sign_in(user);
        self.processes[0].sign_in(user, &refresh_token).await;
    }

    /// So many requests of one user to one process.
    fn burst(&self, process: usize, user: &str, path: &str, requests: usize) -> Burst {
        Burst::of(requests, || {
            let (process, user, path) = (
                self.processes[process].clone(),
                user.to_owned(),
                path.to_owned(),
            );
            async move { process.try_acquire(&user, &path).await }
        })
    }

    /// So many requests of one user to each process.
    fn bursts(&self, user: &str, requests: usize) -> Vec<Burst> {
        let burst = |process| self.burst(process, user, "/acquire/graph", requests);
        (0..PROCESSES).map(burst).collect()
    }

    /// Every other process waits for the one that holds the lease: it looks at L2 again and again.
    async fn wait_for_all_but(&self, holder: usize) {
        for (number, process) in self.processes.iter().enumerate() {
            let before = process.status("l2_reads").await;
            eventually("it waits", async || {
                number == holder || process.status("l2_reads").await >= before + 3
            })
            .await;
        }
    }

    /// Every answer is the newest token of this user, who redeemed once, and in time.
    fn assert_one_redemption(&self, user: &str, answers: &[Answer]) {
        for answer in answers {
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            let token = answer.body["access_token"].as_str().unwrap();
            assert!(self.provider.is_newest(user, token), "{token}");
        }
        assert_eq!(self.provider.redemptions(user), 1);
        assert_eq!(self.provider.reuses(), 0);
    }

    fn assert_refused(&self, answers: &[Answer], status: u16, error: &str) {
        for answer in answers {
            assert_eq!(answer.status, status, "{:?}", answer.body);
            assert_eq!(answer.body["error"], error);
        }
    }
}

impl Burst {
    /// So many of these at once.
    fn of<F>(requests: usize, request: impl Fn() -> F) -> Self
    where
        F: Future<Output = Option<Answer>> + Send + 'static,
    {
        Self((0..requests).map(|_| tokio::spawn(request())).collect())
    }

    /// Every answer. Fails when there is none, and rather than hang.
    async fn answers(self) -> Vec<Answer> {
        let all = join_all(self.0);
        let all = tokio::time::timeout(Duration::from_secs(60), all).await;
        let all = all.expect("nobody hangs").into_iter();
        all.map(|one| one.unwrap().expect("an answer")).collect()
    }

    /// Hangs up.
    async fn hang_up(self) {
        for request in self.0 {
            request.abort();
            assert!(request.await.is_err(), "it was under way");
        }
    }
}

async fn answers(bursts: impl IntoIterator<Item = Burst>) -> Vec<Answer> {
    let all = join_all(bursts.into_iter().map(Burst::answers)).await;
    all.into_iter().flatten().collect()
}
