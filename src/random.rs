//! Random numbers, which a simulation can have repeated.

#[cfg(feature = "__tests")]
use std::cell::Cell;
use std::time::Duration;

#[cfg(feature = "__tests")]
thread_local! {
    /// The state of this thread's repeatable numbers, if it has them.
    static SEEDED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's random numbers follow from the seed; `None` makes them random again.
#[cfg(feature = "__tests")]
pub fn seed(seed: Option<u64>) {
    SEEDED.set(seed);
}

/// The next of the repeatable numbers, by SplitMix64.
#[cfg(feature = "__tests")]
fn repeatable() -> Option<u64> {
    let state = SEEDED.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    SEEDED.set(Some(state));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}

#[cfg(not(feature = "__tests"))]
fn repeatable() -> Option<u64> {
    None
}

/// A random number.
pub(crate) fn number() -> Result<u64, getrandom::Error> {
    repeatable().map_or_else(getrandom::u64, Ok)
}

/// 256 random bits.
pub(crate) fn secret() -> Result<[u8; 32], getrandom::Error> {
    let mut bits = [0; 32];
    for part in bits.as_chunks_mut::<8>().0 {
        *part = number()?.to_be_bytes();
    }
    Ok(bits)
}

/// A random number from 0 to 1, for jitter; 0.5 on a system without random numbers.
pub(crate) fn fraction() -> f64 {
    number().map_or(0.5, |number| (number >> 32) as f64 / f64::from(u32::MAX))
}

/// Enough that instances do not march in step.
pub(crate) const SLIGHTLY: f64 = 0.1;
/// Enough that those who were stopped together do not come back together.
#[cfg(feature = "redis-cluster")]
pub(crate) const WIDELY: f64 = 0.5;

/// `duration`, longer or shorter by up to this share of it.
pub(crate) fn jittered(duration: Duration, share: f64) -> Duration {
    duration.mul_f64(1.0 - share + 2.0 * share * fraction())
}
