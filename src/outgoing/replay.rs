//! Which bodies can be sent twice.

/// Says whether a request body can be sent a second time.
///
/// A closure is one, for bodies that are not `Clone`:
///
/// ```
/// use axum::body::{Body, HttpBody};
/// use tower_token_cache::outgoing::{BearerLayer, Origins};
/// # use tower_token_cache::{BoxError, Prior, TokenSet};
/// # fn layer(source: impl tower_token_cache::Acquire) -> Result<(), BoxError> {
/// let layer = BearerLayer::new("graph", source, Origins::new(["https://graph.example"])?)?
///     .replay_body(|body: &Body| body.is_end_stream().then(Body::empty));
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
pub trait ReplayBody<B> {
    /// A body like this one, which was not sent yet; `None` when there cannot be one.
    fn replay(&self, body: &B) -> Option<B>;
}

/// Sends clones of the body: for those whose clones share a buffer, such as `Full<Bytes>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

impl<B: Clone> ReplayBody<B> for CloneBody {
    fn replay(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

impl<B, F: Fn(&B) -> Option<B>> ReplayBody<B> for F {
    fn replay(&self, body: &B) -> Option<B> {
        self(body)
    }
}
