//! Everybody comes at once, to instances that have just been started, with L2 far away.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::http_client::Connection;
use common::playground::{PLAYGROUNDS, Playground};
use common::provider::{CLIENT_ID, CLIENT_SECRET, Provider};
use common::proxy::Proxy;
use common::redis::RedisServer;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::MACHINE;

const USERS: usize = 5_000;
/// One user of so many writes besides.
const WRITES: usize = 10;
/// How much later an answer of L2 comes, in milliseconds.
const FAR: u64 = 5;
/// A third of what all users would take.
const L1_BYTES: u64 = 4 << 20;
/// As many as a listener's backlog holds, so that no connection has to be tried again.
const ABREAST: usize = 200;
/// For all of a round. Far more than it takes.
const ROUND: Duration = Duration::from_secs(40);

/// What a user wants of an instance.
#[derive(Clone, Debug)]
struct Wish {
    user: usize,
    instance: usize,
    is_write: bool,
}

struct Served {
    wish: Wish,
    status: u16,
    body: Value,
    took: Duration,
}

fn name(user: usize) -> String {
    format!("user-{user}")
}

/// What this user writes in this round.
fn note(user: usize, round: usize) -> String {
    format!("note-{user}-{round}")
}

impl Wish {
    /// Sends itself once it may, and waits for the answer.
    async fn served(self, mut connection: Connection, begin: Instant, round: usize) -> Served {
        let user = name(self.user);
        let body = match self.is_write {
            true => json!({"access_token": note(self.user, round), "expires_in": 3600}).to_string(),
            false => String::new(),
        };
        let (method, path) = match self.is_write {
            true => ("PUT", "/tokens/note"),
            false => ("POST", "/acquire/graph"),
        };
        let length = body.len();
        let headers =
            format!("x-session: {user}\r\nconnection: close\r\ncontent-length: {length}\r\n");
        connection
            .request(method, path, &headers, &body)
            .await
            .unwrap();
        let response = connection.response().await.unwrap();
        // Chunks have their length before them.
        let body = response.body.find('{').map(|start| {
            let end = response.body.rfind('}').unwrap();
            serde_json::from_str(&response.body[start..=end]).unwrap()
        });
        Served {
            wish: self,
            status: response.status,
            body: body.unwrap_or(Value::Null),
            took: begin.elapsed(),
        }
    }
}

/// All connections are open before the first request is sent.
async fn at_once(instances: &[Playground], wishes: Vec<Wish>, round: usize) -> Vec<Served> {
    let addresses: Vec<_> = instances.iter().map(Playground::address).collect();
    let open = wishes.into_iter().map(|wish| {
        let address = addresses[wish.instance];
        async move { (Connection::open(address).await.unwrap(), wish) }
    });
    let open: Vec<_> = stream::iter(open).buffer_unordered(ABREAST).collect().await;
    let (go, gone) = watch::channel(None);
    let mut requests = JoinSet::new();
    for (connection, wish) in open {
        let mut gone = gone.clone();
        requests.spawn(async move {
            let begin = gone.wait_for(Option::is_some).await.unwrap().unwrap();
            wish.served(connection, begin, round).await
        });
    }
    go.send_replace(Some(Instant::now()));
    let served = tokio::time::timeout(ROUND, requests.join_all()).await;
    served.expect("everybody is served")
}

/// User and system time that a process has had.
fn cpu(process: &Playground) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|it| it.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Past the harness, which shows the output of failed tests only.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn figures(title: &str, served: &[Served], cpu: Duration) {
    let mut took: Vec<_> = served.iter().map(|served| served.took).collect();
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    let mut statuses = BTreeMap::<String, usize>::new();
    for served in served {
        let error = served.body["error"].as_str().unwrap_or_default();
        *statuses
            .entry(format!("{} {error}", served.status))
            .or_default() += 1;
    }
    report(&format!(
        "{title}: {} requests, p50 {:.0?}, p99 {:.0?}, all {:.0?}, CPU of the instances {cpu:.1?}; {statuses:?}",
        served.len(),
        at(0.5),
        at(0.99),
        at(1.0),
    ));
}

struct Fleet {
    provider: Arc<Provider>,
    redis: RedisServer,
    _proxy: Proxy,
    instances: Vec<Playground>,
}

impl Fleet {
    /// Users who have signed in on an instance that is gone, and whose access tokens have expired since.
    async fn start() -> Self {
        common::many_connections();
        let redis = RedisServer::start();
        let provider = Arc::new(Provider::start().await);
        let earlier = Playground::start(PLAYGROUNDS[0], &["--store", &redis.url()]);
        let sign_in = async |user: usize| {
            let name = name(user);
            let set = json!({
                "access_token": format!("old-{user}"), "refresh_token": provider.sign_in(&name),
                "expires_in": 0,
            });
            let headers = [("x-session", &*name), ("x-write-mode", "before")];
            let set = set.to_string();
            let answer = earlier.send("PUT", "/tokens/graph", &headers, &set).await;
            assert_eq!(answer.status, 204);
        };
        stream::iter(0..USERS)
            .map(sign_in)
            .buffer_unordered(ABREAST)
            .collect::<Vec<_>>()
            .await;
        earlier.terminate();

        let (proxy, far) = Proxy::before(&redis.url()).await;
        proxy.delay(FAR);
        let issuer = provider.issuer("any");
        let l1 = L1_BYTES.to_string();
        let options = [
            ["--store", &far],
            ["--l1-max-bytes", &l1],
            ["--issuer", &issuer],
            ["--client-id", CLIENT_ID],
            ["--client-secret", CLIENT_SECRET],
        ];
        let start = |example| Playground::start(example, options.as_flattened());
        let instances: Vec<_> = PLAYGROUNDS.into_iter().map(start).collect();
        for instance in &instances {
            common::eventually("the channel is up", async || {
                instance.try_status().await.unwrap()["feed_alive"] == json!(true)
            })
            .await;
        }
        Self {
            provider,
            redis,
            _proxy: proxy,
            instances,
        }
    }

    fn cpu(&self) -> Duration {
        self.instances.iter().map(cpu).sum()
    }

    /// Every user at once.
    async fn round(&self, title: &str, round: usize, wishes: Vec<Wish>) -> Vec<Served> {
        let before = self.cpu();
        let served = at_once(&self.instances, wishes, round).await;
        figures(title, &served, self.cpu() - before);
        for instance in &self.instances {
            let status = instance.try_status().await.unwrap();
            report(&format!("  {status}"));
        }
        served
    }
}

fn assert_served(served: &[Served]) {
    for served in served {
        let wanted = if served.wish.is_write { 204 } else { 200 };
        assert_eq!(served.status, wanted, "{:?}: {}", served.wish, served.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_users_at_once_are_served() {
    let _machine = MACHINE.lock().await;
    // Built before time counts.
    common::playground::binary(PLAYGROUNDS[0]);
    let started = Instant::now();
    let fleet = Fleet::start().await;
    report(&format!("\nsigned in after {:.1?}", started.elapsed()));
    let Fleet {
        provider,
        instances,
        ..
    } = &fleet;

    // Cold: no instance has anybody in memory. Who writes does so on the other instance.
    let acquire = |user| Wish {
        user,
        instance: user / 2 % 2,
        is_write: false,
    };
    let write = |user| Wish {
        user,
        instance: (user / 2 + 1) % 2,
        is_write: true,
    };
    let wishes = (0..USERS)
        .map(acquire)
        .chain((0..USERS).step_by(WRITES).map(write));
    let served = fleet.round("cold", 0, wishes.collect()).await;
    assert_served(&served);
    for served in served.iter().filter(|served| !served.wish.is_write) {
        let user = served.wish.user;
        let token = served.body["access_token"].as_str().unwrap();
        assert!(provider.is_newest(&name(user), token), "{token}");
    }

    // On the other instance, where most are not in memory.
    let wish = |user: usize| Wish {
        user,
        instance: (user / 2 + 1) % 2,
        is_write: user % WRITES == 1,
    };
    let served = fleet
        .round("again", 1, (0..USERS).map(wish).collect())
        .await;
    assert_served(&served);

    for instance in instances {
        assert!(instance.status("l1_bytes").await <= L1_BYTES);
    }
    for user in 0..USERS {
        assert_eq!(provider.redemptions(&name(user)), 1, "{}", name(user));
    }
    assert_eq!((provider.reuses(), provider.calls()), (0, USERS as u64));
    let Fleet {
        provider,
        redis,
        instances,
        ..
    } = fleet;
    for instance in instances {
        let last = instance.terminate();
        assert!(last.ends_with("abandoned=0\n"), "{last}");
    }

    let later = Playground::start(PLAYGROUNDS[0], &["--store", &redis.url()]);
    let check = async |user: usize| {
        let graph = later.get(&name(user), "/tokens/graph").await.body;
        let text = |member: &str| graph[member].as_str().unwrap().to_owned();
        assert!(provider.is_newest(&name(user), &text("access_token")));
        assert!(provider.is_redeemable(&name(user), &text("refresh_token")));
        if let round @ 0..2 = user % WRITES {
            let written = later.get(&name(user), "/tokens/note").await.body;
            assert_eq!(written["access_token"], note(user, round));
        }
    };
    stream::iter(0..USERS)
        .map(check)
        .buffer_unordered(ABREAST)
        .collect::<Vec<_>>()
        .await;
    report(&format!("  all of it {:.1?}", started.elapsed()));
}
