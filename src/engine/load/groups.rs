//! Asking L2 about partitions in groups.

use std::marker::PhantomData;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::l2::questions::{Asked, GATHERING, Question, Questions};
use crate::store::{Loaded, PartitionId, Revision};

/// A kind of question that the engine asks L2 in groups.
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
        let (reply, answered) = oneshot::channel();
        // The caller may have stopped waiting.
        self.ask_for(partition, |answer| drop(reply.send(answer)));
        answered.await.unwrap_or_else(|_| Err(L2Error::lost()))
    }

    /// Calls `answer` with what L2 has of a partition, on the task that asks.
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

    /// Splits questions into groups of limited size, each for one server: a server that hangs does not delay
    /// the questions for others.
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
        // `L2::load` or `L2::revisions`, in `l2::calls`.
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

/// The task that asks next. If its runtime ends before it has run, it drops the questions, so that no caller
/// waits in vain.
struct Gathering<A: InEngine> {
    engine: Arc<Engine>,
    /// It has taken the questions; another task gathers the next ones.
    taken: bool,
    kind: PhantomData<fn() -> A>,
}

impl<A: InEngine> Gathering<A> {
    /// Asks all questions that wait. Each group but the last has a task of its own, so that none waits for
    /// another's answer.
    async fn ask(mut self) {
        // Once round the runtime's queue: tasks that are ready to ask add their questions to these.
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
