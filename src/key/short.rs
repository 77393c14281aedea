//! Short texts, kept in place: most keys are, and cost neither an allocation nor a cache miss.

use crate::wipe::wipe;

/// Text of at most `N` bytes.
#[derive(Clone, Copy)]
pub(super) struct Short<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self {
            len: 0,
            bytes: [0; N],
        }
    }
}

impl<const N: usize> Short<N> {
    /// `None` when the text is too long.
    pub(super) fn new(text: &[u8]) -> Option<Self> {
        let mut short = Self::default();
        short.fill(text).then_some(short)
    }

    /// Takes this text over. `false` when it is too long.
    pub(super) fn fill(&mut self, text: &[u8]) -> bool {
        let (Ok(len), Some(room)) = (text.len().try_into(), self.bytes.get_mut(..text.len()))
        else {
            return false;
        };
        room.copy_from_slice(text);
        self.len = len;
        true
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }

    pub(super) fn as_str(&self) -> &str {
        // Made from a `str`, so never the default.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(super) fn wipe(&mut self) {
        wipe(&mut self.bytes);
    }
}
