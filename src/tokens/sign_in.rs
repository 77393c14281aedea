//! New sessions, where the layer issues their ids.

use futures_util::future::{join, join_all};

use super::{Handle, Session, Tokens};
use crate::engine::listed::About;
use crate::engine::partition::links::Link;
use crate::engine::write::CommitWait;
use crate::error::Error;
use crate::event::{EventKind, SignedOutBy};
use crate::key::PartitionKind;
use crate::lookup::Durability;
use crate::policy::FailurePolicy;
use crate::session::{ResponseHead, SignIn, new_session};

impl Tokens {
    /// Signs a user in: the last step of a login, in one call. The browser gets a session of a new id, which begins
    /// with these tokens, of this [client](Self::client), and nothing else: **what was in the session before is signed
    /// out**, so that neither what another user has left in this browser nor what an attacker has planted is the
    /// user's. This handle and its clones are of the new session from then on.
    ///
    /// Needs a layer over a [`session::Cookie`](crate::session::Cookie), whose cookie the response head sets, even
    /// that of an error. With a `CookieStore`, whose sessions have no ids, the same is done in the cookies.
    ///
    /// ```
    /// # use tower_token_cache::session::SignIn;
    /// # use tower_token_cache::{Durability, Error, TokenSet, Tokens};
    /// async fn callback(tokens: Tokens, answer: TokenSet, user: &str) -> Result<(), Error> {
    ///     let google = tokens.client("google")?;
    ///     let signed_in = google.sign_in(SignIn::new("calendar", answer).user(user)).await?;
    ///     if signed_in == Durability::Pending {
    ///         // Other instances do not know the session yet: answer 202, and send the browser on later.
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// On return L2 has the new session, and knows that the old one is over. While it cannot be asked:
    ///
    /// | policy | |
    /// |---|---|
    /// | [`Degrade`](crate::FailurePolicy::Degrade) | [`Durability::Pending`]: both hold in this process, the head sets the cookie, and L2 is told when it is back. Until then other instances take the new session for empty, and go on with the old one. |
    /// | [`Strict`](crate::FailurePolicy::Strict) | [`Error::Unavailable`], and no user is signed in. |
    /// | [`Bypass`](crate::FailurePolicy::Bypass) | The new session is in memory only; the sign-out is as under `Degrade`. |
    ///
    /// With [a user](SignIn::user) or another link it is [`Error::Unavailable`] whatever the policy: as for
    /// [`link_user`](Self::link_user), L2 is asked for the user's epoch.
    ///
    /// On an error the browser keeps its cookie, and no user is signed in: the session before is over all the same,
    /// unless the error is one of the arguments, [`Error::NoSessionId`] or [`Error::Randomness`], and this handle is
    /// anonymous. It is so as well while this waits: what a clone keeps then is lost if no error comes. Where this future is
    /// dropped, or the request ends without a head, the new session is signed out: no browser has its id.
    ///
    /// # Errors
    /// [`Error::NoSessionId`] where no id can be issued; [`Error::InvalidKey`] for a key or user that cannot be one;
    /// [`Error::ResponseSent`]; [`Error::Randomness`]; [`Error::Unavailable`], as above; and those of
    /// [`insert`](Self::insert) and [`sign_out`](Self::sign_out).
    pub async fn sign_in(&self, sign_in: SignIn) -> Result<Durability, Error> {
        let SignIn {
            key,
            tokens,
            links,
            label,
        } = sign_in;
        let entries = Vec::from_iter(self.entries_of(&key?, tokens)?);
        let users = links.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (handle, policy) = (&*self.handle, self.failure_policy());
        if self.is_in_cookies() {
            let ended = self.sign_out_by(SignedOutBy::SignIn).await?;
            let links = handle.engine.begin_links(users).await?;
            let entries = entries.into_iter().chain(links.iter().map(Link::entry));
            let changes = entries.map(|(name, value)| (name, Some(value)));
            let session = self.session()?;
            self.change(session, changes.collect(), false).await?;
            if policy != FailurePolicy::Bypass {
                let about = About::since(handle.engine.clock.now());
                let lists = (handle.engine).list_linked(&session.partition, links, about);
                lists.await;
            }
            self.tell_signed_in();
            return Ok(ended);
        }
        let issue = handle.issue.as_ref().ok_or(Error::NoSessionId)?;
        let session = new_session().ok_or(Error::Randomness)?;
        // In memory the old session ends now, whatever becomes of the new one.
        let ends = {
            let mut head = issue.head();
            head.check_open()?;
            self.leave(&mut head, self.own_session(), SignedOutBy::SignIn)?
        };
        let about = About {
            created: handle.engine.clock.now(),
            label,
        };
        let begins = (handle.engine).begin_session(session, entries, users, about, policy);
        let (ended, begun) = join(self.ended(ends), begins).await;
        let (ended, (begun, durability)) = (ended?, begun?);
        let mut head = issue.head();
        head.check_open()?;
        // A clone may have begun another one meanwhile, whose id no browser has.
        drop(self.leave(&mut head, self.own_session(), SignedOutBy::SignIn)?);
        handle.sessions.replace(begun.keep().map(Session::new));
        head.set();
        self.tell_signed_in();
        Ok(match ended {
            Durability::Stored => durability,
            Durability::Pending => Durability::Pending,
        })
    }

    fn tell_signed_in(&self) {
        let handle = &*self.handle;
        let session = handle.sessions.latest();
        let partition = session.map(|session| &session.partition);
        handle.engine.tell(partition, EventKind::SignedIn);
    }

    /// The session that a sign-in ends. What belongs to a user or an assertion is no session.
    fn own_session(&self) -> Option<&Session> {
        let session = self.handle.sessions.latest()?;
        (session.partition.kind() == PartitionKind::Session).then_some(session)
    }

    /// Whether an anonymous request can get a session.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn issues(&self) -> bool {
        self.handle.issue.is_some()
    }

    /// Ends `session`, the latest one, in memory, as well as the one that the cookie of the request names, and leaves
    /// them in the same step: what is kept from now on is kept under another id. Returns how to learn that L2 knows.
    pub(super) fn leave(
        &self,
        head: &mut ResponseHead<'_>,
        session: Option<&Session>,
        by: SignedOutBy,
    ) -> Result<Vec<CommitWait>, Error> {
        let Handle {
            engine, sessions, ..
        } = &*self.handle;
        let mut ends = Vec::new();
        if let Some(session) = session {
            // First, for a change that is under way.
            session.set_left(true);
            let end = engine.sign_out(&session.partition, &mut None, by);
            ends.push(end.inspect_err(|_| session.set_left(false))?);
            session.forget_changes();
            sessions.replace(None);
        }
        let left = session.map(|session| &session.partition);
        if let Some(had) = head.leave().filter(|had| left != Some(had)) {
            ends.push(engine.sign_out(&had, &mut None, by)?);
        }
        Ok(ends)
    }

    /// Waits until L2 knows that these sessions are over.
    pub(super) async fn ended(&self, ends: Vec<CommitWait>) -> Result<Durability, Error> {
        let (engine, policy) = (&self.handle.engine, self.failure_policy());
        let mut durability = Durability::Stored;
        for ended in join_all(ends).await {
            if engine.finish(policy, ended)? == Durability::Pending {
                durability = Durability::Pending;
            }
        }
        Ok(durability)
    }
}
