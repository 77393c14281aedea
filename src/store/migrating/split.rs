//! A group of which each part goes to one of two stores, and the answers in the order of the group.

use crate::error::{StoreError, StoreErrorKind};

/// The store that decides on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Old,
    New,
}

pub(super) struct Split<R> {
    homes: Vec<Option<Place>>,
    answers: Vec<Result<R, StoreError>>,
}

impl<R> Split<R> {
    pub(super) fn new(homes: Vec<Result<Place, StoreError>>) -> Self {
        let answer = |home: &Result<Place, StoreError>| match home {
            Ok(_) => Err(missing()),
            Err(error) => Err(error.clone()),
        };
        let answers = homes.iter().map(answer).collect();
        let homes = homes.into_iter().map(Result::ok).collect();
        Self { homes, answers }
    }

    /// What goes to the old store, and to the new one.
    pub(super) fn of<T: Clone>(&self, group: &[T]) -> [Vec<T>; 2] {
        [Place::Old, Place::New].map(|place| pick(group, &self.at(place)))
    }

    pub(super) fn answers(&mut self, place: Place, answers: Vec<Result<R, StoreError>>) {
        for (at, answer) in self.at(place).into_iter().zip(answers) {
            self.answers[at] = answer;
        }
    }

    /// Which parts the old store has answered like this.
    pub(super) fn answered_by_old(&self, like: impl Fn(&R) -> bool) -> Vec<usize> {
        let mut at = self.at(Place::Old);
        at.retain(|at| self.answers[*at].as_ref().is_ok_and(&like));
        at
    }

    pub(super) fn answer(&mut self, at: usize, answer: Result<R, StoreError>) {
        self.answers[at] = answer;
    }

    pub(super) fn finish(self) -> Vec<Result<R, StoreError>> {
        self.answers
    }

    fn at(&self, place: Place) -> Vec<usize> {
        positions(&self.homes, |home| *home == Some(place))
    }
}

pub(super) fn positions<T>(group: &[T], like: impl Fn(&T) -> bool) -> Vec<usize> {
    let found = group.iter().enumerate().filter(|(_, it)| like(it));
    found.map(|(at, _)| at).collect()
}

pub(super) fn pick<T: Clone>(group: &[T], at: &[usize]) -> Vec<T> {
    at.iter().map(|at| group[*at].clone()).collect()
}

/// The only answer.
pub(super) fn first<T>(answers: Vec<Result<T, StoreError>>) -> Result<T, StoreError> {
    next(&mut answers.into_iter())
}

pub(super) fn next<T>(
    answers: &mut impl Iterator<Item = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    answers.next().unwrap_or_else(|| Err(missing()))
}

/// A store that gives fewer answers than it was asked for does not keep the contract.
fn missing() -> StoreError {
    StoreError::new(StoreErrorKind::Refused)
}
