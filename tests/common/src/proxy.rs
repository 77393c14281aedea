//! A TCP proxy that fails as networks do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They stay, both ways, and connections stay open: half-open TCP.
    BlackHole,
    /// What the client sends passes; the answers stay.
    BlackHoleAnswers,
    /// They stay, both ways, on connections whose client has sent this among its first bytes, and pass on the
    /// others.
    Hold(&'static str),
    /// They pass one by one, with this pause after each, both ways.
    Drip(Duration),
    /// The next answer passes up to this many bytes; then its connection is reset, and the mode
    /// is `Pass` again.
    CutAnswerAfter(usize),
    /// What the client sends passes; the next answer is lost, its connection reset, and the mode
    /// is `Pass` again: an ambiguous write.
    LoseAnswer,
    /// Connections are reset, those that come as well.
    Reset,
}

/// Listens on a loopback port and passes what it gets to a server. Drop it, and all connections
/// are closed.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    mode: watch::Sender<Mode>,
    connections: watch::Sender<usize>,
    accepted: AtomicUsize,
    /// How much later answers come, in milliseconds.
    delay: AtomicU64,
    /// What connections before this one carry vanishes.
    stranded: AtomicUsize,
    /// Where the next connections lead.
    server: Mutex<SocketAddr>,
}

impl Proxy {
    /// A proxy before the server at `url`'s host and port, and the rest of the URL as it was.
    pub async fn before(url: &str) -> (Self, String) {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let authority = rest.split(['/', '?']).next().expect("an authority");
        let host = authority.rsplit('@').next().expect("a host");
        let proxy = Self::to(host.parse().expect("an address with a port")).await;
        let rest = rest.replacen(host, &proxy.address.to_string(), 1);
        (proxy, format!("{scheme}://{rest}"))
    }

    /// A proxy before a server.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Pass),
            connections: watch::Sender::new(0),
            accepted: AtomicUsize::new(0),
            delay: AtomicU64::new(0),
            stranded: AtomicUsize::new(0),
            server: Mutex::new(server),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, state.clone()));
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers come so many milliseconds later from now on, whatever is under way side by side, as
    /// on a long line.
    pub fn delay(&self, millis: u64) {
        self.state.delay.store(millis, Ordering::SeqCst);
    }

    /// What happens to bytes from now on, also to those that a black hole has kept.
    pub fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    pub fn mode(&self) -> Mode {
        *self.state.mode.borrow()
    }

    /// Waits until a one-time fault has happened.
    pub async fn spent(&self) {
        let mut mode = self.state.mode.subscribe();
        mode.wait_for(|mode| *mode == Mode::Pass)
            .await
            .expect("the proxy lives");
    }

    /// How many connections have come so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        *self.state.connections.borrow()
    }

    /// From now on what the present connections carry vanishes, both ways and for ever, as behind
    /// a router that has forgotten them. New ones work.
    pub fn strand(&self) {
        let accepted = self.state.accepted.load(Ordering::SeqCst);
        self.state.stranded.store(accepted, Ordering::SeqCst);
    }

    /// New connections lead to another server, as behind a name; the present ones stay where they are.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.state.server.lock().expect("whole") = server;
    }

    /// Resets all connections; new ones work.
    pub async fn reset(&self) {
        self.set(Mode::Reset);
        let mut connections = self.state.connections.subscribe();
        connections
            .wait_for(|count| *count == 0)
            .await
            .expect("the proxy lives");
        self.set(Mode::Pass);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        state.connections.send_modify(|count| *count += 1);
        let counted = Counted {
            number: state.accepted.fetch_add(1, Ordering::SeqCst),
            state: state.clone(),
            began: Mutex::default(),
        };
        let server = *state.server.lock().expect("whole");
        connections.spawn(serve(client, server, counted));
    }
}

struct Counted {
    number: usize,
    state: Arc<State>,
    /// What the client has sent first.
    began: Mutex<Vec<u8>>,
}

/// So much of what a client sends is remembered.
const BEGINNING: usize = 1024;

impl Counted {
    fn sent(&self, bytes: &[u8]) {
        let mut began = self.began.lock().expect("whole");
        let room = BEGINNING.saturating_sub(began.len());
        began.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn began_with(&self, text: &str) -> bool {
        let began = self.began.lock().expect("whole");
        began.windows(text.len()).any(|it| it == text.as_bytes())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.state.connections.send_modify(|count| *count -= 1);
    }
}

async fn serve(client: TcpStream, server: SocketAddr, counted: Counted) {
    let Ok(upstream) = TcpStream::connect(server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = upstream.into_split();
    let mut mode = counted.state.mode.subscribe();
    let reset = {
        let requests = carry(from_client, &mut to_server, &counted, false);
        let answers = carry(from_server, &mut to_client, &counted, true);
        tokio::select! {
            reset = requests => reset,
            reset = answers => reset,
            _ = mode.wait_for(|mode| *mode == Mode::Reset) => true,
        }
    };
    if reset {
        // Then closing sends RST instead of FIN.
        for half in [&to_client, &to_server] {
            let socket: &TcpStream = half.as_ref();
            let _ = socket.set_zero_linger();
        }
    }
}

/// Carries bytes one way until the end; whether it ends with a reset.
async fn carry(
    from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    counted: &Counted,
    answers: bool,
) -> bool {
    let (sender, arrived) = mpsc::unbounded_channel();
    let pass = pass_on(arrived, to, counted, answers);
    tokio::pin!(pass);
    tokio::select! {
        reset = &mut pass => return reset,
        () = take_in(from, sender, counted, answers) => {}
    }
    pass.await
}

/// Takes bytes in until the end, each with the time when they are due.
async fn take_in(
    mut from: OwnedReadHalf,
    sender: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    counted: &Counted,
    answers: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !answers {
            counted.sent(&buffer[..read]);
        }
        let millis = u64::from(answers) * counted.state.delay.load(Ordering::SeqCst);
        let due = Instant::now() + Duration::from_millis(millis);
        if sender.send((due, buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}

async fn pass_on(
    mut arrived: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    to: &mut OwnedWriteHalf,
    counted: &Counted,
    answers: bool,
) -> bool {
    let Counted { number, state, .. } = counted;
    let mut mode = state.mode.subscribe();
    loop {
        let Some((due, bytes)) = arrived.recv().await else {
            return false;
        };
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        if *number < state.stranded.load(Ordering::SeqCst) {
            continue;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let now = *mode.borrow_and_update();
            let count = match now {
                Mode::BlackHole => 0,
                Mode::Hold(text) if counted.began_with(text) => 0,
                Mode::BlackHoleAnswers if answers => 0,
                Mode::Reset => return true,
                Mode::Drip(_) => 1,
                Mode::LoseAnswer if answers => {
                    state.mode.send_replace(Mode::Pass);
                    return true;
                }
                Mode::CutAnswerAfter(count) if answers => {
                    let _ = to.write_all(&rest[..count.min(rest.len())]).await;
                    let _ = to.flush().await;
                    state.mode.send_replace(Mode::Pass);
                    return true;
                }
                _ => rest.len(),
            };
            if count == 0 {
                if mode.changed().await.is_err() {
                    return false;
                }
                continue;
            }
            if to.write_all(&rest[..count]).await.is_err() {
                return false;
            }
            rest = &rest[count..];
            if let Mode::Drip(pause) = now {
                tokio::time::sleep(pause).await;
            }
        }
    }
}
