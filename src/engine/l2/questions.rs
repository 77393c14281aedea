//! What L2 is asked of many partitions goes out in groups: one round-trip for all that is ready to be
//! asked, and as many of them under way as there are.
//!
//! A lone question goes out at once. While some groups are under way the next one gathers for a moment,
//! and for no longer than that: a slow one does not hold it up.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::engine::error::L2Error;
use crate::engine::l2::calls::L2;
use crate::store::{Loaded, PartitionId, Revision};

/// Groups under way beside which the next one does not wait for more: one that the store works on, and
/// one on its way.
const UNDISTURBED: usize = 2;

/// How long it gathers beside more: what it costs at most, whatever the others wait for.
pub(crate) const GATHERING: Duration = Duration::from_millis(1);

/// Questions of one kind that wait to be asked.
pub(crate) struct Questions<A> {
    waiting: Mutex<Waiting<A>>,
    pub(crate) under_way: Semaphore,
}

struct Waiting<A> {
    questions: Vec<Question<A>>,
    /// A task is about to ask, and will ask these too.
    gathering: bool,
}

pub(crate) struct Question<A> {
    pub(crate) partition: PartitionId,
    pub(crate) answer: Answer<A>,
}

/// Takes the answer. Dropped unused where the asking task ends without one.
type Answer<A> = Box<dyn FnOnce(Result<A, L2Error>) + Send>;

/// What L2 can be asked of a group of partitions.
pub(crate) trait Asked: Send + Sized + 'static {
    /// Questions in one round-trip.
    const MAX_GROUP: usize;

    fn ask(
        l2: &L2,
        group: &[PartitionId],
    ) -> impl Future<Output = Result<Vec<Result<Self, L2Error>>, L2Error>> + Send;
}

impl Asked for Loaded {
    /// Of usual partitions, half a megabyte.
    const MAX_GROUP: usize = 64;

    async fn ask(l2: &L2, group: &[PartitionId]) -> Result<Vec<Result<Self, L2Error>>, L2Error> {
        l2.load(group).await
    }
}

impl Asked for Revision {
    const MAX_GROUP: usize = 256;

    async fn ask(l2: &L2, group: &[PartitionId]) -> Result<Vec<Result<Self, L2Error>>, L2Error> {
        l2.counters.l2_reads.add(group.len() as u64);
        let answers = l2.revisions(group).await?.into_iter();
        Ok(answers
            .map(|answer| answer.map_err(L2Error::from))
            .collect())
    }
}

impl<A> Default for Questions<A> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                questions: Vec::new(),
                gathering: false,
            }),
            under_way: Semaphore::new(UNDISTURBED),
        }
    }
}

impl<A> Questions<A> {
    /// Whether somebody has to be found who asks.
    pub(crate) fn add(&self, question: Question<A>) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.questions.push(question);
        !std::mem::replace(&mut waiting.gathering, true)
    }

    pub(crate) fn count(&self) -> usize {
        self.waiting.lock().questions.len()
    }

    pub(crate) fn take(&self) -> Vec<Question<A>> {
        let mut waiting = self.waiting.lock();
        waiting.gathering = false;
        std::mem::take(&mut waiting.questions)
    }
}
