//! The settings of a cache as text, to compare two caches of one name.

/// The options and their values as text, without secrets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<(&'static str, String)>);

impl Fingerprint {
    pub(crate) fn new(settings: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self(settings.into_iter().collect())
    }

    /// The first option whose values differ.
    pub(crate) fn differs_in(&self, other: &Self) -> Option<&'static str> {
        let mut both = self.0.iter().zip(&other.0);
        both.find(|(a, b)| a != b).map(|((option, _), _)| *option)
    }
}
