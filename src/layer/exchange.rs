//! What a response owes to the cookies of its request: nothing, unless sessions live in cookies.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, SET_COOKIE};

/// One request and its response.
#[derive(Default)]
pub(crate) struct Exchange(
    #[cfg(feature = "cookie")] pub(super) Option<crate::cookie::Exchange>,
    #[cfg(not(feature = "cookie"))] (),
);

impl Exchange {
    /// The values of the `Set-Cookie` lines that the response needs. Later changes are too late.
    #[inline]
    pub(crate) fn finish(self) -> Vec<String> {
        #[cfg(feature = "cookie")]
        if let Some(exchange) = self.0 {
            return exchange.finish();
        }
        Vec::new()
    }

    /// Adds them to the head of a response.
    #[inline]
    pub(super) fn set(self, headers: &mut HeaderMap) {
        let lines = self.finish();
        if !lines.is_empty() {
            add(lines, headers);
        }
    }
}

fn add(lines: Vec<String>, headers: &mut HeaderMap) {
    // No cache between here and the browser may keep them.
    let entry = headers.entry(CACHE_CONTROL);
    entry.or_insert(HeaderValue::from_static("no-store"));
    for line in lines {
        if let Ok(mut value) = HeaderValue::try_from(line) {
            value.set_sensitive(true);
            headers.append(SET_COOKIE, value);
        }
    }
}
