//! What is looked through: logs, metrics, errors, and what Redis was told.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_util::debugging::{DebuggingRecorder, Snapshotter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::{RedisServer, indiscretion, secrets};
use common::leaks::{Canaries, Canary};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// An error of the application's own, which says too much.
#[derive(Debug)]
pub(crate) struct Indiscreet(pub(crate) String);

impl std::fmt::Display for Indiscreet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Indiscreet {}

pub(crate) struct Evidence {
    log: Log,
    metrics: Snapshotter,
    canaries: Canaries,
    /// What has its place elsewhere, but not in the log.
    unlogged: Canaries,
}

impl Evidence {
    /// Of this process, from now on.
    pub(crate) fn collect() -> Self {
        let log = Log::default();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(log.clone())
            .init();
        let recorder = DebuggingRecorder::new();
        let metrics = recorder.snapshotter();
        recorder.install().unwrap();
        let mut canaries = Canaries::default();
        for (name, secret) in secrets() {
            canaries.push(Canary::new(name, secret));
        }
        Self {
            log,
            metrics,
            canaries,
            unlogged: Canaries::default(),
        }
    }

    /// Each secret is found, in each form, at each place in a base64 text.
    pub(crate) fn can_fail(&self) {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let engines = [STANDARD];
        for (canary, (_, secret)) in self.canaries.iter().zip(secrets()) {
            assert!(canary.is_in(&[b"before", secret, b"after"].concat()));
            for before in ["", "x", "xy"] {
                let around = [before.as_bytes(), secret, b"after"].concat();
                let text = engines[0].encode(around);
                assert!(canary.is_in(text.as_bytes()), "{text}");
            }
            let text = indiscretion();
            assert!(canary.is_in(text.as_bytes()));
            let mut alone = Canaries::default();
            alone.push(Canary::new(canary.name(), secret));
            assert!(alone.first_in(text.as_bytes()).is_some());
            assert!(alone.first_in(&text.as_bytes()[..20]).is_none());
        }
    }

    /// Looks for this too in everything that is logged.
    pub(crate) fn look_for_in_log(&mut self, canary: Canary) {
        self.unlogged.push(canary);
    }

    pub(crate) fn bytes(&self, what: &str, bytes: &[u8]) {
        let shown = self.canaries.first_in(bytes).map(Canary::name);
        assert_eq!(shown, None, "{what} shows a secret");
    }

    pub(crate) fn text(&self, what: &str, text: &str) {
        if let Some(canary) = self.canaries.first_in(text.as_bytes()) {
            panic!("{what} shows {}: {text}", canary.name());
        }
    }

    /// Values are there in plain where nothing is sealed. Whose they are is not, but for the index
    /// of a user's sessions, whose values these are.
    pub(crate) fn at_rest(&self, what: &str, bytes: &[u8], sealed: bool) {
        match sealed {
            true => self.bytes(what, bytes),
            false => {
                let shown = |name| {
                    let position = secrets().iter().position(|(known, _)| *known == name);
                    let mut canaries = self.canaries.iter();
                    canaries.nth(position.unwrap()).unwrap().is_in(bytes)
                };
                assert!(!shown("a user's id"), "{what} shows a user");
                assert!(shown("an access token"), "{what}: the test can fail");
            }
        }
    }

    /// What keys and fields are called.
    pub(crate) fn names(&self, what: &str, server: &RedisServer) {
        for key in server.query::<Vec<String>>("KEYS *") {
            self.text(what, &key);
            if server.query::<String>(&format!("TYPE {key}")) == "hash" {
                let fields = server.command(&[b"HKEYS", key.as_bytes()]);
                let fields: Vec<Vec<u8>> = redis::from_redis_value(fields).unwrap();
                self.bytes(what, &fields.concat());
            }
        }
    }

    pub(crate) fn debug(&self, what: &str, value: &(impl Debug + ?Sized)) {
        self.text(what, &format!("{value:?} {value:#?}"));
    }

    /// An error, and everything that led to it but for what the application itself has said.
    pub(crate) fn error(&self, what: &str, error: &(dyn StdError + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next.filter(|error| !error.is::<Indiscreet>()) {
            self.text(what, &format!("{error} {error:?} {error:#?}"));
            next = error.source();
        }
    }

    /// The same of what may have failed.
    pub(crate) fn outcome<T: Debug, E: StdError + 'static>(
        &self,
        what: &str,
        outcome: Result<T, E>,
    ) {
        match outcome {
            Ok(value) => self.debug(what, &value),
            Err(error) => self.error(what, &error),
        }
    }

    /// Everything that was logged and counted.
    pub(crate) fn conclude(&self) {
        let metrics = format!("{:?}", self.metrics.snapshot().into_vec());
        assert!(metrics.contains("tower_token_cache_l1_hits"));
        self.text("a metric", &metrics);
        let log = String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned();
        for expected in [
            "the L2 store failed",
            "an entry in L2 is unopenable",
            "no token was acquired",
            "a request has an invalid partition key",
            "the cookies of a request are unopenable",
            "the cookies of a request are too old",
            "the cookies of a request are from before a sign-out",
            "TRACE",
        ] {
            assert!(log.contains(expected), "not logged: {expected}");
        }
        for line in log.lines() {
            self.text("the log", line);
        }
        let unlogged = self.unlogged.first_in(log.as_bytes());
        assert_eq!(unlogged.map(Canary::name), None, "the log shows a secret");
    }
}

/// Everything that a Redis is told by anybody: `MONITOR`.
pub(crate) struct Watch {
    commands: Arc<Mutex<Vec<u8>>>,
}

impl Watch {
    pub(crate) fn start(server: &RedisServer) -> Self {
        let tap = |command: &str| {
            let address = server.url().replace("redis://", "");
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(command.as_bytes()).unwrap();
            let seen = Arc::<Mutex<Vec<u8>>>::default();
            let sink = seen.clone();
            // Ends with the server.
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    sink.lock().unwrap().extend_from_slice(&buffer[..read]);
                }
            });
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while seen.lock().unwrap().is_empty() {
                assert!(std::time::Instant::now() < deadline, "Redis answers");
                std::thread::yield_now();
            }
            seen
        };
        Self {
            commands: tap("MONITOR\r\n"),
        }
    }

    /// The commands since the last time.
    pub(crate) fn take(&self) -> Vec<u8> {
        unescaped(&std::mem::take(&mut *self.commands.lock().unwrap()))
    }
}

/// `MONITOR` writes what is no text as `\x..`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let hex = after.strip_prefix(b"x").and_then(|hex| hex.get(..2));
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, byte) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
