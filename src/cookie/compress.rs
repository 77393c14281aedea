//! Compression that gives nothing away: see the [module](super).

use miniz_oxide::deflate::core::{
    CompressionStrategy, CompressorOxide, TDEFLFlush, TDEFLStatus, compress,
    create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use parking_lot::Mutex;

use crate::wipe::Wiped;

/// With less room than this the compressor goes through a buffer of its own.
const ROOM: usize = 90 * 1024;

/// The largest partition that is read: more than any that fits into cookies.
const MAX_PLAIN: usize = 1 << 20;

const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;

/// How something is stored, its length then, and its length before: one and twice four bytes.
const HEADER: usize = 9;

/// The length is rounded up to a multiple of this.
const BLOCK: usize = 64;

/// Its memory holds what it has compressed until it is reset; so it is kept, not freed.
#[derive(Default)]
pub(super) struct Compressor(Mutex<Option<Box<CompressorOxide>>>);

impl Compressor {
    /// Packs `plain` after `before` zeros, with room for `after` bytes more.
    pub(super) fn pack(&self, plain: &[u8], before: usize, after: usize) -> Wiped<Vec<u8>> {
        let mut room = Wiped::new(vec![0; plain.len() + ROOM]);
        let deflated = self.deflate(plain, &mut room);
        let (method, data) = match deflated {
            Some(length) if length < plain.len() => (DEFLATED, &room[..length]),
            _ => (PLAIN, plain),
        };
        let length = (HEADER + data.len()).next_multiple_of(BLOCK);
        let mut packed = Wiped::new(Vec::with_capacity(before + length + after));
        packed.resize(before, 0);
        packed.push(method);
        packed.extend_from_slice(&(data.len() as u32).to_be_bytes());
        packed.extend_from_slice(&(plain.len() as u32).to_be_bytes());
        packed.extend_from_slice(data);
        packed.resize(before + length, 0);
        packed
    }

    fn deflate(&self, plain: &[u8], room: &mut [u8]) -> Option<usize> {
        let mut held = self.0.lock();
        let compressor = held.get_or_insert_with(|| {
            let strategy = CompressionStrategy::HuffmanOnly.into();
            Box::new(CompressorOxide::new(create_comp_flags_from_zip_params(
                6, 0, strategy,
            )))
        });
        let (status, _, length) = compress(compressor, plain, room, TDEFLFlush::Finish);
        compressor.reset();
        (status == TDEFLStatus::Done).then_some(length)
    }
}

/// The length of what [`Compressor::pack`] makes of so many bytes, at most.
pub(super) fn max_packed(plain: usize) -> usize {
    (HEADER + plain).next_multiple_of(BLOCK)
}

/// What was packed; `None` when it was not packed by this.
pub(super) fn unpack(packed: &[u8]) -> Option<Wiped<Vec<u8>>> {
    let (header, rest) = packed.split_at_checked(HEADER)?;
    let length = |at: usize| -> Option<usize> {
        let bytes = header.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let data = rest.get(..length(1)?)?;
    let plain_length = length(5)?;
    if plain_length > MAX_PLAIN {
        return None;
    }
    let mut plain = Wiped::new(vec![0; plain_length]);
    match header[0] {
        PLAIN if data.len() == plain_length => plain.copy_from_slice(data),
        DEFLATED => {
            let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let mut state = Box::<DecompressorOxide>::default();
            let (status, _, written) = decompress(&mut state, data, &mut plain, 0, flags);
            if status != TINFLStatus::Done || written != plain_length {
                return None;
            }
        }
        _ => return None,
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let compressor = Compressor::default();
        let text = b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.".repeat(100);
        let random: Vec<u8> = (0..5000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for plain in [&b""[..], b"a", &text, &random] {
            let packed = compressor.pack(plain, 3, 5);
            assert_eq!((packed.len() - 3) % BLOCK, 0);
            assert!(packed.len() - 3 <= max_packed(plain.len()));
            assert_eq!(packed.capacity(), packed.len() + 5, "it never grows");
            assert_eq!(unpack(&packed[3..]).unwrap().as_slice(), plain);
        }
        assert!(compressor.pack(&text, 0, 0).len() < text.len() * 8 / 10);
    }

    #[test]
    fn a_repeated_secret_gives_no_shorter_text() {
        let compressor = Compressor::default();
        let secret = "q7Zk2Xw9Lm4Tb8Vn3Rc6Yd1Hs5Gf0Jp";
        let wrong: String = secret.chars().rev().collect();
        let length = |guess: &str| {
            let text = format!("{secret}.{}.{guess}", "aB3_".repeat(60));
            compressor.pack(text.as_bytes(), 0, 0).len()
        };
        assert_eq!(length(secret), length(&wrong));
    }

    #[test]
    fn what_was_not_packed_is_not_unpacked() {
        let packed = Compressor::default().pack(&b"token ".repeat(100), 0, 0);
        for end in 0..packed.len() - BLOCK {
            assert!(unpack(&packed[..end]).is_none(), "cut off at {end}");
        }
        for (at, value) in [(0, 2), (1, 0xFF), (5, 0xFF), (8, 0)] {
            let mut changed = packed.to_vec();
            changed[at] = value;
            assert!(unpack(&changed).is_none(), "byte {at}");
        }
    }
}
