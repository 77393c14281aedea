//! A session of a new id: its tokens and its links to users, in one commit.

use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};

use crate::codec::Value;
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::listed::About;
use crate::engine::partition::links::Link;
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::lookup::Durability;
use crate::policy::FailurePolicy;

/// A session that has begun. If its caller has gone, no browser gets its id: it is signed out on drop, unless it
/// is [kept](Self::keep).
pub(crate) struct Begun {
    engine: Arc<Engine>,
    session: Option<PartitionKey>,
}

impl Begun {
    pub(crate) fn keep(mut self) -> Option<PartitionKey> {
        self.session.take()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.engine.forget_session(&session);
        }
    }
}

impl Engine {
    /// Begins a session of an id that was not used before. On return L2 has it, as far as the policy demands; where it
    /// has links, L2 was asked for the users whatever the policy.
    pub(crate) async fn begin_session(
        self: &Arc<Self>,
        session: PartitionKey,
        entries: Vec<(TokenKey, Value)>,
        users: Vec<PartitionKey>,
        about: About,
        policy: FailurePolicy,
    ) -> Result<(Begun, Durability), Error> {
        let begins = |engine: Arc<Self>| async move {
            engine
                .begin_session_here(session, entries, users, about, policy)
                .await
        };
        // One wait for L2 before the change, one for the commit.
        let deadline = self.deadline() + self.l2.timeouts.operation;
        let begun = self.detached(deadline, begins).await;
        begun.map_err(|failure| Error::Unavailable(failure.error))?
    }

    async fn begin_session_here(
        self: &Arc<Self>,
        session: PartitionKey,
        mut entries: Vec<(TokenKey, Value)>,
        users: Vec<PartitionKey>,
        about: About,
        policy: FailurePolicy,
    ) -> Result<(Begun, Durability), Error> {
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let links = self.links_to(&users).await;
        let links = links.map_err(|failure| Error::Unavailable(failure.error))?;
        entries.extend(links.iter().map(|link| link.entry()));
        let changes = entries.into_iter();
        let changes = changes.map(|(name, value)| (name, Some(value)));
        // Before the change: a change that fails may be kept all the same.
        let begun = Begun {
            engine: self.clone(),
            session: Some(session.clone()),
        };
        self.change(&session, changes.collect(), policy, &mut None)
            .await?;
        let written = self.commit(&session).await;
        let durability = self.finish(policy, written)?;
        if policy != FailurePolicy::Bypass {
            join_all(links.iter().map(|link| self.list(&session, link, &about))).await;
        }
        Ok((begun, durability))
    }

    async fn links_to(self: &Arc<Self>, users: &[PartitionKey]) -> Result<Vec<Link>, L2Error> {
        try_join_all(users.iter().map(|user| self.begin_link(user))).await
    }

    /// The links that a session in cookies begins with: its other entries are not made where these cannot be.
    pub(crate) async fn begin_links(
        self: &Arc<Self>,
        users: Vec<PartitionKey>,
    ) -> Result<Vec<Link>, Error> {
        let begins = |engine: Arc<Self>| async move { engine.links_to(&users).await };
        let begun = self.detached(self.deadline(), begins).await;
        let begun = begun.and_then(|begun| begun);
        begun.map_err(|failure| Error::Unavailable(failure.error))
    }

    /// Adds a session in cookies to the lists of the users that it is linked to.
    pub(crate) async fn list_linked(
        self: &Arc<Self>,
        session: &PartitionKey,
        links: Vec<Link>,
        about: About,
    ) {
        let session = session.clone();
        let lists = |engine: Arc<Self>| async move {
            join_all(links.iter().map(|link| engine.list(&session, link, &about))).await;
        };
        // A failure has no effect but that it is not shown.
        let _ = self.detached(self.deadline(), lists).await;
    }

    /// Signs out a session whose id no browser has. It is not waited for.
    pub(crate) fn forget_session(self: &Arc<Self>, session: &PartitionKey) {
        // After a shutdown nothing is sent any more, and it ends with its lifetime.
        drop(self.clear_out(session, &mut None));
    }
}
