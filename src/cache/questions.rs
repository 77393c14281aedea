//! What L2 is asked of many partitions goes out in groups: one round-trip for all that is ready to be
//! asked, and as many of them under way as there are.
//!
//! A lone question goes out at once. While some groups are under way the next one gathers for a moment,
//! and for no longer than that: a slow one does not hold it up.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::Engine;
use super::l2::{L2, L2Error};
use crate::store::{Loaded, PartitionId, Revision};

/// Groups under way beside which the next one does not wait for more: one that the store works on, and
/// one on its way.
const UNDISTURBED: usize = 2;

/// How long it gathers beside more: what it costs at most, whatever the others wait for.
const GATHERING: Duration = Duration::from_millis(1);

/// Questions of one kind that wait to be asked.
pub(super) struct Questions<A> {
    waiting: Mutex<Waiting<A>>,
    under_way: Semaphore,
}

struct Waiting<A> {
    questions: Vec<Question<A>>,
    /// A task is about to ask, and will ask these too.
    gathering: bool,
}

struct Question<A> {
    partition: PartitionId,
    answer: Answer<A>,
}

/// Takes the answer. Dropped unused where the asking task ends without one.
type Answer<A> = Box<dyn FnOnce(Result<A, L2Error>) + Send>;

/// What L2 can be asked of a group of partitions.
pub(super) trait Asked: Send + Sized + 'static {
    /// Questions in one round-trip.
    const MAX_GROUP: usize;

    fn waiting(engine: &Engine) -> &Questions<Self>;

    fn ask(
        l2: &L2,
        group: &[PartitionId],
    ) -> impl Future<Output = Result<Vec<Result<Self, L2Error>>, L2Error>> + Send;
}

impl Asked for Loaded {
    /// Of usual partitions, half a megabyte.
    const MAX_GROUP: usize = 64;

    fn waiting(engine: &Engine) -> &Questions<Self> {
        &engine.loads
    }

    async fn ask(l2: &L2, group: &[PartitionId]) -> Result<Vec<Result<Self, L2Error>>, L2Error> {
        l2.load(group).await
    }
}

impl Asked for Revision {
    const MAX_GROUP: usize = 256;

    fn waiting(engine: &Engine) -> &Questions<Self> {
        &engine.confirmations
    }

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
    fn add(&self, question: Question<A>) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.questions.push(question);
        !std::mem::replace(&mut waiting.gathering, true)
    }

    fn count(&self) -> usize {
        self.waiting.lock().questions.len()
    }

    fn take(&self) -> Vec<Question<A>> {
        let mut waiting = self.waiting.lock();
        waiting.gathering = false;
        std::mem::take(&mut waiting.questions)
    }
}

impl Engine {
    /// What L2 has of a partition.
    pub(super) async fn ask<A: Asked>(
        self: &Arc<Self>,
        partition: PartitionId,
    ) -> Result<A, L2Error> {
        let (told, answered) = oneshot::channel();
        // Who has gone needs no answer.
        self.ask_for(partition, |answer| drop(told.send(answer)));
        answered.await.unwrap_or_else(|_| Err(L2Error::lost()))
    }

    /// Has `answer` called with what L2 has of a partition, by the task that asks.
    pub(super) fn ask_for<A: Asked>(
        self: &Arc<Self>,
        partition: PartitionId,
        answer: impl FnOnce(Result<A, L2Error>) + Send + 'static,
    ) {
        let answer = Box::new(answer);
        if A::waiting(self).add(Question { partition, answer }) {
            let gathering = Gathering::<A> {
                engine: self.clone(),
                taken: false,
                kind: PhantomData,
            };
            self.runtime.spawn(gathering.ask());
        }
    }

    /// Groups of a size, each of what one server keeps: one that hangs keeps no other's waiting.
    fn groups<A: Asked>(&self, questions: Vec<Question<A>>) -> Vec<Vec<Question<A>>> {
        let mut groups: Vec<(usize, Vec<Question<A>>)> = Vec::new();
        for question in questions {
            let server = self.l2.store.server(&question.partition);
            let open = groups.iter_mut().rev().find(|(of, _)| *of == server);
            match open {
                Some((_, group)) if group.len() < A::MAX_GROUP => group.push(question),
                _ => groups.push((server, vec![question])),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    async fn ask_group<A: Asked>(&self, group: Vec<Question<A>>) {
        let (partitions, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|question| (question.partition, question.answer))
            .unzip();
        match A::ask(&self.l2, &partitions).await {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    answer(result);
                }
            }
            Err(failure) => {
                for answer in answers {
                    answer(Err(failure.clone()));
                }
            }
        }
    }
}

/// The task that asks next. If it ends before it has run, with its runtime, nobody waits in vain.
struct Gathering<A: Asked> {
    engine: Arc<Engine>,
    /// From then on another one gathers.
    taken: bool,
    kind: PhantomData<fn() -> A>,
}

impl<A: Asked> Gathering<A> {
    /// Asks all that waits. Each group but the last has a task of its own: none waits for another's
    /// answer.
    async fn ask(mut self) {
        // Once round the runtime's queue: who is ready to ask does so, and goes along.
        tokio::task::yield_now().await;
        let engine = self.engine.clone();
        let questions = A::waiting(&engine);
        let _under_way = match questions.under_way.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) if questions.count() >= A::MAX_GROUP => None,
            Err(_) => {
                let permit = timeout(GATHERING, questions.under_way.acquire()).await;
                permit.ok().and_then(Result::ok)
            }
        };
        self.taken = true;
        let mut groups = engine.groups(questions.take());
        let last = groups.pop();
        for group in groups {
            let engine = engine.clone();
            self.engine
                .runtime
                .spawn(async move { engine.ask_group(group).await });
        }
        if let Some(last) = last {
            engine.ask_group(last).await;
        }
    }
}

impl<A: Asked> Drop for Gathering<A> {
    fn drop(&mut self) {
        if !self.taken {
            drop(A::waiting(&self.engine).take());
        }
    }
}
