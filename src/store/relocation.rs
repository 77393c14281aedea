//! A move in steps, for stores that cannot make it in one.

use super::raise::LIMIT;
use super::{Commit, EntryId, Expected, Loaded, Origin, Outcome, TokenStore};
use crate::error::{StoreError, StoreErrorKind};

/// The old partition is signed out before the new one is written: a failure in between ends the session
/// rather than leave it with two names. The tombstone remembers the move, so that it can be repeated.
pub(super) async fn in_steps<S: TokenStore + ?Sized>(
    store: &S,
    from: &Origin,
    commit: &Commit,
) -> Result<Outcome, StoreError> {
    if from.partition == commit.partition {
        return Err(StoreError::new(StoreErrorKind::Refused));
    }
    let answers = store.commit(&[never_applied(commit)]).await;
    match next(&mut answers.into_iter())? {
        Outcome::Conflict => {}
        answered => return Ok(answered),
    }
    let group = [from.partition.clone(), commit.partition.clone()];
    let mut loaded = store.load(&group).await.into_iter();
    let (old, new) = (next(&mut loaded)?, next(&mut loaded)?);
    // Where the generation has risen the sign-out changes nothing, and says whether this move was why.
    let as_read = old.generation > from.generation || is_as_read(&old, from);
    if !as_read || !commit.expected.is_none_or(|entry| is_met(&new, entry)) {
        return Ok(Outcome::Conflict);
    }
    let cleared = store.clear(&from.partition, Some(from.generation), commit.id);
    if !cleared.await?.ended {
        return Ok(Outcome::Conflict);
    }
    let answers = store.commit(std::slice::from_ref(commit)).await;
    next(&mut answers.into_iter())
}

/// A commit that is answered as this one, except that a conflict stands for "it would be applied": no entry
/// has the version that it expects.
fn never_applied(commit: &Commit) -> Commit {
    let mut probe = commit.clone();
    probe.changes.clear();
    probe.expected = Some(Expected {
        entry: EntryId::from([0; 16]),
        version: LIMIT - 1,
    });
    probe
}

fn is_as_read(old: &Loaded, from: &Origin) -> bool {
    let has_ended = old.remaining.idle.is_some_and(|idle| idle.is_zero());
    let version = if has_ended { 0 } else { old.version };
    (old.generation, version) == (from.generation, from.version)
}

fn is_met(new: &Loaded, expected: Expected) -> bool {
    let entry = new.entries.iter().find(|it| it.entry == expected.entry);
    entry.map_or(0, |entry| entry.version) == expected.version
}

fn next<T>(answers: &mut impl Iterator<Item = Result<T, StoreError>>) -> Result<T, StoreError> {
    let missing = || Err(StoreError::new(StoreErrorKind::Refused));
    answers.next().unwrap_or_else(missing)
}
