//! What things cost in memory.

/// What an allocator spends on one allocation besides its bytes.
pub(crate) const ALLOCATION: usize = 16;
