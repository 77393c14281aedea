//! A pooler in transaction mode: what the server says while nothing is asked reaches nobody.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::feed::Listener;
use common::postgres::PostgresServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::server::{PATIENCE, Server};

/// Such a pooler before a server, that gives each client a connection of its own.
async fn pooler(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(pass(client, server));
        }
    });
    address
}

async fn pass(client: TcpStream, server: TcpStream) {
    const NOTIFICATION: u8 = b'A';
    const READY: u8 = b'Z';
    let (mut asks, mut hears) = client.into_split();
    let (mut says, mut takes) = server.into_split();
    let is_asked = Arc::new(AtomicBool::new(true));
    let asked = is_asked.clone();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = asks.read(&mut bytes).await {
            asked.store(true, Ordering::SeqCst);
            let _ = takes.write_all(&bytes[..read]).await;
        }
    });
    let mut head = [0; 5];
    while says.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut message = head.to_vec();
        message.resize(1 + length as usize, 0);
        says.read_exact(&mut message[5..]).await.unwrap();
        if head[0] != NOTIFICATION || is_asked.load(Ordering::SeqCst) {
            let _ = hears.write_all(&message).await;
        }
        if head[0] == READY {
            is_asked.store(false, Ordering::SeqCst);
        }
    }
}

/// Its own words are heard there, because it asks meanwhile: they prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_in_transaction_mode_nothing_is_believed() {
    let server = PostgresServer::shared();
    let (_, prefix) = Server::store(&*server, PATIENCE).await;
    let address = pooler(([127, 0, 0, 1], server.port()).into()).await;
    let url = format!("postgres://tokens@{address}/tokens?sslmode=disable");
    let store = <PostgresServer as Server>::build(&url, &prefix, PATIENCE).unwrap();
    let mut listener = Listener::silent(&store, "test");
    listener.proves_nothing(Duration::from_secs(4)).await;
}
