//! One operation on L2, with its attempts, timeouts, breaker and hook.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use crate::engine::error::L2Error;
use crate::engine::l2::calls::L2;
use crate::engine::l2::shards::{Shard, Way, reads};
use crate::error::{StoreError, StoreErrorKind};
use crate::patience::{Late, within};
use crate::policy::{L2Failure, L2Operation, OnFailure};
use crate::random::{SLIGHTLY, jittered};
use crate::store::PartitionId;
use crate::telemetry::OK;

/// Attempts at one operation, the first included, however often the hook asks for a retry.
const MAX_ATTEMPTS: u32 = 3;

/// The same for a move.
const MAX_MOVES: u32 = 5;

const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// The word for metrics and spans.
fn outcome<T>(answer: Result<T, &StoreError>) -> &'static str {
    match answer {
        Ok(_) => OK,
        Err(error) => error.kind().as_str(),
    }
}

fn opened(operation: L2Operation) {
    tracing::warn!(
        reads = reads(operation),
        "the L2 store does not answer, and is not asked for a while"
    );
}

impl L2 {
    /// Asks the store about these partitions, all of one shard.
    pub(crate) async fn call<T, F>(
        &self,
        operation: L2Operation,
        of: &[&PartitionId],
        ask: impl Fn() -> F,
    ) -> Result<T, L2Error>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let span = tracing::debug_span!(
            "token_cache.l2",
            operation = operation.as_str(),
            partitions = of.len(),
            attempts = Empty,
            outcome = Empty,
        );
        let mut attempts = 0;
        let asking = self.attempts(operation, of, ask, &mut attempts);
        let answer = asking.instrument(span.clone()).await;
        span.record("attempts", attempts);
        span.record(
            "outcome",
            outcome(answer.as_ref().map_err(|failure| &failure.error)),
        );
        answer
    }

    async fn attempts<T, F>(
        &self,
        operation: L2Operation,
        of: &[&PartitionId],
        ask: impl Fn() -> F,
        number: &mut u32,
    ) -> Result<T, L2Error>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let first = of.first().map_or(0, |first| self.store.server(first));
        let shard = self.shards.get(first);
        let way = shard.way(operation);
        let alone = match of {
            [alone] => Some(*alone),
            _ => None,
        };
        let (attempt, all) = (self.timeouts.attempt_time(), self.timeouts.operation);
        // A move may take several steps. It must not be cut off between them, and where the answer to one is
        // lost, only this very move can go on from there.
        let is_move = operation == L2Operation::Relocate;
        let (limit, most, time) = match is_move {
            true => (all, MAX_MOVES, all * MAX_MOVES),
            false => (attempt, MAX_ATTEMPTS, all),
        };
        let deadline = Instant::now() + time;
        loop {
            let Some(attempt) = way.breaker.attempt() else {
                return Err(L2Error::of(StoreErrorKind::CircuitOpen));
            };
            *number += 1;
            let question = reads(operation).then(|| shard.pace.ask());
            let asked = Instant::now();
            let answer = within(limit, deadline, ask()).await;
            let answering = matches!(answer, Err(Late::Answering));
            let answer = answer.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Timeout)));
            self.counters
                .l2(operation, outcome(answer.as_ref()), asked.elapsed());
            // A refusal is an answer, and so is that another was faster.
            let answered = match &answer {
                Ok(_) => true,
                Err(error) => {
                    let kind = error.kind();
                    answering || matches!(kind, StoreErrorKind::Refused | StoreErrorKind::TooLarge)
                }
            };
            if answered {
                if let Some(question) = question {
                    question.answered();
                    shard.answered();
                }
                if attempt.succeeded() {
                    self.closed(operation, &shard);
                }
            } else {
                if let Some(question) = question {
                    question.unanswered();
                }
                if attempt.failed() {
                    opened(operation);
                }
            }
            let error = match answer {
                Ok(answer) => {
                    way.last_answer.set();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let decision = self.failed(operation, alone, *number, &error, way);
            let backoff = jittered(FIRST_BACKOFF * 2_u32.pow(*number - 1), SLIGHTLY);
            let retries = decision == OnFailure::Retry || (is_move && error.may_be_applied());
            let again = retries && *number < most && Instant::now() + backoff < deadline;
            if !again {
                return Err(L2Error { error, decision });
            }
            tokio::time::sleep(backoff).await;
        }
    }

    fn closed(&self, operation: L2Operation, shard: &Shard) {
        tracing::info!(reads = reads(operation), "the L2 store answers again");
        // The line above says so: a breaker closes no more often than it opens.
        let _ = shard.way(operation).reasons.recovered();
        if reads(operation) {
            shard.recovered();
        }
    }

    pub(crate) fn failed(
        &self,
        operation: L2Operation,
        partition: Option<&PartitionId>,
        attempt: u32,
        error: &StoreError,
        way: &Way,
    ) -> OnFailure {
        self.counters.l2_errors.add(1);
        let digest = partition.map(PartitionId::short);
        // Otherwise every attempt of an outage would be a warning.
        match way.reasons.is_news(error) {
            true => tracing::warn!(
                ?operation,
                attempt,
                partition = digest.as_deref(),
                error = error as &dyn std::error::Error,
                "the L2 store failed"
            ),
            false => tracing::debug!(
                ?operation,
                attempt,
                partition = digest.as_deref(),
                error = error as &dyn std::error::Error,
                "the L2 store failed again"
            ),
        }
        let failure = L2Failure {
            operation,
            partition: digest.as_deref(),
            attempt,
            error,
        };
        self.hook
            .as_ref()
            .map_or(OnFailure::Policy, |hook| (hook.0)(&failure))
    }
}
