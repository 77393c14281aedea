//! Having the refresh tokens of signed-out sessions revoked, as far as L2 has to be asked for them.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use crate::engine::core::Engine;
use crate::engine::revocations::{AT_ONCE, Begun};
use crate::key::PartitionKey;

impl Engine {
    /// Tells the providers, in the background.
    pub(crate) fn start_revocation(&self, begun: Option<Begun>) {
        if let Some(begun) = begun {
            self.revocations.start(begun, &self.runtime);
        }
    }

    /// A user was signed out: reads the sessions of this list, which ends them and has their refresh tokens revoked.
    /// Those that are on no list end so when they are next used.
    pub(crate) async fn end_listed(self: &Arc<Self>, list: &PartitionKey) {
        let read = self.fetch(list, |state, now| state.usable_entries(now));
        let Ok((entries, _)) = read.await else {
            return;
        };
        let sessions = entries.iter().filter_map(|(_, value)| value.as_listed());
        let sessions = Vec::from_iter(sessions);
        let reads = stream::iter(sessions).for_each_concurrent(AT_ONCE, async |session| {
            // A failed one is as if it were not listed.
            let _ = self.fetch(&session, |_, _| ()).await;
        });
        reads.await;
    }
}
