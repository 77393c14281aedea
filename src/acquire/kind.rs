//! What a failed acquisition asks of its caller.

/// What a caller can do about an [`AcquireError`](crate::AcquireError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AcquireErrorKind {
    /// The refresh token is spent, revoked or missing (`invalid_grant`): the user has to sign in
    /// again.
    ReauthenticationRequired,
    /// The provider asked to be left alone for a while (429, `Retry-After`). Or the acquire function needs something else of
    /// this crate, which is [overloaded](crate::Error::Overloaded) or [unavailable](crate::Error::Unavailable).
    RetryLater,
    /// The provider could not be asked, or answered with another error.
    Failed,
    /// The acquire function panicked.
    Panicked,
    /// The acquire function took longer than
    /// [`Acquisitions::timeout`](crate::Acquisitions::timeout), or could not be called within that time.
    /// Then the provider was not asked, and there is no [`retry_at`](crate::AcquireError::retry_at).
    TimedOut,
}

impl AcquireErrorKind {
    /// A word for logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ReauthenticationRequired => "reauthentication_required",
            Self::RetryLater => "retry_later",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
        }
    }

    /// The kind of this word; [`Failed`](Self::Failed) for one from a newer release.
    pub(crate) fn from_name(name: &str) -> Self {
        let kinds = [
            Self::ReauthenticationRequired,
            Self::RetryLater,
            Self::Panicked,
            Self::TimedOut,
        ];
        let known = kinds.into_iter().find(|kind| kind.as_str() == name);
        known.unwrap_or(Self::Failed)
    }
}
