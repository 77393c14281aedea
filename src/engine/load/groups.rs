//! Asking L2 in groups.

use std::marker::PhantomData;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::l2::questions::{Asked, GATHERING, Question, Questions};
use crate::store::{Loaded, PartitionId, Revision};

/// What the engine asks L2 for.
pub(crate) trait InEngine: Asked {
    fn waiting(engine: &Engine) -> &Questions<Self>;
}

impl InEngine for Loaded {
    fn waiting(engine: &Engine) -> &Questions<Self> {
        &engine.loads
    }
}

impl InEngine for Revision {
    fn waiting(engine: &Engine) -> &Questions<Self> {
        &engine.confirmations
    }
}

impl Engine {
    /// What L2 has of a partition.
    pub(crate) async fn ask<A: InEngine>(
        self: &Arc<Self>,
        partition: PartitionId,
    ) -> Result<A, L2Error> {
        let (told, answered) = oneshot::channel();
        // Who has gone needs no answer.
        self.ask_for(partition, |answer| drop(told.send(answer)));
        answered.await.unwrap_or_else(|_| Err(L2Error::lost()))
    }

    /// Has `answer` called with what L2 has of a partition, by the task that asks.
    pub(crate) fn ask_for<A: InEngine>(
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
    fn groups<A: InEngine>(&self, questions: Vec<Question<A>>) -> Vec<Vec<Question<A>>> {
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

    async fn ask_group<A: InEngine>(&self, group: Vec<Question<A>>) {
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
struct Gathering<A: InEngine> {
    engine: Arc<Engine>,
    /// From then on another one gathers.
    taken: bool,
    kind: PhantomData<fn() -> A>,
}

impl<A: InEngine> Gathering<A> {
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

impl<A: InEngine> Drop for Gathering<A> {
    fn drop(&mut self) {
        if !self.taken {
            drop(A::waiting(&self.engine).take());
        }
    }
}
