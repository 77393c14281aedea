//! What users of an instance do, and what they expect of it.

use std::time::Duration;

use tower_token_cache::{
    BreakerState, Durability, Error, FailurePolicy, Lookup, Timestamp, Token, TokenCache, TokenSet,
    Tokens,
};

use super::model::{Value, parse, text};
use super::names::{KEYS, REFRESH, partition};
use super::provider::{Request, ask};
use super::users::user;
use super::verdict::{Answer, Read};
use super::world::{BASE, State, World};

/// Nobody waits longer for L2, in milliseconds: the operation timeout, and what timers are late.
pub const HARD: u64 = 1000 + 60;

/// A user of one partition on one instance.
#[derive(Clone)]
pub struct Client {
    pub world: World,
    pub cache: TokenCache,
    pub by: usize,
    pub number: usize,
    pub tokens: Tokens,
    /// When it first used the partition.
    pub began: u64,
}

impl Client {
    pub fn new(world: &World, cache: &TokenCache, by: usize, number: usize) -> Self {
        Self {
            world: world.clone(),
            cache: cache.clone(),
            by,
            number,
            tokens: cache.tokens(partition(number)),
            began: world.lock().now,
        }
    }

    pub fn strict(self) -> Self {
        self.tokens.set_failure_policy(FailurePolicy::Strict);
        self
    }

    /// The state when an operation ends, unless its instance has ended before.
    pub fn ended(
        &self,
        what: &str,
        start: u64,
        longest: u64,
    ) -> Option<std::sync::MutexGuard<'_, State>> {
        let mut state = self.world.lock();
        if state.instances[self.by].ended.is_some() {
            return None;
        }
        let took = state.now - start;
        if took > longest {
            let by = self.by;
            state.violated(format!("i{by}: {what} took {took} ms"));
        }
        Some(state)
    }

    pub fn errors(&self) -> (u64, bool) {
        let stats = self.cache.stats();
        let closed = stats.l2_state == BreakerState::Closed;
        if !closed {
            self.world.lock().disturb(self.by);
        }
        (stats.l2_errors, closed)
    }

    pub async fn read(&self, entry: usize) -> Option<Read> {
        let before = self.errors();
        let (start, clock) = {
            let state = self.world.lock();
            (state.now, state.clock_of(self.by))
        };
        let answer = match entry {
            REFRESH => match self.tokens.refresh_token().await {
                Ok(lookup) => Ok(said(lookup, |secret| parse(secret.expose().as_bytes()))),
                Err(error) => Err(error),
            },
            _ => match self.tokens.get(KEYS[entry]).await {
                Ok(lookup) => Ok(said(lookup, |token| parse(token.access_token().as_bytes()))),
                Err(error) => Err(error),
            },
        };
        let clean = before.1 && self.errors() == before;
        let mut state = self.ended("a read", start, HARD)?;
        // It may have been set back meanwhile.
        let clock = clock.min(state.clock_of(self.by));
        // A machine that sleeps answers nobody.
        if state.instances[self.by].asleep_until() >= start {
            return None;
        }
        // It may have joined a load that was failing already.
        let clean = clean && !state.disturbed_since(self.by, start.saturating_sub(300));
        let compared = !state.went_on_since(self.by, start);
        let answer = match answer {
            Ok(answer) => answer,
            Err(Error::Unavailable(_)) => Answer::Unavailable,
            Err(error) => {
                state.violated(format!("i{}: a read failed: {error:?}", self.by));
                return None;
            }
        };
        Some(Read {
            by: self.by,
            partition: self.number,
            entry,
            start,
            clock,
            clean,
            compared,
            answer,
        })
    }

    /// Looks at what L2 has now.
    pub async fn reload(self, entry: usize) {
        let start = self.world.lock().now;
        let _ = self.tokens.reload().await;
        self.ended("a load", start, 2 * HARD);
        self.look(entry).await;
    }

    pub async fn look(&self, entry: usize) {
        if let Some(read) = self.read(entry).await {
            self.world.lock().judge_read(&read);
        }
    }

    /// Writes a token, perhaps as a sign-in with a refresh token, and perhaps waits for L2.
    pub async fn write(self, entry: usize, signs_in: bool, commits: bool) {
        let (start, value, family, set) = {
            let mut state = self.world.lock();
            let now = state.now;
            let life = state.rng.between(3000, 60_000);
            let expires = state.rng.percent(80).then_some(now + life);
            let value = self.value(&mut state, entry, expires);
            let family = signs_in.then(|| self.value(&mut state, REFRESH, None));
            let mut token = Token::new(text('a', value));
            if let Some(at) = expires {
                token = token.with_expires_at(Timestamp::from_millis(BASE + at));
            }
            let mut set = TokenSet::from(token);
            if let Some(family) = family {
                state.begin_family(family);
                set = set.with_refresh_token(text('r', family));
            }
            state.note(format_args!(
                "i{} writes v{value} {family:?} to p{} e{entry}",
                self.by, self.number
            ));
            (now, value, family, set)
        };
        self.errors();
        let written = self.tokens.insert(KEYS[entry], set).await;
        self.errors();
        let blind_from = start.saturating_sub(1000);
        {
            let Some(mut state) = self.ended("a write", start, 2 * HARD) else {
                return;
            };
            let (now, blind) = (state.now, state.disturbed_since(self.by, blind_from));
            match &written {
                Ok(()) => {
                    for value in [Some(value), family].into_iter().flatten() {
                        let value = &mut state.model.values[value];
                        value.ready = Some(now);
                        value.blind = blind;
                    }
                }
                Err(Error::SignedOut) => self.expect_sign_out(&mut state),
                Err(Error::Unavailable(_)) => {}
                Err(error) => {
                    let by = self.by;
                    state.violated(format!("i{by}: a write failed: {error:?}"));
                }
            }
        }
        if written.is_ok() && commits && self.commit().await == Some(Durability::Stored) {
            let mut state = self.world.lock();
            state.note(format_args!("i{} has committed v{value}", self.by));
            state.judge_commit(value);
            if let Some(family) = family {
                state.judge_commit(family);
            }
        }
    }

    fn value(&self, state: &mut State, entry: usize, expires: Option<u64>) -> usize {
        let written = state.now;
        state.new_value(Value {
            partition: self.number,
            entry,
            by: self.by,
            expires,
            began: self.began,
            written,
            ready: None,
            blind: false,
            grant: None,
            moved: false,
            applied: None,
            generation: None,
            number: None,
        })
    }

    /// A handle is refused only what it began before a sign-out.
    pub fn expect_sign_out(&self, state: &mut State) {
        if state.may_be_over(self.number) {
            return;
        }
        let partition = &state.model.partitions[self.number];
        let since = self.began.saturating_sub(super::model::BOUND);
        let known = partition.cleared_since(since)
            || partition.sign_outs.iter().any(|one| one.start >= since);
        // What it had may be of before that, where it went on without the store.
        if !known && !partition.tainted && !state.went_on_since(self.by, since) {
            let (by, number) = (self.by, self.number);
            state.violated(format!(
                "i{by}: p{number} was not signed out, but it says so"
            ));
        }
    }

    async fn commit(&self) -> Option<Durability> {
        let start = self.world.lock().now;
        let answer = self.tokens.commit().await;
        self.ended("a commit", start, HARD)
            .and_then(|_| answer.ok())
    }

    pub async fn remove(self, entry: usize) {
        let start = {
            let mut state = self.world.lock();
            let now = state.now;
            let removal = (self.by, self.number, entry, now);
            state.model.removals.push(removal);
            state.note(format_args!(
                "i{} removes p{} e{entry}",
                self.by, self.number
            ));
            now
        };
        let _ = self.tokens.remove(KEYS[entry]).await;
        self.ended("a removal", start, 2 * HARD);
    }

    pub async fn sign_out(self) {
        let (start, place) = {
            let mut state = self.world.lock();
            state.note(format_args!("i{} signs p{} out", self.by, self.number));
            (state.now, state.begin_sign_out(self.by, self.number, None))
        };
        let answer = self.tokens.sign_out().await;
        let Some(mut state) = self.ended("a sign-out", start, HARD) else {
            return;
        };
        state.note(format_args!(
            "i{} signed p{} out: {answer:?}",
            self.by, self.number
        ));
        if matches!(answer, Ok(Durability::Stored)) {
            state.end_sign_out(self.number, place);
        }
    }

    /// Signs in as a user, with a token and a refresh token.
    pub async fn sign_in_as(self, entry: usize, number: usize) {
        let (by, partition) = (self.by, self.number);
        self.clone().write(entry, true, true).await;
        let (start, place) = {
            let mut state = self.world.lock();
            state.note(format_args!("i{by} links p{partition} to u{number}"));
            (state.now, state.begin_link(by, number, partition))
        };
        let linked = self.tokens.link_user(&user(number)).await;
        match self.ended("a link", start, 4 * HARD) {
            Some(mut state) => state.note(format_args!("i{by} linked p{partition}: {linked:?}")),
            None => return,
        }
        if linked.is_ok() && self.commit().await == Some(Durability::Stored) {
            self.world.lock().end_link(number, place);
        }
    }

    pub async fn sign_out_user(self, number: usize) {
        let by = self.by;
        let (start, place) = {
            let mut state = self.world.lock();
            state.note(format_args!("i{by} signs u{number} out"));
            (state.now, state.begin_user_sign_out(by, number))
        };
        let answer = self.cache.sign_out_user(&user(number)).await;
        let Some(mut state) = self.ended("a user's sign-out", start, 2 * HARD) else {
            return;
        };
        state.note(format_args!("i{by} signed u{number} out: {answer:?}"));
        if let Ok(durability) = answer {
            state.end_user_sign_out(number, place, durability == Durability::Stored);
        }
    }

    /// Moves everything; who gives up does not learn what became of it.
    pub async fn move_to(self, target: usize, gives_up: Option<u64>) {
        let (start, place) = {
            let mut state = self.world.lock();
            state.note(format_args!(
                "i{} moves p{} to p{target}",
                self.by, self.number
            ));
            let place = state.begin_sign_out(self.by, self.number, Some(target));
            (state.now, place)
        };
        let patience = Duration::from_millis(gives_up.unwrap_or(100_000));
        let moves = self.tokens.move_to(partition(target));
        let Ok(moved) = tokio::time::timeout(patience, moves).await else {
            let mut state = self.world.lock();
            state.note(format_args!("i{} gives up its move", self.by));
            return;
        };
        self.world.lock().model.partitions[self.number].sign_outs[place].made = moved.is_ok();
        if let Some(mut state) = self.ended("a move", start, 8 * HARD) {
            let moved = moved.map(|_| ());
            state.note(format_args!(
                "i{} moved p{}: {moved:?}",
                self.by, self.number
            ));
        }
    }

    /// Gets a token, from the provider if need be. `rejected`: another one than it has.
    pub async fn acquire(self, entry: usize, rejected: bool, gives_up: Option<u64>) {
        let start = self.world.lock().now;
        let request = Request {
            by: self.by,
            partition: self.number,
            entry,
            open: self.number == 2,
        };
        let world = self.world.clone();
        let call = move |prior| ask(world, request, prior);
        self.errors();
        let work = async {
            let old = match rejected {
                true => self
                    .tokens
                    .get(KEYS[entry])
                    .await
                    .ok()
                    .and_then(Lookup::hit),
                false => None,
            };
            match old {
                Some(old) => self.tokens.rejected(KEYS[entry], &old, call).await,
                None => self.tokens.get_or_acquire(KEYS[entry], call).await,
            }
        };
        let patience = Duration::from_millis(gives_up.unwrap_or(100_000));
        let Ok(answer) = tokio::time::timeout(patience, work).await else {
            let mut state = self.world.lock();
            state.note(format_args!(
                "i{} gives up p{} e{entry}",
                self.by, self.number
            ));
            if gives_up.is_none() {
                state.violated("an acquisition never ends".into());
            }
            return;
        };
        let Some(mut state) = self.ended("an acquisition", start, 100_000) else {
            return;
        };
        match answer {
            Ok(token) => {
                let value = parse(token.access_token().as_bytes());
                state.note(format_args!(
                    "i{} acquired {value:?} for p{} e{entry}",
                    self.by, self.number
                ));
                if value.is_none_or(|value| state.model.values[value].entry != entry) {
                    state.violated(format!("it is not a token of e{entry}"));
                }
            }
            Err(error) => {
                state.note(format_args!("i{} acquired nothing: {error:?}", self.by));
                if matches!(error, Error::SignedOut) {
                    self.expect_sign_out(&mut state);
                }
            }
        }
    }
}

fn said<T>(lookup: Lookup<T>, number: impl Fn(T) -> Option<usize>) -> Answer {
    match lookup {
        Lookup::Hit(value) => number(value).map_or(Answer::Absent, Answer::Hit),
        Lookup::Absent => Answer::Absent,
        _ => Answer::Unavailable,
    }
}
