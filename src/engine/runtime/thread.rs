//! The engine's own thread and runtime, so that it does not depend on a runtime of its callers.

use std::convert::Infallible;
use std::sync::mpsc;
use std::{io, thread};

use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::oneshot;

/// A thread that drives a runtime. Both end when this is dropped, in any context: the thread owns the
/// runtime, because a runtime must not be dropped in an async context.
pub(crate) struct EngineThread {
    _alive: oneshot::Sender<Infallible>,
}

impl EngineThread {
    pub(crate) fn start() -> io::Result<(Self, Handle)> {
        let (alive, ended) = oneshot::channel();
        let (started, start) = mpsc::sync_channel(1);
        // Linux shows 15 bytes of a thread's name.
        let thread = thread::Builder::new().name("token-cache".into());
        thread.spawn(move || match runtime() {
            Ok(runtime) => {
                // `start` waits for this message.
                let _ = started.send(Ok(runtime.handle().clone()));
                let _ = runtime.block_on(ended);
                // Does not wait for blocking tasks: a file system may hang.
                runtime.shutdown_background();
            }
            Err(error) => drop(started.send(Err(error))),
        })?;
        let handle = start.recv().map_err(io::Error::other)??;
        Ok((Self { _alive: alive }, handle))
    }
}

fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}
