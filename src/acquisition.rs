//! `Acquisition`: a token that has to be there, and what it has to be like.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use crate::acquire::{Acquire, Acquired, BoxError, Metadata, Prior, RefreshReason, TokenSource};
use crate::engine::acquire::call::Call;
use crate::engine::acquire::outcome::{AcquiredToken, Need};
use crate::engine::sync::allowance::Allowance;
use crate::error::Error;
use crate::key::TokenKey;
use crate::lookup::{CacheLevel, Lookup};
use crate::telemetry::OK;
use crate::token::{Token, TokenSet};
use crate::tokens::{Session, Tokens};

/// How a token is to be acquired; [`Tokens::acquire`] begins one.
#[must_use]
pub struct Acquisition<'a> {
    tokens: &'a Tokens,
    key: TokenKey,
    min_remaining: Duration,
    force: bool,
    rejected: Option<Token>,
    claims: Option<Arc<str>>,
    demanded: bool,
}

impl<'a> Acquisition<'a> {
    pub(crate) fn new(tokens: &'a Tokens, key: TokenKey) -> Self {
        Self {
            tokens,
            key,
            min_remaining: Duration::ZERO,
            force: false,
            rejected: None,
            claims: None,
            demanded: false,
        }
    }

    /// The token has to last this long yet: one with less is replaced first. What the provider
    /// gives is taken even if it lasts shorter. Defaults to zero.
    pub fn min_remaining(mut self, time: Duration) -> Self {
        self.min_remaining = time;
        self
    }

    /// The token has to be newer than this call, whatever the cache has.
    pub fn force_refresh(mut self) -> Self {
        self.force = true;
        self
    }

    /// The token has to be another than this one, which a service has rejected (401). If L2 has
    /// another, that is the answer.
    pub fn rejected(mut self, token: &Token) -> Self {
        self.rejected = Some(token.clone());
        self
    }

    /// The token has to be new and to have these claims, as a service has demanded (OpenID Connect
    /// Core §5.5); the acquire function finds them in [`Prior::claims`]. With [`rejected`](Self::rejected) it has to be
    /// another than the one that lacked them.
    ///
    /// A provider that refuses them has refused no more: the token that there is stays, other tokens are refreshed as
    /// before, and the refresh token does not count as [refused](crate::Builder::refused_refresh_token).
    pub fn claims(mut self, claims: impl Into<Arc<str>>) -> Self {
        self.claims = Some(claims.into());
        self
    }

    /// The token has to have these scopes: the key becomes the
    /// [scoped](TokenKey::scoped) one of its resource.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    pub fn scopes<S: AsRef<str>>(
        mut self,
        scopes: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        self.key = TokenKey::scoped(self.key.resource(), scopes)?;
        Ok(self)
    }

    /// A service demands what the session may not have been given. A refusal says nothing of the refresh token.
    pub(crate) fn demanded(mut self) -> Self {
        self.demanded = true;
        self
    }

    /// The token, from the cache or from one call to `acquire` that the whole fleet shares.
    ///
    /// A call that has begun runs to its end even when this future is dropped. It is told what is known *after*
    /// other instances were kept from doing the same.
    ///
    /// # Errors
    /// As for [`Tokens::get_or_acquire`].
    pub async fn with<F, Fut, E>(self, acquire: F) -> Result<Acquired, Error>
    where
        F: FnOnce(Prior) -> Fut + Send + 'static,
        Fut: Future<Output = Result<TokenSet, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.run(erase(acquire)).await
    }

    /// The token, from the cache or from this source.
    ///
    /// # Errors
    /// As for [`Tokens::get_or_acquire`].
    pub async fn with_source(self, source: Arc<dyn Acquire>) -> Result<Acquired, Error> {
        let call = Call::new(move |prior| source.acquire(prior));
        self.run(call).await
    }

    async fn run(self, call: Call) -> Result<Acquired, Error> {
        let started = Instant::now();
        let span = tracing::debug_span!(
            "token_cache.acquire",
            outcome = Empty,
            token_source = Empty,
            cache_level = Empty,
            cache_refresh_reason = Empty,
        );
        match self.find(call).instrument(span.clone()).await {
            Ok(acquired) => {
                span.record("outcome", OK);
                span.record("token_source", acquired.source.as_str());
                span.record("cache_level", acquired.level.as_str());
                span.record("cache_refresh_reason", acquired.reason.as_str());
                Ok(self.acquired(acquired, started))
            }
            Err(error) => {
                span.record("outcome", error.name());
                let counters = &self.tokens.engine().counters;
                counters.failed(started.elapsed(), self.tokens.last_read(), error.name());
                let challenge = match &error {
                    Error::Acquire(failed) => failed.challenge(),
                    _ => None,
                };
                Err(challenge.map_or(error, Error::StepUp))
            }
        }
    }

    async fn find(&self, call: Call) -> Result<AcquiredToken, Error> {
        let engine = self.tokens.engine();
        let session = self.tokens.session()?;
        let entry = self.tokens.entry(&self.key);
        let insists = self.force || (self.claims.is_some() && self.rejected.is_none());
        let mut need = Need {
            key: entry.into_owned(),
            min_remaining: self.min_remaining,
            force: insists,
            replaces: self.rejected.clone(),
            claims: self.claims.clone(),
            demanded: self.demanded || self.claims.is_some(),
            reason: (insists || self.rejected.is_some())
                .then_some(RefreshReason::ForceRefreshOrClaims),
            last_known: None,
        };
        let known = match insists {
            true => None,
            false => self.tokens.token_in_l1(&self.key),
        };
        if let Some((token, now)) = &known
            && need.is_met_by(token, *now)
            && !engine.is_refresh_due(token, *now)
        {
            return Ok(AcquiredToken::cached(token.clone(), CacheLevel::L1));
        }
        need.last_known = engine.known_token(&session.partition, &need.key);
        let known = known.map(|(token, _)| token);
        // On the heap, so that the future of a hit is small.
        Box::pin(self.find_further(session, need, known, call)).await
    }

    /// [`find`](Self::find) where L1 alone is not enough: it has no token, or `known`, which will not do or for which a successor is due.
    async fn find_further(
        &self,
        session: &Session,
        need: Need,
        known: Option<Token>,
        call: Call,
    ) -> Result<AcquiredToken, Error> {
        let allowance = Arc::new(self.tokens.engine().allowance());
        let token = match known {
            None if !need.force => self.cached(&allowance).await?,
            known => known,
        };
        let now = self.tokens.engine().clock.now();
        match token.filter(|token| need.is_met_by(token, now)) {
            Some(token) => Ok(self.take(session, need, token, &allowance, call).await),
            None => self.join(session, need, &allowance, call).await,
        }
    }

    /// Takes the cache's token, and asks for its successor if that is due.
    async fn take(
        &self,
        session: &Session,
        mut need: Need,
        token: Token,
        allowance: &Arc<Allowance>,
        call: Call,
    ) -> AcquiredToken {
        let (engine, level) = (self.tokens.engine(), self.tokens.last_read());
        let due = engine.is_refresh_due(&token, engine.clock.now());
        if due && self.tokens.is_in_cookies() {
            need.replaces = Some(token.clone());
            need.reason = Some(RefreshReason::ProactivelyRefreshed);
            // The token is still good.
            let acquired = self.join(session, need, allowance, call).await;
            return acquired.unwrap_or_else(|_| AcquiredToken::cached(token, level));
        }
        if due {
            let policy = self.tokens.failure_policy();
            engine.refresh_ahead(&session.partition, &token, &need.key, policy, call);
        }
        AcquiredToken::cached(token, level)
    }

    /// Joins or starts what gets the token, and waits for it.
    async fn join(
        &self,
        session: &Session,
        need: Need,
        allowance: &Arc<Allowance>,
        call: Call,
    ) -> Result<AcquiredToken, Error> {
        let (engine, policy) = (self.tokens.engine(), self.tokens.failure_policy());
        let before = self.tokens.before_change()?;
        let mut observed = session.observe();
        let acquired = engine
            .acquire(
                &session.partition,
                &need,
                policy,
                &mut observed,
                allowance,
                call,
            )
            .await;
        session.keep(observed);
        let acquired = acquired?;
        self.tokens.after_change(before)?;
        session.note_use();
        self.tokens.read_from(acquired.level);
        Ok(acquired)
    }

    /// The cache's token.
    async fn cached(&self, allowance: &Allowance) -> Result<Option<Token>, Error> {
        let engine = self.tokens.engine();
        let (key, get) = (
            &self.tokens.session()?.partition,
            self.tokens.get(&self.key),
        );
        let found = engine.wait_for_busy_l2(allowance, key, get).await;
        let found = found.unwrap_or_else(|failure| {
            let goes_on = engine.degrade(self.tokens.failure_policy(), failure);
            goes_on.map(|()| Lookup::Unavailable)
        });
        found.map(Lookup::hit)
    }

    /// The token if L1 has it and it will do, and whether a successor should be asked for.
    pub(crate) fn hit(&self) -> Option<(Token, bool)> {
        let (token, now) = self.tokens.token_in_l1(&self.key)?;
        let due = self.tokens.engine().is_refresh_due(&token, now);
        Some((token, due))
    }

    pub(crate) fn refresh_ahead<F, Fut, E>(&self, token: &Token, acquire: F)
    where
        F: FnOnce(Prior) -> Fut + Send + 'static,
        Fut: Future<Output = Result<TokenSet, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        if let Ok(session) = self.tokens.session() {
            let policy = self.tokens.failure_policy();
            let engine = self.tokens.engine();
            let entry = self.tokens.entry(&self.key);
            engine.refresh_ahead(&session.partition, token, &entry, policy, erase(acquire));
        }
    }

    fn acquired(&self, acquired: AcquiredToken, started: Instant) -> Acquired {
        let duration_total = started.elapsed();
        let duration_in_http = acquired.in_http.min(duration_total);
        let token = acquired.token;
        let metadata = Metadata {
            duration_total,
            duration_in_cache: duration_total - duration_in_http,
            duration_in_http,
            token_source: acquired.source,
            cache_level: acquired.level,
            refresh_reason: acquired.reason,
            expires_at: token.expires_at(),
            refresh_at: self.tokens.engine().refresh_at(&token),
            durability: acquired.durability,
            exclusive: acquired.exclusive,
        };
        self.tokens.engine().counters.found(&metadata);
        Acquired { token, metadata }
    }
}

impl AcquiredToken {
    fn cached(token: Token, level: CacheLevel) -> Self {
        Self {
            token,
            source: TokenSource::Cache,
            level,
            reason: RefreshReason::NotApplicable,
            in_http: Duration::ZERO,
            durability: None,
            exclusive: true,
        }
    }
}

impl fmt::Debug for Acquisition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquisition")
            .field("min_remaining", &self.min_remaining)
            .field("force", &self.force)
            .finish_non_exhaustive()
    }
}

/// An acquire function as flights take it.
fn erase<F, Fut, E>(acquire: F) -> Call
where
    F: FnOnce(Prior) -> Fut + Send + 'static,
    Fut: Future<Output = Result<TokenSet, E>> + Send + 'static,
    E: Into<BoxError>,
{
    Call::new(move |prior| {
        let answer = acquire(prior);
        Box::pin(async { answer.await.map_err(Into::into) })
    })
}
