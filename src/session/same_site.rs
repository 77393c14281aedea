//! The `SameSite` attribute.

/// Which requests from other sites carry the cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SameSite {
    /// None: not even a link from another site. Sign-in that comes back by a redirect from the
    /// provider then begins without them.
    Strict,
    /// Links, but nothing that changes anything. The default: the provider's redirect is one.
    #[default]
    Lax,
}

impl SameSite {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
        }
    }
}
