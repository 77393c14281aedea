//! Keeps a background task alive when one step of it panics.

use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt;

/// Runs one step of a background task. A panic is logged as an error and ends this step only.
pub(crate) async fn step<F: Future>(task: &'static str, work: F) -> Option<F::Output> {
    let output = AssertUnwindSafe(work).catch_unwind().await;
    if output.is_err() {
        tracing::error!(
            task,
            "a background task of the token cache panicked, and goes on"
        );
    }
    output.ok()
}
