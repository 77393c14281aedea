//! One connection: a command, and its answer, in the text protocol.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::address::Address;
use super::server::Server;
use crate::error::{StoreError, StoreErrorKind};
use crate::wipe::Wiped;

/// Longer than any line of an answer.
const MAX_LINE: u64 = 4096;
/// More than a server says of itself.
const MAX_STATS: usize = 1000;
/// The largest value that a server can be told to take (`-I`).
const MAX_VALUE: usize = 1 << 30;

/// When the server was started, and its number of the value. Numbers begin anew with each start.
pub(super) type Revision = (u64, u64);

/// What a server is asked for.
pub(super) enum Command<'a> {
    Get {
        key: &'a str,
    },
    Put {
        key: &'a str,
        value: &'a [u8],
        expected: Option<Revision>,
        keep: Option<Duration>,
    },
    Delete {
        key: &'a str,
        expected: Revision,
    },
}

/// What it answers.
pub(super) enum Answer {
    Absent,
    Found(Bytes, Revision),
    Stored,
    /// Another change was faster.
    Differs,
    /// It was not asked, as it would refuse.
    TooLarge,
    /// In its own words, which hold nothing of what is stored.
    Refused(String),
}

impl Answer {
    /// The error, where this is no answer to what was asked.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::TooLarge => StoreError::new(StoreErrorKind::TooLarge),
            Self::Refused(text) => StoreError::with_source(StoreErrorKind::Refused, text),
            _ => StoreError::new(StoreErrorKind::Refused),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection between two answers. One that was left in between is of no more use.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    pub(super) server: Server,
}

impl Connection {
    pub(super) async fn open(address: &Address) -> io::Result<Self> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            #[cfg(unix)]
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let mut connection = Self {
            stream: BufReader::new(stream),
            server: Server::read(&[]),
        };
        // One round-trip for both.
        connection.send("stats settings\r\nstats\r\n", None).await?;
        let mut stats = connection.stats().await?;
        stats.extend(connection.stats().await?);
        connection.server = Server::read(&stats);
        Ok(connection)
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&mut self, command: &Command<'_>) -> io::Result<Answer> {
        match *command {
            Command::Get { key } => {
                self.send(&format!("gets {key}\r\n"), None).await?;
                self.found().await
            }
            Command::Put { key, value, .. } if !self.server.takes(key, value.len()) => {
                Ok(Answer::TooLarge)
            }
            Command::Put {
                expected: Some((started, _)),
                ..
            }
            | Command::Delete {
                expected: (started, _),
                ..
            } if started != self.server.started => Ok(Answer::Differs),
            Command::Put {
                key,
                value,
                expected,
                keep,
            } => {
                let (ends, length) = (self.server.exptime(keep), value.len());
                let head = match expected {
                    None => format!("add {key} 0 {ends} {length}\r\n"),
                    Some((_, number)) => format!("cas {key} 0 {ends} {length} {number}\r\n"),
                };
                self.send(&head, Some(value)).await?;
                self.changed().await
            }
            Command::Delete { key, expected } => {
                // `delete` compares nothing. An item that has expired when it is stored is as good as deleted.
                let (_, number) = expected;
                let head = format!("cas {key} 0 -1 0 {number}\r\n");
                self.send(&head, Some(b"")).await?;
                self.changed().await
            }
        }
    }

    async fn send(&mut self, head: &str, body: Option<&[u8]>) -> io::Result<()> {
        let end: &[u8] = if body.is_some() { b"\r\n" } else { b"" };
        let body = body.unwrap_or_default();
        // Without a copy of the value, which may hold tokens.
        let mut parts = Buf::chain(head.as_bytes(), body).chain(end);
        self.stream.write_all_buf(&mut parts).await?;
        self.stream.flush().await
    }

    async fn changed(&mut self) -> io::Result<Answer> {
        let line = self.line().await?;
        Ok(match line.as_str() {
            "STORED" => Answer::Stored,
            "NOT_STORED" | "EXISTS" | "NOT_FOUND" => Answer::Differs,
            _ => Answer::Refused(line),
        })
    }

    async fn found(&mut self) -> io::Result<Answer> {
        let line = self.line().await?;
        if line == "END" {
            return Ok(Answer::Absent);
        }
        let Some(head) = line.strip_prefix("VALUE ") else {
            return Ok(Answer::Refused(line));
        };
        let mut numbers = head.split(' ').skip(2).map(str::parse::<u64>);
        let (Some(Ok(length)), Some(Ok(number))) = (numbers.next(), numbers.next()) else {
            return Err(garbled());
        };
        let room = usize::try_from(length).unwrap_or(usize::MAX);
        if room > MAX_VALUE {
            return Err(garbled());
        }
        // Without encryption it holds tokens.
        let mut value = Wiped::new(vec![0; room]);
        self.stream.read_exact(&mut value).await?;
        let end = (self.line().await?, self.line().await?);
        if end != (String::new(), "END".into()) {
            return Err(garbled());
        }
        let revision = (self.server.started, number);
        Ok(Answer::Found(Bytes::from_owner(value), revision))
    }

    /// What it says of itself; nothing where it does not want to, as a proxy.
    async fn stats(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut stats = Vec::new();
        while let Some(stat) = self.line().await?.strip_prefix("STAT ") {
            let (name, value) = stat.split_once(' ').unwrap_or((stat, ""));
            stats.push((name.into(), value.into()));
            if stats.len() > MAX_STATS {
                return Err(garbled());
            }
        }
        Ok(stats)
    }

    /// A line, without its end.
    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut rest = (&mut self.stream).take(MAX_LINE);
        rest.read_until(b'\n', &mut line).await?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(garbled()),
        }
    }
}

fn garbled() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "this is not the protocol of Memcached",
    )
}
