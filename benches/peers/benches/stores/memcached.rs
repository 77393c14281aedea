//! Memcached: `MemcachedStore` beside its protocol over bare sockets.

use futures_util::future::join_all;
use peers::servers::memcached::MemcachedServer;
use peers::users::USERS;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tower_token_cache::store::PartitionId;
use tower_token_cache::{Estimate, MemcachedStore};

use super::side::{Ours, SLIDING, Side};
use super::turns::{Measured, compare};

/// As many as a store of ours has at most.
const CONNECTIONS: usize = 16;

pub async fn measure(store: &'static str) -> Measured {
    let server = MemcachedServer::start_with(&["-M", "-m", "512", "-o", "slab_automove=0"]);
    let memcached = MemcachedStore::connect(&server.url()).await.unwrap();
    let mut ours = Ours::filled(memcached, "ours").await;
    let stored = server.stat("bytes");
    ours.change_all().await;
    ours.change_all().await;
    let changed = server.stat("bytes");
    let memcached = MemcachedStore::connect(&server.url()).await.unwrap();
    let theirs = Ours::filled(memcached, "raw").await;
    let mut raw = Raw::connect(&server.url(), &theirs.ids).await;
    Measured {
        store,
        rows: compare(&mut ours, &mut raw).await,
        stored,
        changed,
        estimate: Estimate::users(USERS as u64, 1).memcached,
    }
}

/// Users that are asked for at once are shared out among the connections.
struct Raw {
    connections: Vec<BufReader<TcpStream>>,
    keys: Vec<String>,
    /// What a commit stores.
    blob: Vec<u8>,
}

impl Raw {
    async fn connect(url: &str, ids: &[PartitionId]) -> Self {
        let address = url.strip_prefix("memcached://").expect("its form");
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            connections.push(BufReader::new(stream));
        }
        let key = |id: &PartitionId| format!("{}:{}", id.namespace(), id.encoded());
        let keys: Vec<_> = ids.iter().map(key).collect();
        let (blob, _) = get(&mut connections[0], &keys[0]).await;
        Self {
            connections,
            keys,
            blob,
        }
    }

    async fn each(
        &mut self,
        users: &[usize],
        ask: impl AsyncFn(&mut BufReader<TcpStream>, &str, &[u8]),
    ) {
        let share = users.len().div_ceil(self.connections.len());
        let shares = users.chunks(share).zip(&mut self.connections);
        let (keys, blob, ask) = (&self.keys, &self.blob, &ask);
        let asked = shares.map(|(share, connection)| async move {
            for user in share {
                ask(connection, &keys[*user], blob).await;
            }
        });
        join_all(asked).await;
    }
}

impl Side for Raw {
    async fn load(&mut self, users: &[usize]) {
        let load = async |connection: &mut BufReader<TcpStream>, key: &str, _: &[u8]| {
            get(connection, key).await;
        };
        self.each(users, load).await;
    }

    async fn commit(&mut self, users: &[usize]) {
        let commit = async |connection: &mut BufReader<TcpStream>, key: &str, blob: &[u8]| {
            let (_, number) = get(connection, key).await;
            let (end, length) = (SLIDING.as_secs(), blob.len());
            let head = format!("cas {key} 0 {end} {length} {number}\r\n");
            connection
                .write_all(&[head.as_bytes(), blob, b"\r\n"].concat())
                .await
                .unwrap();
            assert_eq!(line(connection).await, "STORED");
        };
        self.each(users, commit).await;
    }
}

/// A value, and its number.
async fn get(connection: &mut BufReader<TcpStream>, key: &str) -> (Vec<u8>, u64) {
    let command = format!("gets {key}\r\n");
    connection.write_all(command.as_bytes()).await.unwrap();
    let head = line(connection).await;
    let numbers: Vec<u64> = head.split(' ').skip(3).flat_map(str::parse).collect();
    let [length, number] = numbers[..] else {
        panic!("{head}");
    };
    let mut value = vec![0; length as usize];
    connection.read_exact(&mut value).await.unwrap();
    assert_eq!(line(connection).await, "");
    assert_eq!(line(connection).await, "END");
    (value, number)
}

async fn line(connection: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    connection.read_line(&mut line).await.unwrap();
    line.trim_end().into()
}
