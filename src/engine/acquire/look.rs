//! What L2 has of a token that is to be acquired.

use std::sync::Arc;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::MAX_READS;
use crate::engine::partition::refresh::RefreshState;
use crate::key::{PartitionKey, TokenKey};

impl Engine {
    /// What L2 has now of the token `name` and of what may replace it; it is asked in any case. Pending changes of this process are
    /// included: where there are any, they are written and L2 is read again, because it must have what other instances must
    /// not overtake.
    pub(crate) async fn look(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
        claims: Option<&str>,
    ) -> Result<RefreshState, L2Error> {
        for _ in 0..MAX_READS {
            let (seen, versions) = self
                .fetch(key, |state, now| state.refresh_state(name, claims, now))
                .await?;
            if !seen.waits {
                return Ok(seen.with_versions(versions));
            }
            self.flush(key).await?;
        }
        Err(L2Error::lost())
    }
}
