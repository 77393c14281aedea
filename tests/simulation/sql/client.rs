//! An instance that changes something: it reads, and has the server write where nothing has changed since, or begins again.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tower_token_cache::{StoreError, StoreErrorKind};

use super::transaction::{Answer, Change, carry_out};
use crate::store::SimStore;

/// An operation whose answer the instance has not heard.
struct Unheard<'a>(&'a SimStore);

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        self.0.world.lock().disturb(self.0.instance);
    }
}

impl SimStore {
    /// Carries changes out, each by itself. Where it fails, some may have been made, and others may be made later.
    pub async fn change<T: Send + 'static>(
        &self,
        changes: Vec<Change<T>>,
    ) -> Vec<Result<T, StoreError>> {
        let mut answers: Vec<Option<T>> = changes.iter().map(|_| None).collect();
        let unheard = Unheard(self);
        let error = match self.attempts(&changes, &mut answers).await {
            Ok(()) => {
                std::mem::forget(unheard);
                StoreErrorKind::Timeout
            }
            Err(error) => error,
        };
        let answer = |answer: Option<T>| answer.ok_or_else(|| StoreError::new(error));
        answers.into_iter().map(answer).collect()
    }

    async fn attempts<T: Send + 'static>(
        &self,
        changes: &[Change<T>],
        answers: &mut [Option<T>],
    ) -> Result<(), StoreErrorKind> {
        let mut was_cut = false;
        loop {
            let open = (0..answers.len()).filter(|at| answers[*at].is_none());
            let open: Vec<_> = open.collect();
            if open.is_empty() {
                return Ok(());
            }
            let (fate, on_its_way, is_cut) = {
                let mut state = self.world.lock();
                let mut fate = state.fate(self.instance, false);
                let rng = &mut state.sql().rng;
                let on_its_way = match rng.percent(50) {
                    true => std::mem::take(&mut fate.before),
                    false => 0,
                };
                (fate, on_its_way, rng.percent(3))
            };
            sleep(Duration::from_millis(fate.before)).await;
            self.world.awake(self.instance).await;
            if fate.refused {
                return Err(StoreErrorKind::Unreachable);
            }
            let (reply, answered) = oneshot::channel();
            {
                let mut state = self.world.lock();
                if state.refuses(false) {
                    return Err(StoreErrorKind::Refused);
                }
                let sent = state.plan(open.iter().map(|at| changes[*at].clone()).collect());
                tokio::spawn(carry_out(self.world.clone(), sent, on_its_way, reply));
            }
            let answer = match is_cut {
                true => None,
                false => answered.await.ok(),
            };
            sleep(Duration::from_millis(fate.after)).await;
            self.world.awake(self.instance).await;
            match answer.filter(|_| !fate.muted) {
                Some(Answer::Done(done)) => {
                    for (at, answer) in open.into_iter().zip(done) {
                        answers[at] = answer;
                    }
                }
                Some(Answer::Again) => {}
                Some(Answer::ReadOnly) => return Err(StoreErrorKind::Refused),
                None if was_cut => return Err(StoreErrorKind::Unreachable),
                None => {
                    was_cut = true;
                    continue;
                }
            }
            if answers.iter().any(Option::is_none) {
                let (gives_up, pause) = {
                    let mut state = self.world.lock();
                    let rng = &mut state.sql().rng;
                    (rng.percent(30), rng.between(0, 50))
                };
                if gives_up {
                    return Err(StoreErrorKind::Timeout);
                }
                sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}
