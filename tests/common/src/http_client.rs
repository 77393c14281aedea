//! A client that sees what is on the wire, and can hang up at any time.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// One connection; dropping it hangs up.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A response, its head in lower case.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Connection {
    /// Sends a request without a body; `headers` are lines that end with CRLF.
    pub async fn send(to: SocketAddr, method: &str, path: &str, headers: &str) -> Self {
        let mut connection = Self::open(to).await.unwrap();
        connection.request(method, path, headers, "").await.unwrap();
        connection
    }

    /// A connection without a request yet.
    pub async fn open(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        let received = Vec::new();
        Ok(Self { stream, received })
    }

    /// Sends a request; `headers` are lines that end with CRLF, and say how long the body is if
    /// there is one.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> std::io::Result<()> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n{body}");
        self.stream.write_all(request.as_bytes()).await
    }

    /// Waits until `text` has been received.
    pub async fn receive(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.received).contains(text) {
            let read = self.stream.read_buf(&mut self.received);
            let read = soon(text, read).await.unwrap();
            assert_ne!(
                read, 0,
                "the server closed the connection before it sent {text:?}"
            );
        }
    }

    /// Whether the server has sent anything so far.
    pub fn has_received(&mut self) -> bool {
        let _ = self.stream.try_read_buf(&mut self.received);
        !self.received.is_empty()
    }

    /// Everything until the server closes; `None` when there is no head.
    pub async fn response(mut self) -> Option<Response> {
        // A reset is an end like any other.
        let to_end = async {
            while matches!(self.stream.read_buf(&mut self.received).await, Ok(read) if read > 0) {}
        };
        soon("the server closes the connection", to_end).await;
        let text = String::from_utf8_lossy(&self.received);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Response {
            status,
            head: head.to_ascii_lowercase(),
            body: body.into(),
        })
    }
}
