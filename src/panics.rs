//! A panic in the code of an application, as an error.

use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// What an application was asked for has panicked. The panic itself is in the log, by its hook.
#[derive(Debug)]
pub(crate) struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the application's function has panicked")
    }
}

impl std::error::Error for Panicked {}

/// Calls, and waits for the output. Nothing of the call is used again after a panic.
pub(crate) async fn caught<F: Future>(call: impl FnOnce() -> F) -> Result<F::Output, Panicked> {
    let called = AssertUnwindSafe(async { call().await });
    called.catch_unwind().await.map_err(|_| Panicked)
}
