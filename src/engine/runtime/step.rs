//! One step of a background task, which a panic does not end.

use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt;

/// One step of a background task. A panic in it is an error in the log, and ends this step only.
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
