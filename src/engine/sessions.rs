//! The sessions of a user. The link to the user's [epoch](crate::engine::partition::links) decides whether a
//! session is signed out; a [list](crate::engine::listed) of the sessions is kept beside it, to show them.

use std::sync::Arc;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::listed::About;
use crate::engine::namespace::Number;
use crate::engine::partition::links::{Link, Links};
use crate::engine::partition::merge::{DecodedLoad, ReadStart};
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::{Partition, State};
use crate::engine::revocations::Revocable;
use crate::error::{Error, StoreErrorKind};
use crate::key::PartitionKey;
use crate::policy::FailurePolicy;
use crate::store::{PartitionId, Raise, Revision};
use crate::time::Now;

impl Engine {
    /// Links a session to the user of this epoch. On return L2 has the link, as far as the policy demands.
    pub(crate) async fn link(
        self: &Arc<Self>,
        session: &PartitionKey,
        user: PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(), Error> {
        let (session, mut seen) = (session.clone(), *observed);
        let links = |engine: Arc<Self>| async move {
            let linked = engine.link_to(&session, &user, policy, &mut seen).await;
            (linked, seen)
        };
        let linked = self.detached(self.deadline(), links).await;
        let (linked, seen) = linked.map_err(|failure| Error::Unavailable(failure.error))?;
        *observed = seen;
        linked
    }

    async fn link_to(
        self: &Arc<Self>,
        session: &PartitionKey,
        user: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(), Error> {
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let unavailable = |failure: L2Error| Error::Unavailable(failure.error);
        let link = self.begin_link(user).await.map_err(unavailable)?;
        if policy != FailurePolicy::Bypass {
            // Read after the number was taken: a link of the past, made by another instance, is found to be
            // over here. The entries that came with it must not go on under this link.
            let read = self.fetch(session, |_, _| ()).await;
            read.map_err(unavailable)?;
        }
        let (name, value) = link.entry();
        self.change(session, vec![(name, Some(value))], policy, observed)
            .await?;
        let written = self.commit(session).await;
        if observed.is_some_and(|observed| self.is_over(session, &observed, &written)) {
            return Err(Error::SignedOut);
        }
        let _ = self.finish(policy, written)?;
        if policy != FailurePolicy::Bypass {
            let about = About::since(self.clock.now());
            self.list(session, &link, &about).await;
        }
        Ok(())
    }

    pub(crate) async fn begin_link(self: &Arc<Self>, user: &PartitionKey) -> Result<Link, L2Error> {
        let id = self.id(user).await?;
        let epoch = self.rules.users.get(id.digest());
        let hints = epoch.hints();
        let begin = Raise::Begin(Number::at(self.clock.now()).get());
        let raised = self.l2.raise(&id, begin, self.epoch_life());
        let mut number = raised.await?;
        if let Some(known) = epoch.later_than(number) {
            // L2 has lost the epoch, and an instance with a slower clock has begun it again: neither number
            // goes on.
            let raise = Raise::Beyond(known + 1);
            number = self.l2.raise(&id, raise, self.epoch_life()).await?;
        }
        epoch.answered(number, hints);
        let link = Link::new(epoch, number);
        match link.is_over() {
            // The user is signed out in this process, and L2 has not acknowledged it.
            true => Err(L2Error::of(StoreErrorKind::Unreachable)),
            false => Ok(link),
        }
    }

    /// Whether a session with these links is signed out. L2 is asked for the epoch of each link.
    pub(crate) async fn are_over(self: &Arc<Self>, links: &Links) -> Result<bool, L2Error> {
        let asked = links.iter().map(async |link| {
            let namespace = &self.l2.codec.namespace;
            let id = PartitionId::from_digest(namespace.clone(), link.epoch.digest);
            let hints = link.epoch.hints();
            let revision = self.ask::<Revision>(id).await?;
            link.epoch.answered(revision.generation, hints);
            Ok::<_, L2Error>(revision.generation != link.number)
        });
        let answers = futures_util::future::try_join_all(asked).await?;
        Ok(answers.contains(&true) || links.are_over())
    }

    /// L2 has lost everything. Begins the epochs of a session in memory again, each with its own number,
    /// before the session is written again. An epoch that another instance has begun meanwhile stays as it
    /// is. Returns whether the session goes on; that is decided first, because the feed announces what is
    /// done here, too.
    pub(crate) async fn begin_epochs_again(&self, key: &PartitionKey) -> Result<bool, L2Error> {
        let links = self.partitions.with(key, |_, state| {
            let is_believed = state.heard(&self.rules);
            is_believed.then(|| state.links.undoubted())
        });
        let is_believed = links.is_some();
        for link in links.iter().flat_map(Links::iter) {
            let namespace = &self.l2.codec.namespace;
            let id = PartitionId::from_digest(namespace.clone(), link.epoch.digest);
            let hints = link.epoch.hints();
            let begin = Raise::Begin(link.number);
            let number = self.l2.raise(&id, begin, self.epoch_life()).await?;
            link.epoch.answered(number, hints);
        }
        Ok(is_believed)
    }

    /// Signs out a session whose links, as read from L2, are over. Returns the result of `see`, or `None` if
    /// memory has changed since the read began.
    pub(crate) fn end_linked<R>(
        self: &Arc<Self>,
        key: &PartitionKey,
        fetched: &DecodedLoad,
        floor: ReadStart,
        links: &Links,
        see: impl FnOnce(&mut State, Now) -> R,
    ) -> Option<R> {
        let seen = self.partitions.with(key, |partition, state| {
            if state.floor() != floor {
                return None;
            }
            state.generation = state.generation.max(Some(fetched.generation));
            let entries = fetched.entries.iter().map(|(name, value)| (name, value));
            self.end_session(partition, state, self.revocations.among(entries));
            Some(see(state, self.now()))
        })?;
        self.wake();
        self.unlist(key, links);
        Some(seen)
    }

    /// Signs out a session in memory if this process knows that its links are over.
    pub(crate) fn end_known(self: &Arc<Self>, key: &PartitionKey) -> Arc<Partition> {
        let (partition, ended) = self.partitions.with(key, |partition, state| {
            let ended = state.links.are_over().then(|| state.links.clone());
            if ended.is_some() {
                self.end_session(partition, state, Vec::new());
            }
            (partition.clone(), ended)
        });
        if let Some(links) = ended {
            self.wake();
            self.unlist(key, &links);
        }
        partition
    }

    /// `in_l2` are refresh tokens of the session that memory may not have.
    fn end_session(&self, partition: &Arc<Partition>, state: &mut State, in_l2: Vec<Revocable>) {
        if state.is_signing_out() {
            return;
        }
        state.revoke(&self.revocations);
        let dropped = state.sign_out(self.queue.next_id(), self.now().moment);
        self.counters.signed_out_changes.add(dropped as u64);
        if let Some(revoke) = &mut state.pending().revoke {
            revoke.extend(in_l2);
        }
        // Ends this generation only: the next session may have begun on another instance.
        let is_confirmed = state.generation.is_some();
        state.amend_sign_out(|sign_out| sign_out.is_confirmed = is_confirmed);
        self.push(partition, state);
    }
}
