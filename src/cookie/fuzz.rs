//! Everything that reads what comes from a browser, without a server around it.

use std::sync::LazyLock;

use http::header::{COOKIE, HeaderValue};

use super::chunks::Chunks;
use super::compress::unpack;
use super::payload;
use super::sealer::Sealer;
use crate::key::RequestHead;
use crate::seal::{KeyRing, RingKey};
use crate::session::SameSite;

const NAME: &str = "__Host-tokens";
const MAX_SIZE: usize = 16 * 1024;

static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
    let ring = KeyRing::from_keys(RingKey::from_bytes([9; 32]), []);
    Sealer::new(ring, NAME.into())
});
static CHUNKS: LazyLock<Chunks> =
    LazyLock::new(|| Chunks::new(NAME.into(), SameSite::default(), true));

/// Takes bytes for a `Cookie` header, for the text of the cookies, for what was packed, and for a
/// partition. Whether they were any of these.
pub(crate) fn read_anything(bytes: &[u8]) -> bool {
    let is_header = HeaderValue::from_bytes(bytes).is_ok_and(|value| {
        let mut request = http::Request::new(());
        request.headers_mut().insert(COOKIE, value);
        let brought = CHUNKS.read(&RequestHead::from(&request), MAX_SIZE);
        let opened = brought.text.map(|text| SEALER.open(&text?));
        opened.is_some_and(|opened| opened.is_ok())
    });
    let is_packed = unpack(bytes).is_some_and(|plain| payload::read(&plain).is_some());
    is_header | SEALER.open(bytes).is_ok() | is_packed | payload::read(bytes).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cookies_are_read() {
        let cookies = include_str!("../../tests/golden/cookies.v1.txt");
        assert!(read_anything(cookies.trim().as_bytes()));
        assert!(!read_anything(b"__Host-tokens.0=1.AAAA"));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read_anything(&bytes);
        }

        #[test]
        fn anything_like_cookies_is_read_without_a_panic(
            text in "(__Host-tokens\\.[0-9]{1,2}=([0-9]{1,2}\\.)?[A-Za-z0-9_-]{0,80}; ){0,5}",
        ) {
            prop_assert!(!read_anything(text.as_bytes()));
        }
    }
}
