//! What a handle does with its whole session.

use super::{Session, Tokens};
use crate::error::Error;
use crate::event::SignedOutBy;
use crate::key::PartitionKey;
use crate::lookup::Durability;

impl Tokens {
    /// Removes every token of the partition, for good: no request that has begun before can bring
    /// one back, on any instance. On return L2 has it, whatever the failure policy, unless the
    /// answer is [`Durability::Pending`].
    ///
    /// Where the layer [issues](crate::session) session ids, the head removes the cookie, and this handle and its clones
    /// are anonymous from the first poll on, whether this future is awaited to its end or not, and also if it fails: an
    /// id that was signed out is not used again. The session that the cookie names ends too where the request's key is
    /// another.
    ///
    /// While L2 cannot be asked, it holds in this process at once, and L2 is told as soon as it is
    /// back; until then other instances go on with the session: answer 202, and say so. If the process
    /// ends before that, L2 is told only where a [journal](crate::Builder::journal) remembers it.
    /// What begins here in the meantime
    /// belongs to the next session, and is kept unless L2 then says that others have signed it out,
    /// too. Of a partition that this process has never read, nobody can tell which session's
    /// refresh token an acquisition under way at that time has spent: if it was the new one's, the
    /// user signs in again.
    ///
    /// # Errors
    /// [`Error::NoPartition`], [`Error::ShutDown`], [`Error::ResponseSent`], and
    /// [`Error::Unavailable`] under
    /// [`FailurePolicy::Strict`](crate::FailurePolicy::Strict), or where the [journal](crate::Builder::journal) could not take what
    /// L2 has not heard of: the partition is then signed out in this process, and L2 will be told as
    /// long as it lives.
    pub async fn sign_out(&self) -> Result<Durability, Error> {
        self.sign_out_by(SignedOutBy::Session).await
    }

    pub(super) async fn sign_out_by(&self, by: SignedOutBy) -> Result<Durability, Error> {
        let session = self.session()?;
        if let Some(issue) = &self.handle.issue {
            let ends = {
                let mut head = issue.head();
                let ends = self.leave(&mut head, Some(session), by)?;
                head.remove();
                ends
            };
            return self.ended(ends).await;
        }
        let engine = &self.handle.engine;
        let mut observed = None;
        let sent = self.handle.head.is_closed();
        let wait = engine.sign_out(&session.partition, &mut observed, by)?;
        session.keep_new(observed);
        let ended = wait.await;
        if matches!(ended, Ok(Ok(Ok(_)))) {
            // The next use of this handle begins a new life of the partition.
            session.keep_new(None);
        }
        let durability = engine.finish(self.failure_policy(), ended)?;
        match sent {
            true => Err(Error::ResponseSent),
            false => Ok(durability),
        }
    }

    /// Gives the session a new id: moves everything to this partition, and signs the old one out,
    /// in one step of the store, so that a session id that was planted before is worth nothing after
    /// (OWASP: session fixation). What was planted *in* the session moves along, as do another user's tokens: at
    /// the end of a login use [`sign_in`](Self::sign_in), which leaves nothing of before.
    ///
    /// This handle and its clones are of the new partition from then on, as after a sign-in, and so is the handle that
    /// is returned. A cookie that the layer has [issued](crate::session) stays as it is. A redemption of the session's
    /// refresh token that is under way on any instance ends first, so that its successor moves; within an
    /// acquire function of this session a move waits for itself.
    ///
    /// A store that cannot do it in one step [does it in steps](crate::TokenStore::relocate). The new partition is as young as
    /// any: [`Lifetimes::absolute`](crate::Lifetimes::absolute) begins anew.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), [`Error::Unavailable`] when it is not known whether L2 did
    /// it, and when such a redemption takes longer than the
    /// [operation timeout](crate::Timeouts::operation), and [`Error::NoSessionId`] for a session in
    /// cookies, which cannot be planted: use [`sign_in`](Self::sign_in).
    pub async fn move_to(&self, partition: PartitionKey) -> Result<Self, Error> {
        let session = self.session()?;
        if self.is_in_cookies() {
            return Err(Error::NoSessionId);
        }
        let policy = self.failure_policy();
        let mut observed = session.observe();
        let moved = self
            .handle
            .engine
            .relocate(&session.partition, &partition, policy, &mut observed)
            .await;
        session.keep(observed);
        moved?;
        if session.partition != partition {
            self.go_over(session, partition)?;
        }
        Ok(self.clone())
    }

    /// The handle is of the partition that its session was moved to.
    fn go_over(&self, from: &Session, to: PartitionKey) -> Result<(), Error> {
        let handle = &*self.handle;
        let _head = handle.issue.as_ref().map(|issue| issue.head());
        if !handle.sessions.is_latest(from) {
            // A clone has signed in or out meanwhile.
            return Err(Error::SignedOut);
        }
        handle.sessions.replace(Some(from.moved(to)));
        from.forget_changes();
        Ok(())
    }

    /// Links this session to a user, so that
    /// [`TokenCache::sign_out_user`](crate::TokenCache::sign_out_user) ends it. [`sign_in`](Self::sign_in) does it
    /// for the users that it is given; without it, call it after [`move_to`](Self::move_to). On return L2 has it, as far as the failure policy demands.
    /// A session can be linked to several users (as known by several providers): the first of them
    /// to be signed out ends it.
    ///
    /// From then on the session lives only while L2 has the user's *epoch*, a record that is kept for
    /// 400 days after the last link, and as long as sessions may live by the
    /// [settings](crate::Builder). An L2 that evicts it signs the user out. The session's id is also
    /// kept in a [list](crate::TokenCache::sessions_of): without encryption (feature `seal`) whoever
    /// reads the store can read it, as the tokens.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for a user that cannot be a [`PartitionKey::user`];
    /// [`Error::Unavailable`] when L2 cannot be asked for the user's epoch, whatever the failure
    /// policy; and those of [`insert`](Self::insert).
    pub async fn link_user(&self, user: &str) -> Result<(), Error> {
        self.link(PartitionKey::epoch_of(user)?).await
    }

    /// Links this session to a session at the provider, as
    /// [`SignIn::provider_session`](crate::session::SignIn::provider_session) does, so that
    /// [`TokenCache::sign_out_provider_session`](crate::TokenCache::sign_out_provider_session) ends it.
    ///
    /// # Errors
    /// As for [`link_user`](Self::link_user).
    pub async fn link_provider_session(&self, iss: &str, sid: &str) -> Result<(), Error> {
        self.link(PartitionKey::epoch_of_provider_session(iss, sid)?)
            .await
    }

    /// Links this session to a user as the provider knows them, as
    /// [`SignIn::provider_user`](crate::session::SignIn::provider_user) does, so that
    /// [`TokenCache::sign_out_provider_user`](crate::TokenCache::sign_out_provider_user) ends it.
    ///
    /// # Errors
    /// As for [`link_user`](Self::link_user).
    pub async fn link_provider_user(&self, iss: &str, sub: &str) -> Result<(), Error> {
        self.link(PartitionKey::epoch_of_provider_user(iss, sub)?)
            .await
    }

    /// Links the session to the user of this epoch.
    pub(super) async fn link(&self, user: PartitionKey) -> Result<(), Error> {
        let session = self.session()?;
        let mut observed = session.observe();
        let engine = &self.handle.engine;
        let linked = engine
            .link(
                &session.partition,
                user,
                self.failure_policy(),
                &mut observed,
            )
            .await;
        session.keep(observed);
        linked?;
        session.note_use();
        Ok(())
    }
}
