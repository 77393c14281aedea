//! The lists of users' sessions, to show them. A list is the entries of a partition of its own. The epoch's digest
//! names it, so that a session that ends can be removed without knowing its user.
//!
//! Nothing depends on a list: whether a session is signed out is decided by its [link](crate::engine::partition::links).

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use crate::codec::Value;
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::partition::links::{Link, Links};
use crate::key::{PartitionKey, TokenKey};
use crate::policy::FailurePolicy;
use crate::session::SessionInfo;
use crate::store::{Lifetime, Loaded, PartitionId};
use crate::time::{Now, Timestamp};
use crate::token::Token;

/// How long a session is listed, whatever its own lifetime.
const LISTED_FOR: Duration = Duration::from_secs(400 * 24 * 3600);
/// Sessions in one list. Beyond that the oldest are removed.
const MAX_LISTED: usize = 1000;
/// Sessions that are looked at together. The store is asked for groups of them.
const AT_ONCE: usize = 128;
const LABEL: &str = "label";

/// What a list says of a session.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) created: Timestamp,
    pub(crate) label: Option<Box<str>>,
}

impl About {
    pub(crate) fn since(created: Timestamp) -> Self {
        Self {
            created,
            label: None,
        }
    }

    /// The entry of a list: its expiry says when the session was created.
    fn entry(&self, session: &PartitionKey) -> Value {
        let listed = Token::new(session.to_text().expose());
        let listed = listed.with_expires_at(self.created.saturating_add(LISTED_FOR));
        let labelled = self.label.as_ref();
        let labelled = labelled.and_then(|label| listed.clone().with_extra(LABEL, label).ok());
        Value::Token(labelled.unwrap_or(listed))
    }

    fn read(value: &Value) -> Option<(PartitionKey, Self)> {
        let Value::Token(listed) = value else {
            return None;
        };
        let about = Self {
            created: listed.expires_at()?.saturating_sub(LISTED_FOR),
            label: listed.extra(LABEL),
        };
        Some((PartitionKey::from_text(listed.access_token())?, about))
    }
}

impl Value {
    /// The session that an entry of a list stands for.
    pub(crate) fn as_listed(&self) -> Option<PartitionKey> {
        About::read(self).map(|(session, _)| session)
    }
}

impl Engine {
    /// The lifetime of a partition.
    pub(crate) fn lifetime_of(&self, key: &PartitionKey) -> Lifetime {
        match key.is_list() {
            true => Lifetime {
                since_write: Some(LISTED_FOR),
                ..Lifetime::default()
            },
            false => self.rules.lifetimes.partition,
        }
    }

    /// Adds a session to the user's list. A failure has no effect but that it is not shown.
    pub(crate) async fn list(self: &Arc<Self>, session: &PartitionKey, link: &Link, about: &About) {
        let list = PartitionKey::list_of(&link.epoch.digest);
        let Ok(name) = self.listed_as(session).await else {
            return;
        };
        let policy = FailurePolicy::Degrade;
        if self
            .know_generation(&list, policy, &mut None)
            .await
            .is_err()
        {
            return;
        }
        let (known, oldest) = self.partitions.with(&list, |_, state| {
            let mut listed = state.usable_entries(self.now());
            let known = listed.iter().find(|(listed, _)| *listed == name);
            let known = known.and_then(|(_, value)| About::read(value));
            listed.sort_unstable_by_key(|(_, value)| value.expires_at());
            let count = (listed.len() + 1).saturating_sub(MAX_LISTED);
            listed.truncate(count);
            (known, listed)
        });
        // A session that is linked once more is what it was.
        let about = known.map_or_else(|| about.clone(), |(_, known)| known);
        let oldest = oldest.into_iter().map(|(name, _)| (name, None));
        let changes = oldest.chain([(name, Some(about.entry(session)))]);
        let changes = changes.collect();
        let changed = self.change(&list, changes, policy, &mut None).await;
        if changed.is_ok() {
            let _ = self.commit(&list).await;
        }
    }

    /// Removes a session from the lists that it is on, in the background.
    pub(crate) fn unlist(self: &Arc<Self>, session: &PartitionKey, links: &Links) {
        for link in links.iter() {
            let list = PartitionKey::list_of(&link.epoch.digest);
            let session = session.clone();
            self.in_background(|engine| async move {
                engine.unlist_from(&list, &session).await;
            });
        }
    }

    async fn unlist_from(self: &Arc<Self>, list: &PartitionKey, session: &PartitionKey) {
        let Ok(name) = self.listed_as(session).await else {
            return;
        };
        let policy = FailurePolicy::Degrade;
        let change = vec![(name, None)];
        let changed = self.change(list, change, policy, &mut None).await;
        if changed.is_ok() {
            self.enqueue(list);
        }
    }

    /// The same for a session as it was read from L2.
    pub(crate) fn unlist_loaded(
        self: &Arc<Self>,
        session: &PartitionKey,
        id: &PartitionId,
        loaded: &Loaded,
    ) {
        let names = self.l2.codec.small_names(id, loaded);
        let links = Links::among(names.iter(), &self.rules.users);
        self.unlist(session, &links);
    }

    /// Empties a list: all sessions on it are signed out.
    pub(crate) fn unlist_all(self: &Arc<Self>, epoch: &[u8; 32]) {
        let list = PartitionKey::list_of(epoch);
        // The list only serves to show sessions, so the write is not waited for.
        let _ = self.clear_out(&list, &mut None);
    }

    /// A session that was moved goes on the same lists, as what it was.
    pub(crate) fn relist(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        entries: &[(TokenKey, Value)],
    ) {
        let links = Links::among(entries.iter().map(|(name, _)| name), &self.rules.users);
        for link in links.iter() {
            let (from, to, link) = (from.clone(), to.clone(), link.clone());
            self.in_background(|engine| async move {
                let list = PartitionKey::list_of(&link.epoch.digest);
                let read = engine.fetch(&list, |state, now: Now| state.usable_entries(now));
                let entries = read.await.map(|(entries, _)| entries).unwrap_or_default();
                let mut listed = entries.iter().filter_map(|(_, value)| About::read(value));
                let about = listed.find(|(session, _)| *session == from);
                let about = about.map(|(_, about)| about);
                let about = about.unwrap_or_else(|| About::since(engine.clock.now()));
                engine.list(&to, &link, &about).await;
                engine.unlist_from(&list, &from).await;
            });
        }
    }

    /// The name of a session's entry in a list.
    async fn listed_as(self: &Arc<Self>, session: &PartitionKey) -> Result<TokenKey, L2Error> {
        let name = self.id(session).await?.encoded();
        Ok(TokenKey::from_canonical(&format!(
            "\u{1}session\u{1}{name}"
        )))
    }

    pub(crate) async fn listed(
        self: &Arc<Self>,
        user: &PartitionKey,
    ) -> Result<Vec<PartitionKey>, L2Error> {
        let id = self.id(user).await?;
        let list = PartitionKey::list_of(id.digest());
        let read = self.fetch(&list, |state, now: Now| state.usable_entries(now));
        let (entries, _) = read.await?;
        let sessions = entries.iter().filter_map(|(_, value)| value.as_listed());
        Ok(sessions.collect())
    }

    /// The sessions on a user's list that L2 has, newest first.
    pub(crate) async fn describe_sessions(
        self: &Arc<Self>,
        user: &PartitionKey,
    ) -> Result<Vec<SessionInfo>, L2Error> {
        let id = self.id(user).await?;
        let list = PartitionKey::list_of(id.digest());
        let read = self.fetch(&list, |state, now: Now| state.usable_entries(now));
        let (entries, _) = read.await?;
        let listed = entries.iter().filter_map(|(_, value)| About::read(value));
        let looks = listed.map(|(session, about)| self.describe(session, about));
        let looks = Vec::from_iter(looks);
        let looked = stream::iter(looks).buffer_unordered(AT_ONCE);
        let looked = looked.collect::<Vec<_>>().await.into_iter();
        let known = looked.collect::<Result<Vec<_>, _>>()?;
        let mut known = Vec::from_iter(known.into_iter().flatten());
        known.sort_by_key(|session| std::cmp::Reverse(session.created));
        Ok(known)
    }

    async fn describe(
        self: &Arc<Self>,
        partition: PartitionKey,
        about: About,
    ) -> Result<Option<SessionInfo>, L2Error> {
        let id = self.id(&partition).await?;
        let loaded: Loaded = self.ask(id.clone()).await?;
        let names = self.l2.codec.small_names(&id, &loaded);
        let links = Links::among(names.iter(), &self.rules.users);
        // Another link than the user's may have ended it, as by a logout at the provider.
        if loaded.entries.is_empty() || self.are_over(&links).await? {
            return Ok(None);
        }
        let sliding = self.rules.lifetimes.partition.sliding;
        let unused_for = sliding
            .zip(loaded.remaining.idle)
            .map(|(sliding, left)| sliding.saturating_sub(left));
        let now = self.clock.now();
        Ok(Some(SessionInfo {
            partition,
            created: about.created,
            last_seen: unused_for.map(|time| now.saturating_sub(time)),
            label: about.label.map(String::from),
        }))
    }
}
