//! What an acquisition learns from a partition in memory, and how acquired tokens enter it.

use crate::acquire::FailureRecord;
use crate::codec::Value;
use crate::engine::partition::change::AcquiredBatch;
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::State;
use crate::key::TokenKey;
use crate::lookup::Lookup;
use crate::secret::Secret;
use crate::store::EntryId;
use crate::time::Now;
use crate::token::Token;

/// What is known of a partition when a token has to be acquired.
pub(crate) struct RefreshState {
    /// The token, expired or not.
    pub(crate) token: Option<Token>,
    pub(crate) refresh_token: Lookup<Secret>,
    pub(crate) id_token: Lookup<Secret>,
    /// Why the last acquisition failed, if that is recorded.
    pub(crate) failure_record: Option<FailureRecord>,
    /// Whether the partition is known to exist: L2 has it, or is to have it.
    pub(crate) exists: bool,
    /// Changes of these tokens are pending.
    pub(crate) waits: bool,
    pub(crate) observed: Observed,
    /// The versions that the entries have in L2; `None` if L2 was not asked.
    versions: Option<Vec<(EntryId, u64)>>,
}

impl RefreshState {
    pub(crate) fn with_versions(mut self, versions: Vec<(EntryId, u64)>) -> Self {
        self.versions = Some(versions);
        self
    }

    /// The version of an entry in L2, 0 if it is absent; `None` if L2 was not asked.
    pub(crate) fn version(&self, entry: EntryId) -> Option<u64> {
        let versions = self.versions.as_ref()?;
        let found = versions.iter().find(|(id, _)| *id == entry);
        Some(found.map_or(0, |(_, version)| *version))
    }

    /// The entry that an acquisition of the token `name` must find unchanged: the refresh token that it
    /// redeems, or the token itself if there is none. A commit that writes only the token spends no refresh
    /// token.
    pub(crate) fn guarded_entry(&self, name: &TokenKey) -> TokenKey {
        match self.refresh_token.is_hit() {
            true => name.refresh_token(),
            false => name.clone(),
        }
    }
}

impl State {
    /// What is known now of the token `name` and of what may replace it, where it is to have these claims.
    pub(crate) fn refresh_state(
        &self,
        name: &TokenKey,
        claims: Option<&str>,
        now: Now,
    ) -> RefreshState {
        let names = [name.clone(), name.refresh_token(), name.id_token()];
        let token = self.token(name.as_ref());
        let refresh_token = self.seen_secret(&names[1], now);
        let failures = names[..2].iter();
        let failures = failures.filter_map(|name| self.failure_record(name));
        let failure_record = failures
            .filter(|record| record.concerns(&refresh_token, claims))
            .max_by_key(|record| record.retry_at());
        let unstored_failure = self.unstored_failure.as_deref();
        let unstored_failure = unstored_failure.and_then(|unstored_failure| {
            unstored_failure.failure_record(name, &refresh_token, claims, now.wall)
        });
        let failure_record = failure_record.or(unstored_failure).cloned();
        RefreshState {
            exists: self.exists(),
            token,
            id_token: self.seen_secret(&names[2], now),
            failure_record,
            waits: names.iter().any(|name| self.waits(name.as_ref())),
            observed: self.observe(now),
            versions: None,
            refresh_token,
        }
    }

    /// Whether the partition is known to exist.
    pub(crate) fn exists(&self) -> bool {
        let pending = self.pending.as_ref();
        self.version > 0 || !self.is_empty() || pending.is_some_and(|pending| pending.has_changes())
    }

    /// The token, expired or not.
    pub(crate) fn token(&self, name: &str) -> Option<Token> {
        match &self.entries.get(name)?.value {
            Value::Token(token) => Some(token.clone()),
            _ => None,
        }
    }

    /// What is recorded of failures that concern this entry.
    fn failure_record(&self, name: &TokenKey) -> Option<&FailureRecord> {
        match &self.entries.get(name.failure_record().as_ref())?.value {
            Value::FailureRecord(record) => Some(record),
            _ => None,
        }
    }

    fn seen_secret(&self, name: &TokenKey, now: Now) -> Lookup<Secret> {
        let name = name.as_ref();
        let usable = self.entries.get(name).filter(|entry| {
            let lives = entry.local || self.waits(name) || !self.ended(now);
            lives && entry.is_unexpired(now.wall)
        });
        match usable.and_then(|entry| entry.value.as_secret()) {
            Some(secret) => Lookup::Hit(secret.clone()),
            _ if self.unopenable.holds(name) => Lookup::Unopenable,
            _ if self.complete || self.waits(name) || self.is_signing_out() => Lookup::Absent,
            _ => Lookup::Unavailable,
        }
    }

    /// Queues acquired tokens for L2. They replace pending changes that the acquisition has `seen`, or has not
    /// because they had expired; newer changes stay, and are sent after them.
    pub(crate) fn take_acquired(
        &mut self,
        batch: AcquiredBatch,
        key: &TokenKey,
        seen: &RefreshState,
        now: Now,
    ) {
        let (refresh_token, id_token) = (key.refresh_token(), key.id_token());
        let changes = &mut self.pending().changes;
        for (name, _) in batch.changes.iter() {
            let has_seen = |value: Option<&Value>| match name {
                _ if has_expired(value, now) => true,
                name if *name == refresh_token => is_seen(value, &seen.refresh_token),
                name if *name == id_token => is_seen(value, &seen.id_token),
                _ => value == seen.token.clone().map(Value::Token).as_ref(),
            };
            if changes
                .get(name.as_ref())
                .is_some_and(|change| has_seen(change.value.as_ref()))
            {
                changes.remove(name.as_ref());
            }
        }
        self.pending().acquired.push_back(batch);
    }

    /// Applies the visible changes that L2 does not have on top of the entries.
    pub(crate) fn overlay_pending(&mut self) {
        let pending = self.pending.take();
        for (name, change) in pending.iter().flat_map(|pending| pending.iter()) {
            self.apply(name.clone(), change.value.clone(), false);
        }
        self.pending = pending;
    }

    /// Makes those acquired tokens visible although L2 does not have them yet whose acquisition no longer waits.
    pub(crate) fn reveal(&mut self) {
        self.pending().reveal();
        self.overlay_pending();
    }
}

fn has_expired(value: Option<&Value>, now: Now) -> bool {
    let end = value.and_then(Value::expires_at);
    end.is_some_and(|end| end <= now.wall)
}

fn is_seen(value: Option<&Value>, seen: &Lookup<Secret>) -> bool {
    let seen = seen.as_ref().hit();
    value.map_or(seen.is_none(), |value| value.as_secret() == seen)
}
