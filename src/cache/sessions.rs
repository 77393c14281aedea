//! Which sessions belong to a user, so that all of them can be signed out.
//!
//! They are the entries of a partition of their own, with all that this gives: a session that is
//! linked on one instance is found on every other, and links expire.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, TokenCache};
use crate::codec::Value;
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::lookup::Durability;
use crate::policy::FailurePolicy;
use crate::time::Timestamp;
use crate::token::Token;

/// How long a link is kept where sessions live without end.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);
/// Rounds of looking for sessions that were linked while others were signed out.
const MAX_ROUNDS: usize = 5;

impl TokenCache {
    /// The sessions that were [linked](crate::Tokens::belongs_to) to this user and have not
    /// expired or been signed out with [`sign_out_user`](Self::sign_out_user).
    ///
    /// # Errors
    /// [`Error::InvalidKey`], and [`Error::Unavailable`] when L2 cannot be asked.
    pub async fn sessions_of(&self, user: &str) -> Result<Vec<PartitionKey>, Error> {
        let index = PartitionKey::sessions_of(user)?;
        let engine = &self.0;
        let looks = |engine: Arc<Engine>| async move { engine.linked(&index).await };
        let linked = engine.detached(engine.deadline(), looks).await;
        let linked = linked.map_err(|failure| Error::Unavailable(failure.error))??;
        Ok(linked.into_iter().map(|(_, session)| session).collect())
    }

    /// Signs out every session that was [linked](crate::Tokens::belongs_to) to this user: "sign
    /// out everywhere". On return L2 has it, unless the answer is [`Durability::Pending`].
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::ShutDown`], and [`Error::Unavailable`] when L2 cannot be
    /// asked which sessions there are; some may have been signed out.
    pub async fn sign_out_user(&self, user: &str) -> Result<Durability, Error> {
        let engine = &self.0;
        let index = PartitionKey::sessions_of(user)?;
        let ends = |engine: Arc<Engine>| async move { engine.sign_out_linked(index).await };
        let ended = engine.detached(engine.deadline(), ends).await;
        ended.map_err(|failure| Error::Unavailable(failure.error))?
    }
}

impl Engine {
    async fn sign_out_linked(self: &Arc<Self>, index: PartitionKey) -> Result<Durability, Error> {
        let engine = self;
        for _ in 0..MAX_ROUNDS {
            let linked = engine.linked(&index).await?;
            if linked.is_empty() {
                break;
            }
            let mut waits = Vec::with_capacity(linked.len());
            for (_, session) in &linked {
                waits.push(engine.sign_out(session, &mut None)?);
            }
            for wait in waits {
                let ended = engine.finish(engine.failure_policy, wait.await)?;
                if ended == Durability::Pending {
                    return Ok(ended);
                }
            }
            // Only these: another may have been linked meanwhile.
            let links = linked.into_iter().map(|(link, _)| (link, None)).collect();
            let policy = FailurePolicy::Strict;
            engine.change(&index, links, policy, &mut None).await?;
            let written = engine.commit(&index).await;
            // The sessions are signed out either way.
            let _ = engine.finish(policy, written)?;
        }
        Ok(Durability::Stored)
    }

    /// Notes that a session belongs to a user. On return L2 has it.
    pub(crate) async fn link(
        self: &Arc<Self>,
        session: &PartitionKey,
        user: &str,
        policy: FailurePolicy,
    ) -> Result<(), Error> {
        let index = PartitionKey::sessions_of(user)?;
        let limits = [self.lifetime.absolute, self.lifetime.max_age];
        let life = limits.into_iter().flatten().min().unwrap_or(LONGEST);
        let link = Token::new(session.to_text().expose())
            .with_expires_at(self.clock.now().saturating_add(life));
        let name = self.l2.id(session).encoded();
        let name = TokenKey::from_canonical(&format!("\u{1}session\u{1}{name}"));
        let change = vec![(name, Some(Value::Token(link)))];
        let links = |engine: Arc<Self>| async move {
            engine.change(&index, change, policy, &mut None).await?;
            let written = engine.commit(&index).await;
            engine.finish(policy, written).map(|_| ())
        };
        let linked = self.detached(self.deadline(), links).await;
        linked.map_err(|failure| Error::Unavailable(failure.error))?
    }

    /// The sessions in an index, and the names of their entries.
    async fn linked(
        self: &Arc<Self>,
        index: &PartitionKey,
    ) -> Result<Vec<(TokenKey, PartitionKey)>, Error> {
        let read = self.fetch(index, |state, now: Timestamp| state.usable_entries(now));
        let (entries, _) = read
            .await
            .map_err(|failure| Error::Unavailable(failure.error))?;
        let session = |(name, value): (TokenKey, Value)| match value {
            Value::Token(link) => {
                let session = PartitionKey::from_text(link.access_token())?;
                Some((name, session))
            }
            Value::Secret(_) => None,
        };
        Ok(entries.into_iter().filter_map(session).collect())
    }
}
