//! Short texts, kept in place: most keys are, and cost neither an allocation nor a cache miss.

use zeroize::Zeroize;

/// Text of at most `N` bytes.
#[derive(Clone, Copy)]
pub(super) struct Short<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Short<N> {
    /// `None` when the text is too long.
    pub(super) fn new(text: &[u8]) -> Option<Self> {
        let len = u8::try_from(text.len()).ok()?;
        let mut bytes = [0; N];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { len, bytes })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }

    pub(super) fn as_str(&self) -> &str {
        // Made from a `str`, so never the default.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(super) fn wipe(&mut self) {
        self.bytes[..self.len.into()].zeroize();
    }
}
