//! What the provider does with requests, as tests want it.

use std::time::Duration;

/// What it does from now on; requests that wait at its gate go by the newest.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `expires_in` of the tokens it issues, in seconds.
    pub expires_in: u64,
    /// How long it takes before it redeems, and from then until it answers.
    pub before: Duration,
    pub after: Duration,
    /// What it answers instead of tokens.
    pub refusal: Option<Refusal>,
    /// It redeems, and closes the connection instead of answering.
    pub loses_answers: bool,
    /// Which requests wait: those of this step, and of this issuer if one is named. A request
    /// whose client goes away while it waits never was.
    pub gate: Option<(Step, Option<String>)>,
}

/// A request of a client, before anything came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The process wants to know where the token endpoint is.
    Discovery,
    /// The process asks for tokens.
    Token,
}

#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// 429, with `Retry-After` in seconds.
    TooManyRequests(u64),
    InvalidGrant,
    /// 500.
    Broken,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            expires_in: 3600,
            before: Duration::ZERO,
            after: Duration::ZERO,
            refusal: None,
            loses_answers: false,
            gate: None,
        }
    }
}

impl Behaviour {
    pub(super) fn holds(&self, step: Step, name: &str) -> bool {
        let Some((held, only)) = &self.gate else {
            return false;
        };
        *held == step && only.as_ref().is_none_or(|only| only == name)
    }
}
