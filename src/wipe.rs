//! Memory that is overwritten before it is given back.
//!
//! As by `zeroize`, whose barrier keeps the compiler from leaving the overwriting out; but all at
//! once, where `Zeroize` goes byte by byte: requests that replace tokens of several kilobytes notice
//! the difference.

use std::ops::{Deref, DerefMut};

use zeroize::optimization_barrier;

/// Overwrites these bytes.
#[inline]
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

/// A buffer that is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wiped<T: Wipe>(T);

/// What can be wiped.
pub(crate) trait Wipe {
    /// Overwrites the whole buffer, also what is spare. It is not used after this.
    fn wipe(&mut self);
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        self.clear();
        self.resize(self.capacity(), 0);
        optimization_barrier(self.as_slice());
    }
}

impl Wipe for Box<str> {
    fn wipe(&mut self) {
        wipe(&mut std::mem::take(self).into_boxed_bytes());
    }
}

impl<T: Wipe> Wiped<T> {
    pub(crate) fn new(buffer: T) -> Self {
        Self(buffer)
    }
}

impl<T: Wipe> Drop for Wiped<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Wipe> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl AsRef<[u8]> for Wiped<Vec<u8>> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_wiped_with_what_is_spare() {
        let mut buffer = Vec::with_capacity(16);
        buffer.extend_from_slice(b"a secret");
        buffer.truncate(2);
        let capacity = buffer.capacity();
        buffer.wipe();
        assert_eq!(buffer, vec![0; capacity]);
    }
}
