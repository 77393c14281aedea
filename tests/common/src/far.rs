//! An L2 that is far away, for all tests of a run.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::proxy::Proxy;

/// How much later L2 answers in this run: so many milliseconds as `L2_LATENCY_MS` says.
pub fn latency() -> Duration {
    let millis = std::env::var("L2_LATENCY_MS").ok();
    let millis = millis.map(|text| text.parse().expect("L2_LATENCY_MS is a number"));
    Duration::from_millis(millis.unwrap_or(0))
}

/// A long line to a server, on a thread of its own. It ends with the value.
pub struct Line {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    pub fn to(server: SocketAddr, latency: Duration) -> Self {
        let (tell, address) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let proxy = Proxy::to(server).await;
                proxy.delay(latency.as_millis() as u64);
                tell.send(proxy.address()).expect("somebody waits");
                let _ = ended.await;
            });
        });
        Self {
            address: address.recv().expect("it listens"),
            end: Some(end),
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end.take().map(|end| end.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}
