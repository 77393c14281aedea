//! Comparing memory with L2 without reading it: after a gap everybody does, so these questions go
//! out in groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Engine;
use super::l2::L2Error;
use crate::store::{PartitionId, Revision};

/// Questions in one round-trip.
const MAX_GROUP: usize = 256;

/// How long the next group waits for the answers to this one: not for those of a store that hangs,
/// perhaps with one of several servers.
const PATIENCE: Duration = Duration::from_millis(25);

/// Questions that wait to be asked.
#[derive(Default)]
pub(super) struct Confirmations {
    waiting: Mutex<Vec<Question>>,
    /// A task is asking, and will ask these too.
    asking: AtomicBool,
}

struct Question {
    partition: PartitionId,
    answer: oneshot::Sender<Result<Revision, L2Error>>,
}

impl Confirmations {
    fn lock(&self) -> MutexGuard<'_, Vec<Question>> {
        self.waiting.lock()
    }

    fn take_group(&self) -> Vec<Question> {
        let mut waiting = self.lock();
        let count = waiting.len().min(MAX_GROUP);
        let group = waiting.drain(..count).collect::<Vec<_>>();
        if group.is_empty() {
            // Under the lock: whoever comes now starts another task.
            self.asking.store(false, Ordering::Release);
        }
        group
    }
}

impl Engine {
    /// The revision that L2 has of a partition.
    pub(super) async fn revision(
        self: &Arc<Self>,
        partition: PartitionId,
    ) -> Result<Revision, L2Error> {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut waiting = self.confirmations.lock();
            waiting.push(Question { partition, answer });
            !self.confirmations.asking.swap(true, Ordering::AcqRel)
        };
        if starts {
            let engine = self.clone();
            self.runtime
                .spawn(async move { engine.ask_revisions().await });
        }
        answered.await.unwrap_or_else(|_| Err(L2Error::lost()))
    }

    async fn ask_revisions(self: &Arc<Self>) {
        loop {
            let group = self.confirmations.take_group();
            if group.is_empty() {
                return;
            }
            let engine = self.clone();
            let asking = self.runtime.spawn(async move { engine.ask(group).await });
            // Beyond that it goes on by itself.
            let _ = timeout(PATIENCE, asking).await;
        }
    }

    async fn ask(&self, group: Vec<Question>) {
        let partitions: Vec<_> = group.iter().map(|asked| asked.partition.clone()).collect();
        self.counters.l2_reads.add(partitions.len() as u64);
        let answers = match self.l2.revisions(&partitions).await {
            Ok(answers) => answers
                .into_iter()
                .map(|a| a.map_err(L2Error::from))
                .collect(),
            Err(failure) => vec![Err(failure); group.len()],
        };
        for (question, answer) in group.into_iter().zip(answers) {
            // Who has gone needs no answer.
            let _ = question.answer.send(answer);
        }
    }
}
