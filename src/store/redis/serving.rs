//! Which server one name leads to: it may come to lead to another, while connections to the old one stay.

use std::sync::{Arc, OnceLock};

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::cmd;
use parking_lot::Mutex;

use super::eviction::field;

/// The server that the last connection was made to, of the store or of its feed: those to others are of no
/// more use. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Serving(Arc<Mutex<Option<Arc<str>>>>);

/// Which server a connection leads to, as soon as it is known. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<OnceLock<Arc<str>>>);

impl Serving {
    /// Asks a server over a connection that has just been made to it. Who may not ask does not learn it.
    pub(super) async fn look(&self, server: &Server, connection: &mut MultiplexedConnection) {
        let mut info = cmd("INFO");
        let info = info.arg("server").query_async::<String>(connection).await;
        if let Some(id) = info.ok().as_deref().and_then(|info| field(info, "run_id")) {
            let id = server.0.get_or_init(|| id.into());
            *self.0.lock() = Some(id.clone());
        }
    }

    /// Whether the name leads to another server than this by now.
    pub(super) fn is_another(&self, than: &Server) -> bool {
        let known = self.0.lock();
        let both = known.as_ref().zip(than.0.get());
        both.is_some_and(|(known, than)| known != than)
    }
}
