//! What a request does when L2 fails, and when its changes reach L2.

use std::fmt;
use std::sync::Arc;

use crate::error::StoreError;

/// What a request does when the L2 store fails.
///
/// Chosen on the [`Builder`](crate::Builder::failure_policy), per request by the
/// [layer](crate::TokenCacheLayer::failure_policy_for), or on the
/// [handle](crate::Tokens::set_failure_policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FailurePolicy {
    /// Reads serve L1, even past its freshness bound, else answer
    /// [`Lookup::Unavailable`](crate::Lookup::Unavailable); changes are kept and replayed. What
    /// memory has, and only has to be compared with L2, waits for that while L2 answers: once it has
    /// answered nobody for six round-trips, and at least 25 ms, it is served as it is. A handle that
    /// L2 has failed does not wait for it again within the next second. The default:
    /// an outage of L2 should not be an outage of the application.
    #[default]
    Degrade,
    /// Reads that need L2 fail with [`Error::Unavailable`](crate::Error::Unavailable). Changes are
    /// committed before the response head, and a commit that fails turns the response into 503;
    /// the change itself is kept and replayed.
    Strict,
    /// Memory only: L2 is not asked, and changes stay in L1 until they are evicted or expire.
    /// [`sign_out`](crate::Tokens::sign_out) reaches L2 all the same, because it must be final; so does an
    /// acquisition that redeems a refresh token which L2 has, because others would redeem it again.
    Bypass,
}

/// When the changes of a request reach the L2 store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WriteMode {
    /// Once the response head is there, or a second after the change if it is not by then. The
    /// default: no request waits for L2.
    /// Removals are committed before the response head all the same.
    #[default]
    AfterResponse,
    /// Before the response head is sent.
    BeforeResponse,
}

/// What the service does with a request that carries no partition key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingKey {
    /// The request goes on with an anonymous handle; extractors answer 401 where a handler
    /// demands [`Tokens`](crate::Tokens), unless the layer [issues](crate::session) session ids. The default:
    /// sign-in pages need no key.
    #[default]
    Anonymous,
    /// The service answers 401 and the inner service is not called.
    Reject,
}

/// What the service does with a request whose partition key is [invalid](crate::KeyError): two keys in one place,
/// or one that cannot be a key. Each is counted in [`Stats::invalid_keys`](crate::Stats::invalid_keys).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvalidKey {
    /// The request goes on as one without a key. The default over a
    /// [`session::Cookie`](crate::session::Cookie): a user whose browser sends a broken cookie can sign in again,
    /// and the response removes it.
    Anonymous,
    /// The service answers 400 and the inner service is not called; over a [`session::Cookie`](crate::session::Cookie)
    /// the answer removes a broken cookie. The default over other extractors: no response of the layer can put the key
    /// right.
    Reject,
}

/// What becomes of a session whose refresh token the provider has refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RefusedRefreshToken {
    /// It goes on: tokens that have not expired still serve, and another client's are not concerned. The default: what
    /// an application keeps in a session may be worth more than the tokens.
    #[default]
    Keep,
    /// It is signed out, with all that is in it: a provider that ends its sessions ends ours. Partitions of other
    /// [kinds](crate::PartitionKind) than sessions go on. A session that has another refresh token by then goes on, too, and
    /// so does one of which the provider wants more proof, or consent, for one API (`interaction_required`,
    /// `consent_required`, `mfa_required` and Entra ID's numbers for them).
    SignOut,
}

/// Which operation of the L2 store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum L2Operation {
    /// Reading a partition.
    Load,
    /// Writing the changes of one or more partitions.
    Commit,
    /// Extending sliding lifetimes.
    Touch,
    /// Signing a partition out.
    Clear,
    /// Moving a partition's tokens to another.
    Relocate,
    /// Taking, renewing or giving back the right to acquire a token.
    Lease,
}

impl L2Operation {
    /// The value of `operation` in metrics and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Commit => "commit",
            Self::Touch => "touch",
            Self::Clear => "clear",
            Self::Relocate => "relocate",
            Self::Lease => "lease",
        }
    }
}

/// One failed attempt at an L2 operation, as the [`on_l2_failure`](crate::Builder::on_l2_failure)
/// hook sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct L2Failure<'a> {
    /// What was tried.
    pub operation: L2Operation,
    /// A digest that stands for the partition; `None` for an operation on several.
    pub partition: Option<&'a str>,
    /// Which attempt failed, from 1.
    pub attempt: u32,
    /// Why.
    pub error: &'a StoreError,
}

/// The answer of the [`on_l2_failure`](crate::Builder::on_l2_failure) hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// Try again, after a short pause with jitter. At most three attempts are made, all of them
    /// within the operation timeout, and none while the circuit breaker is open.
    Retry,
    /// Go on as under [`FailurePolicy::Degrade`].
    Degrade,
    /// Fail as under [`FailurePolicy::Strict`].
    Fail,
    /// Do what the request's failure policy says: the answer where no hook is set.
    Policy,
}

/// A shared [`on_l2_failure`](crate::Builder::on_l2_failure) hook.
#[derive(Clone)]
pub(crate) struct FailureHook(pub(crate) Arc<dyn Fn(&L2Failure<'_>) -> OnFailure + Send + Sync>);

impl fmt::Debug for FailureHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailureHook")
    }
}
