//! `insert`, `remove`, and what a handle changes in its session, and the session that begins with the first change.

use std::sync::atomic::Ordering;

use super::{Session, Tokens};
use crate::codec::Value;
use crate::error::Error;
use crate::key::TokenKey;
use crate::lookup::Durability;
use crate::policy::FailurePolicy;
use crate::session::Issue;
use crate::token::TokenSet;

/// The largest token set, in bytes of text: a hundred times what providers issue.
pub(crate) const MAX_TOKEN_SET: usize = 1 << 20;

impl Tokens {
    /// Keeps a token, or a token endpoint's whole answer, under this key.
    ///
    /// Visible at once to this handle and to every request of this process. A set without a
    /// refresh or id token leaves the [client](Self::client)'s as it is: at the end of a login use
    /// [`sign_in`](Self::sign_in). Where the layer [issues](crate::session) session ids, an anonymous request gets a
    /// session.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::TooLarge`], [`Error::SignedOut`], [`Error::Overloaded`],
    /// [`Error::ResponseSent`], [`Error::Randomness`], and those of [`get`](Self::get). On an error nothing is changed, with one exception: under
    /// [`FailurePolicy::Strict`] and [`Overloaded`](crate::Builder::max_pending_changes) queues,
    /// the change may be kept and replayed although its commit failed.
    pub async fn insert<K>(&self, key: K, tokens: impl Into<TokenSet>) -> Result<(), Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        let key = key.try_into()?;
        let changes = self.entries_of(&key, tokens.into())?;
        let changes = changes.map(|(name, value)| (name, Some(value)));
        self.keep(changes.collect(), false).await
    }

    /// What this client has after an answer, by entry.
    pub(super) fn entries_of(
        &self,
        key: &TokenKey,
        set: TokenSet,
    ) -> Result<impl Iterator<Item = (TokenKey, Value)> + use<>, Error> {
        let size = set.size();
        if size > MAX_TOKEN_SET {
            return Err(Error::TooLarge {
                size,
                limit: MAX_TOKEN_SET,
            });
        }
        Ok(set.into_changes(self.entry(key).into_owned()))
    }

    /// Removes the token under this key, before the response head is sent.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub async fn remove<K>(&self, key: K) -> Result<(), Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        let entry = self.entry(&key.try_into()?).into_owned();
        self.change(self.session()?, vec![(entry, None)], true)
            .await
    }

    /// Keeps something in the session, or in a new one where the request is anonymous and the layer issues ids.
    pub(super) async fn keep(
        &self,
        changes: Vec<(TokenKey, Option<Value>)>,
        urgent: bool,
    ) -> Result<(), Error> {
        match (self.session(), &self.handle.issue) {
            (Err(_), Some(issue)) => {
                let session = self.begin(issue)?;
                self.change(&session, changes, urgent).await?;
                self.enter(issue, session)
            }
            (session, _) => self.change(session?, changes, urgent).await,
        }
    }

    pub(super) async fn change(
        &self,
        session: &Session,
        changes: Vec<(TokenKey, Option<Value>)>,
        urgent: bool,
    ) -> Result<(), Error> {
        let (handle, partition) = (&*self.handle, &session.partition);
        let before = self.before_change()?;
        let mut observed = session.observe();
        let policy = self.failure_policy();
        let made = handle
            .engine
            .change(partition, changes, policy, &mut observed)
            .await;
        session.keep(observed);
        made?;
        if session.is_left() {
            // By a clone, perhaps before this handle had observed the session.
            handle.engine.forget_session(partition);
            return Err(Error::SignedOut);
        }
        session.note_use();
        if policy == FailurePolicy::Bypass {
            return Ok(());
        }
        if before.is_some() {
            let ended = handle.engine.commit(partition).await;
            self.after_change(before)?;
            return match handle.engine.finish(policy, ended)? {
                Durability::Stored => Ok(()),
                // It may be written later, when no head carries it.
                Durability::Pending => Err(Error::unavailable()),
            };
        }
        session.note_change(urgent);
        if handle.ended.load(Ordering::SeqCst) {
            handle.engine.enqueue(partition);
        }
        Ok(())
    }

    /// The session of an anonymous request that keeps something. The handle [enters](Self::enter) it when that is done.
    fn begin(&self, issue: &Issue) -> Result<Session, Error> {
        let mut head = issue.head();
        head.check_open()?;
        head.begin().map(Session::new)
    }

    /// The handle has this session, which something was kept in, if the head can still carry its id.
    fn enter(&self, issue: &Issue, session: Session) -> Result<(), Error> {
        let handle = &*self.handle;
        let mut head = issue.head();
        let latest = handle.sessions.latest();
        let entered = match latest {
            // A clone was first.
            Some(latest) if latest.partition == session.partition => {
                latest.follow(&session);
                if handle.ended.load(Ordering::SeqCst) {
                    handle.engine.enqueue(&latest.partition);
                }
                return Ok(());
            }
            None if head.has_begun(&session.partition) => head.check_open(),
            _ => Err(Error::SignedOut),
        };
        match entered {
            Ok(()) => {
                handle.sessions.replace(Some(session));
                head.set();
            }
            // No browser gets its id.
            Err(_) => handle.engine.forget_session(&session.partition),
        }
        entered
    }
}
