//! Real Redis servers in the forms that operators run them in. All end with the value.

use std::fs;
use std::net::TcpListener;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub use super::certificates::Certificates;
use super::process::Process;
use super::{eventually, free_port};

/// One server.
pub struct Node {
    process: Process,
    pub port: u16,
    dir: TempDir,
    arguments: &'static [&'static str],
}

impl Node {
    /// A server with these lines of configuration, on a port of its own.
    pub fn start(config: &str) -> Self {
        Self::launch(config, &[])
    }

    /// A sentinel with these lines of configuration.
    pub fn start_sentinel(config: &str) -> Self {
        Self::launch(config, &["--sentinel"])
    }

    fn launch(config: &str, arguments: &'static [&'static str]) -> Self {
        for _ in 0..20 {
            let (dir, port) = (tempfile::tempdir().expect("a folder"), port_with_bus());
            let path = dir.path().join("redis.conf");
            let port_line = match config.contains("tls-port") {
                true => String::new(),
                false => format!("port {port}\n"),
            };
            let config = config
                .replace("{port}", &port.to_string())
                .replace("{dir}", &dir.path().display().to_string());
            let common = format!("bind 127.0.0.1\ndir {}\nsave \"\"\n", dir.path().display());
            let common = match arguments {
                [] => common,
                _ => common.replace("save \"\"\n", ""),
            };
            fs::write(&path, format!("{port_line}{common}{config}\n")).expect("a file");
            if let Some(process) = spawn(&path, arguments) {
                return Self {
                    process,
                    port,
                    dir,
                    arguments,
                };
            }
        }
        panic!("redis-server does not start with: {config}");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Comes back on the same port with what it has on disk, after [`kill`](Process::kill).
    pub fn restart(&mut self) {
        let config = self.dir.path().join("redis.conf");
        self.process = spawn(&config, self.arguments).expect("the port is still ours");
    }

    /// A command of words, over a connection of its own.
    pub fn query<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        self.query_with(&format!("redis://127.0.0.1:{}", self.port), command)
    }

    pub fn query_with<T: redis::FromRedisValue>(
        &self,
        url: &str,
        command: &str,
    ) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().expect("a name"));
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut connection)
    }

    /// Its name in its cluster.
    pub fn id(&self) -> redis::RedisResult<String> {
        self.query("CLUSTER MYID")
    }

    /// How often it has sent somebody on: by `ASK` or `MOVED`.
    pub fn redirections(&self, how: &str) -> u64 {
        let stats: String = self.query("INFO errorstats").unwrap_or_default();
        let prefix = format!("errorstat_{how}:count=");
        let count = |line: &str| line.strip_prefix(&prefix)?.trim().parse().ok();
        stats.lines().find_map(count).unwrap_or(0)
    }

    /// Of a server without a password.
    pub fn is_master(&self) -> bool {
        let info = self.query::<String>("INFO replication");
        info.is_ok_and(|info| info.contains("role:master"))
    }

    /// Whether it is a master that a replica follows, or a replica that follows its master.
    pub fn is_in_step(&self) -> bool {
        let info = self.query::<String>("INFO replication").unwrap_or_default();
        info.contains("state=online") || info.contains("master_link_status:up")
    }

    /// Whether it is a master whose one replica has got everything.
    fn is_replicated_by(&self, url: &str) -> bool {
        let info = self.query_with::<String>(url, "INFO replication");
        let info = info.unwrap_or_default();
        let mut lines = info.lines();
        let offset = lines.find_map(|line| line.strip_prefix("master_repl_offset:"));
        offset.is_some_and(|offset| {
            let replica = format!("state=online,offset={offset},");
            info.contains("role:master") && info.contains(&replica)
        })
    }
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn spawn(config: &Path, arguments: &[&str]) -> Option<Process> {
    Process::redis(|command| {
        command.arg(config).args(arguments);
    })
}

/// A free port whose cluster bus, 10000 above it, is free as well.
fn port_with_bus() -> u16 {
    loop {
        let port = free_port();
        let bus = port.checked_add(10_000);
        if bus.is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
}

/// Three masters, and a replica of each.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// With these further lines of configuration.
    pub async fn start_with(config: &str) -> Self {
        let config = format!(
            "cluster-enabled yes\ncluster-node-timeout 1000\n\
             cluster-require-full-coverage no\nrepl-diskless-sync-delay 0\n{config}"
        );
        let nodes: Vec<_> = (0..6).map(|_| Node::start(&config)).collect();
        let id = |node: &Node| node.query::<String>("CLUSTER MYID").expect("an id");
        for (i, node) in nodes.iter().take(3).enumerate() {
            let slots = (16384 * i / 3)..(16384 * (i + 1) / 3);
            let slots: Vec<_> = slots.map(|slot| slot.to_string()).collect();
            node.query::<()>(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")))
                .expect("free slots");
        }
        for (i, node) in nodes.iter().enumerate() {
            // Two nodes of the same epoch would settle that later, in the middle of a test.
            node.query::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1))
                .expect("a new node");
            node.query::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port))
                .expect("it can meet");
        }
        for i in 0..3 {
            let replicate = format!("CLUSTER REPLICATE {}", id(&nodes[i]));
            eventually("the nodes know each other", async || {
                nodes[i + 3].query::<()>(&replicate).is_ok()
            })
            .await;
        }
        let cluster = Self { nodes };
        eventually("the cluster is up", async || {
            let up = |node: &Node| {
                let info: String = node.query("CLUSTER INFO").unwrap_or_default();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6")
            };
            cluster.nodes.iter().all(up)
        })
        .await;
        cluster.replicated().await;
        cluster
    }

    pub fn url(&self) -> String {
        let hosts = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port));
        format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
    }

    /// The slot of a key.
    pub fn slot_of(&self, key: &str) -> u16 {
        let mut nodes = self.nodes.iter();
        let slot = nodes.find_map(|node| node.query(&format!("CLUSTER KEYSLOT {key}")).ok());
        slot.expect("a node that answers")
    }

    /// The slots of a master.
    pub fn slots_of(&self, master: &Node) -> Vec<u16> {
        let nodes: String = master.query("CLUSTER NODES").unwrap_or_default();
        let own = nodes.lines().find(|line| line.contains("myself"));
        let ranges = own.into_iter().flat_map(|own| own.split(' ').skip(8));
        ranges.filter_map(slots_of_range).flatten().collect()
    }

    /// Whether all nodes, the replicas too, know the same masters of all slots. A replica that has
    /// not yet heard of a slot would not take it over with the others, and the slot be nobody's.
    pub fn is_agreed(&self) -> bool {
        let mut views = self.nodes.iter().map(|node| {
            let nodes: String = node.query("CLUSTER NODES").unwrap_or_default();
            let masters = nodes.lines().filter_map(|line| {
                let mut words = line.split(' ');
                let (id, slots) = (words.next()?.to_owned(), words.skip(7));
                let slots: Vec<_> = slots.filter_map(slots_of_range).collect();
                (!slots.is_empty()).then_some((id, slots))
            });
            masters.collect::<std::collections::BTreeMap<_, _>>()
        });
        let Some(view) = views.next() else {
            return true;
        };
        let known: usize = view
            .values()
            .flatten()
            .map(|range| range.clone().count())
            .sum();
        known == 16384 && views.all(|other| other == view)
    }

    /// Begins to move a slot from one master to another: what is there is served by the first,
    /// and whoever asks for something else is sent to the second.
    pub fn begin_move(&self, slot: u16, from: &Node, to: &Node) -> redis::RedisResult<()> {
        to.query::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id()?))?;
        from.query(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id()?))
    }

    /// Moves up to so many keys of a slot; how many were left to move.
    pub fn move_keys(
        &self,
        (slot, count): (u16, usize),
        from: &Node,
        to: &Node,
    ) -> redis::RedisResult<usize> {
        let keys: Vec<String> = from.query(&format!("CLUSTER GETKEYSINSLOT {slot} {count}"))?;
        if keys.is_empty() {
            return Ok(0);
        }
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", from.port))?;
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(to.port).arg("").arg(0);
        migrate.arg(1000).arg("KEYS").arg(&keys);
        migrate.exec(&mut client.get_connection()?)?;
        Ok(keys.len())
    }

    /// Ends what [`begin_move`](Self::begin_move) has begun, once all keys are moved.
    pub fn end_move(&self, slot: u16, from: &Node, to: &Node) -> redis::RedisResult<()> {
        let set = format!("CLUSTER SETSLOT {slot} NODE {}", to.id()?);
        // Its new master first: while nobody knew of it the slot would be nobody's.
        to.query::<()>(&set)?;
        from.query::<()>(&set)?;
        for node in self.nodes.iter().filter(|node| node.is_master()) {
            node.query::<()>(&set)?;
        }
        Ok(())
    }

    /// Waits until the first three, as long as they are masters, have replicas of all they have.
    pub async fn replicated(&self) {
        eventually("all is replicated", async || {
            let mut masters = self.nodes.iter().take(3).filter(|node| node.is_master());
            masters.all(|node| node.is_replicated_by(&format!("redis://127.0.0.1:{}", node.port)))
        })
        .await;
    }
}

/// As `CLUSTER NODES` prints them: `7` or `7-9`, but not `[7->-…]`, which is on its way.
fn slots_of_range(range: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// A master, a replica and three sentinels.
pub struct SentinelSet {
    pub servers: [Node; 2],
    pub sentinels: Vec<Node>,
}

impl SentinelSet {
    pub async fn start(password: &str) -> Self {
        Self::start_with(password, "").await
    }

    /// With these further lines of configuration for the servers.
    pub async fn start_with(password: &str, config: &str) -> Self {
        let auth = match password {
            "" => config.to_owned(),
            _ => format!("requirepass {password}\nmasterauth {password}\n{config}"),
        };
        let auth_pass = match password {
            "" => String::new(),
            _ => format!("sentinel auth-pass tokens {password}\n"),
        };
        let master = Node::start(&format!("{auth}\nrepl-diskless-sync-delay 0"));
        let replica = Node::start(&format!("{auth}\nreplicaof 127.0.0.1 {}", master.port));
        let config = format!(
            "sentinel monitor tokens 127.0.0.1 {} 2\n{auth_pass}\
             sentinel down-after-milliseconds tokens 1000\nsentinel failover-timeout tokens 1000",
            master.port
        );
        let set = Self {
            servers: [master, replica],
            sentinels: (0..3).map(|_| Node::start_sentinel(&config)).collect(),
        };
        eventually(
            "the sentinels know each other and the replica",
            async || {
                let knows = |sentinel: &Node| {
                    let master = "SENTINEL MASTER tokens";
                    let fields: std::collections::HashMap<String, String> =
                        sentinel.query(master).unwrap_or_default();
                    fields.get("num-slaves").is_some_and(|n| n == "1")
                        && fields.get("num-other-sentinels").is_some_and(|n| n == "2")
                };
                set.sentinels.iter().all(knows)
            },
        )
        .await;
        set
    }

    pub fn hosts(&self) -> String {
        let hosts = self
            .sentinels
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port));
        hosts.collect::<Vec<_>>().join(",")
    }

    /// Waits until one server is the other's replica, and has got everything.
    pub async fn replicated(servers: &[Node], credentials: &str) {
        let done = |node: &Node| {
            let url = format!("redis://{credentials}127.0.0.1:{}", node.port);
            node.is_replicated_by(&url)
        };
        eventually("all is replicated", async || servers.iter().any(done)).await;
    }
}
