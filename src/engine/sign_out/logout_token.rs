//! Signing out what a logout token of a provider names, once on all instances.
//!
//! A token that was seen has a record in L2: the number that the epoch is to be raised to. Who sees it first chooses one
//! above that of the epoch, and all others find it. To raise the epoch to it once more ends nothing: a session that was
//! linked since has this number, or a later one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::namespace::Number;
use crate::event::{EventKind, SignedOutBy};
use crate::key::PartitionKey;
use crate::store::{PartitionId, Raise, Revision};

impl Engine {
    /// Signs out what this epoch stands for, unless that was done for this token. The token is known for so long.
    pub(crate) async fn obey(
        self: &Arc<Self>,
        token: &PartitionKey,
        epoch: &PartitionKey,
        keep: Duration,
    ) -> Result<(), L2Error> {
        let token = self.id(token).await?;
        let under = self.number().await?;
        let codec = &self.l2.codec;
        let names = codec.all_names().into_iter();
        let ids = names.map(|names| names.partition(&codec.namespace, epoch).under(under.get()));
        let (seen, numbers) = futures_util::future::try_join(
            self.generation(token.clone()),
            try_join_all(ids.map(|id| self.generation(id))),
        )
        .await?;
        let lowest = numbers.iter().copied().min().unwrap_or_default();
        if seen > 0 && lowest >= seen {
            return Ok(());
        }
        let highest = numbers.into_iter().max().unwrap_or_default();
        let mine = Number::at(self.clock.now()).get().max(highest + 1);
        let number = self
            .l2
            .raise(&token, Raise::Begin(mine), Some(keep))
            .await?;
        if lowest >= number {
            return Ok(());
        }
        if number == mine {
            self.tell(None, EventKind::SignedOut(SignedOutBy::Provider));
        }
        let id = self.begin_to_end(epoch, Some(number));
        self.end_user(id).await
    }

    async fn generation(self: &Arc<Self>, id: PartitionId) -> Result<u64, L2Error> {
        Ok(self.ask::<Revision>(id).await?.generation)
    }
}
