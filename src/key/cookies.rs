//! The cookies of a request.

use http::header::COOKIE;

use super::partition::position;
use super::{KeyError, RequestHead};

/// The name of a cookie, and `=`.
#[derive(Clone, Debug)]
pub(crate) struct CookieName(Box<[u8]>);

impl CookieName {
    pub(crate) fn new(name: impl Into<Box<str>>) -> Self {
        let mut prefix = name.into().into_string().into_bytes();
        prefix.push(b'=');
        Self(prefix.into())
    }

    /// Hands the value of each cookie of this name to `take`, in order (RFC 6265 §5.4), less surrounding double
    /// quotes and white space.
    #[inline]
    pub(crate) fn each_value<'a>(
        &self,
        request: &RequestHead<'a>,
        mut take: impl FnMut(&'a [u8]) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        for line in request.headers(&COOKIE) {
            let mut rest = Some(line);
            while let Some(pairs) = rest {
                let end = position(pairs, |byte| byte == b';').unwrap_or(pairs.len());
                let (pair, others) = pairs.split_at(end);
                if let Some(value) = self.value(pair) {
                    take(value)?;
                }
                rest = others.get(1..);
            }
        }
        Ok(())
    }

    /// The value in a pair of this name.
    #[inline]
    fn value<'a>(&self, pair: &'a [u8]) -> Option<&'a [u8]> {
        let value = pair.trim_ascii_start().strip_prefix(&*self.0)?;
        let value = value.trim_ascii();
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""))
            .map(<[u8]>::trim_ascii);
        Some(unquoted.unwrap_or(value))
    }
}
