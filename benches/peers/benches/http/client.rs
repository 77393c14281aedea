//! A client that asks as fast as it is answered, over connections that stay open.

use std::cell::Cell;
use std::time::{Duration, Instant};

use peers::users::STRIDE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

pub struct Client {
    connections: Vec<Connection>,
    /// One request per user, as it goes over the wire.
    requests: std::rc::Rc<[Vec<u8>]>,
}

/// What came of a round.
pub struct Load {
    pub lasted: Duration,
    /// Of each request.
    pub micros: Vec<f64>,
}

struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(port: u16, cookies: &[String], connections: usize) -> Self {
        let request = |cookie: &String| {
            format!("GET /read HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n")
                .into_bytes()
        };
        let mut open = Vec::with_capacity(connections);
        for _ in 0..connections {
            let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.set_nodelay(true).unwrap();
            open.push(Connection {
                socket,
                buffer: Vec::with_capacity(4096),
            });
        }
        Self {
            connections: open,
            requests: cookies.iter().map(request).collect(),
        }
    }

    /// Each connection has one request under way at a time.
    pub async fn run(&mut self, length: Duration) -> Load {
        let started = Instant::now();
        let next = std::rc::Rc::new(Cell::new(0));
        let mut tasks = JoinSet::new();
        let local = LocalSet::new();
        for mut connection in self.connections.drain(..) {
            let (requests, next) = (self.requests.clone(), next.clone());
            let task = async move {
                let mut micros = Vec::new();
                while started.elapsed() < length {
                    let user = next.get();
                    next.set((user + STRIDE) % requests.len());
                    let asked = Instant::now();
                    connection.ask(&requests[user]).await;
                    micros.push(asked.elapsed().as_nanos() as f64 / 1e3);
                }
                (connection, micros)
            };
            tasks.spawn_local_on(task, &local);
        }
        let results = local.run_until(tasks.join_all()).await;
        let lasted = started.elapsed();
        let mut micros = Vec::new();
        for (connection, times) in results {
            self.connections.push(connection);
            micros.extend(times);
        }
        Load { lasted, micros }
    }
}

impl Connection {
    async fn ask(&mut self, request: &[u8]) {
        self.socket.write_all(request).await.unwrap();
        self.buffer.clear();
        loop {
            let read = self.socket.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "the server has closed the connection");
            if let Some(length) = complete(&self.buffer) {
                assert_eq!(length, self.buffer.len());
                return;
            }
        }
    }
}

/// The length of an answer that is all there.
fn complete(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let mut lines = text.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "))?;
    let whole = head + length.parse::<usize>().unwrap();
    (buffer.len() >= whole).then_some(whole)
}
