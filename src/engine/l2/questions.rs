//! Questions about partitions go to L2 in groups: all that are ready go out in one round-trip, and any number
//! of groups may be under way.
//!
//! A lone question goes out at once. While some groups are under way the next one gathers for a moment, and
//! no longer: a slow group does not delay it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::engine::error::L2Error;
use crate::engine::l2::calls::L2;
use crate::store::{Loaded, PartitionId, Revision};

/// With fewer groups than this under way, the next one does not gather: the store works on one, and one is on
/// its way.
const UNDISTURBED: usize = 2;

/// How long a group gathers otherwise: the most that gathering costs, whatever the other groups wait for.
pub(crate) const GATHERING: Duration = Duration::from_millis(1);

/// Questions of one kind that are to be asked.
pub(crate) struct Questions<A> {
    waiting: Mutex<Waiting<A>>,
    pub(crate) under_way: Semaphore,
}

struct Waiting<A> {
    questions: Vec<Question<A>>,
    /// A task is about to ask these, and any that are added until then.
    gathering: bool,
}

pub(crate) struct Question<A> {
    pub(crate) partition: PartitionId,
    pub(crate) answer: Reply<A>,
}

/// Takes the answer. Dropped unused if the asking task ends without one.
type Reply<A> = Box<dyn FnOnce(Result<A, L2Error>) + Send>;

/// A question that L2 answers for a group of partitions.
pub(crate) trait Asked: Send + Sized + 'static {
    /// The most questions in one round-trip.
    const MAX_GROUP: usize;

    fn ask(
        l2: &L2,
        group: &[PartitionId],
    ) -> impl Future<Output = Result<Vec<Result<Self, L2Error>>, L2Error>> + Send;
}

impl Asked for Loaded {
    /// Half a megabyte of usual partitions.
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
    /// Adds a question. Returns whether the caller has to start the task that asks.
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
