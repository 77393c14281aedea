//! Applies L2's answer to a commit to memory.

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::partition::acks::CommitReply;
use crate::engine::partition::change::PendingChange;
use crate::engine::write_behind::group::{PartitionWork, WorkKind};
use crate::event::EventKind;
use crate::store::Outcome;

impl Engine {
    pub(crate) fn settle(&self, work: &PartitionWork, outcome: Outcome) {
        let (WorkKind::Commit { commit, .. }, Some(under)) = (&work.kind, work.under) else {
            return;
        };
        let now = self.now();
        self.partitions
            .with_under(&work.partition.key, under, |_, state| match outcome {
                Outcome::Committed {
                    version,
                    previous,
                    life,
                    remaining,
                } => {
                    let made = CommitReply {
                        version,
                        previous,
                        life: self.l2.life(life),
                        remaining,
                    };
                    let flushed = state.committed(commit.id, made, now, &self.rules);
                    self.counters.flushed_changes.add(flushed as u64);
                }
                Outcome::Stale { generation } => {
                    let dropped = state.refused(commit.id, generation, now);
                    self.counters.signed_out_changes.add(dropped as u64);
                }
                Outcome::Conflict => {
                    let dropped = state.conflicted(commit.id);
                    // What expects nothing was replaced by nothing: it did not fit into cookies.
                    if commit.expected.is_some() {
                        self.counters.superseded_changes.add(dropped as u64);
                        self.tell(Some(&work.partition.key), EventKind::Superseded);
                    }
                }
                // Settled by [`settle_lost`](Self::settle_lost), which has to ask L2 again.
                Outcome::Lost => {}
            });
    }

    /// Settles a commit whose life L2 no longer has.
    pub(crate) async fn settle_lost(&self, work: &PartitionWork) -> Result<(), L2Error> {
        let WorkKind::Commit { commit, .. } = &work.kind else {
            return Ok(());
        };
        let key = &work.partition.key;
        let losses = self.partitions.with(key, |_, state| state.losses);
        let emptied = self.l2_has_lost_everything(losses).await?;
        // If this session alone is lost, nothing is written again.
        let heard = emptied && self.begin_epochs_again(key).await?;
        let now = self.now();
        self.partitions.with(key, |_, state| {
            if !state.has_in_flight(commit.id) {
                return;
            }
            // Memory may have followed L2 into another life since: the life of the commit has then ended by its
            // lifetime, or else what is pending would have been dropped.
            let has_moved_on = state.life.is_some() && state.life != commit.life;
            let gone = !has_moved_on && state.has_lost_life(0, None, now);
            let goes_on = emptied && state.outlives_a_loss(heard);
            if gone && !goes_on {
                let dropped = state.life_is_over();
                self.counters.signed_out_changes.add(dropped as u64);
                return;
            }
            let again = match gone {
                true => state.to_be_written_again(heard, now),
                // It has ended by its lifetime.
                false => Vec::new(),
            };
            let sizes = again.iter();
            let sizes = sizes.map(|(name, value)| PendingChange::size(name, Some(value)));
            let room = self.budget.try_reserve(again.len(), sizes.sum());
            // If the budget has no room, the entries stay lost: the user signs in again.
            let again = room.map_or_else(Vec::new, |mut room| {
                self.counters.recovered_changes.add(again.len() as u64);
                let again = again.into_iter();
                let change = |(name, value)| {
                    let change = PendingChange::new(&name, Some(value), now, &mut room);
                    (name, change)
                };
                again.map(change).collect()
            });
            state.begin_life(again);
        });
        Ok(())
    }
}
