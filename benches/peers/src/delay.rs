//! A server that is far away.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A port of the loopback interface from which a server's answers come this much later. Whatever
/// is under way is delayed side by side, as on a long line.
pub fn far_away(server: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("a port").port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let server = TcpStream::connect(("127.0.0.1", server)).expect("the server runs");
            for socket in [&client, &server] {
                socket.set_nodelay(true).expect("a socket");
            }
            let (clients, servers) = (client.try_clone(), server.try_clone());
            let (clients, servers) = (clients.expect("a socket"), servers.expect("a socket"));
            thread::spawn(move || carry(client, server, Duration::ZERO));
            thread::spawn(move || carry(servers, clients, delay));
        }
    });
    port
}

/// Carries bytes one way until the end.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, arrived) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, bytes) in arrived {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let due = Instant::now() + delay;
        if sender.send((due, buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}
