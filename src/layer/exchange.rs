//! What a response owes to the cookies of its request: nothing, unless sessions, or their ids, are set by the layer.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE};

use crate::challenge::SESSION;
use crate::cookie;
use crate::tokens::Tokens;

/// One request and its response.
#[derive(Default)]
pub(crate) struct Exchange(pub(super) Option<cookie::Exchange>);

impl Exchange {
    /// The values of the `Set-Cookie` lines that the response to the request of this handle needs. Later changes
    /// are too late.
    #[inline]
    pub(crate) fn finish(self, tokens: &Tokens) -> Vec<String> {
        if let Some(exchange) = self.0 {
            return exchange.finish();
        }
        Vec::from_iter(tokens.session_cookie())
    }

    /// Adds them to the head of a response.
    #[inline]
    pub(super) fn set(self, tokens: &Tokens, headers: &mut HeaderMap) {
        let lines = self.finish(tokens);
        set_cookies(lines, headers);
    }
}

/// Adds the lines to the head of a response.
#[inline]
pub(super) fn set_cookies(lines: Vec<String>, headers: &mut HeaderMap) {
    if !lines.is_empty() {
        add(lines, headers);
    }
}

fn add(lines: Vec<String>, headers: &mut HeaderMap) {
    let said = headers.get_all(CACHE_CONTROL).iter();
    if !forbids_storing(said.map(HeaderValue::as_bytes)) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(KEPT_BY_NO_CACHE));
    }
    for name in FOR_SHARED_CACHES {
        headers.remove(name);
    }
    for line in lines {
        if let Ok(mut value) = HeaderValue::try_from(line) {
            value.set_sensitive(true);
            headers.append(SET_COOKIE, value);
        }
    }
}

/// A 401 of this crate asks for a session. To a request that should have brought a bearer token it asks for that.
#[cold]
pub(super) fn ask_for_bearer(tokens: &Tokens, headers: &mut HeaderMap) {
    let Some(challenge) = tokens.bearer_challenge() else {
        return;
    };
    if let Some(value) = headers.get_mut(WWW_AUTHENTICATE)
        && value == SESSION
    {
        *value = HeaderValue::from_static(challenge);
    }
}

/// What a response with a session in it says to caches: a shared one that kept it would hand the
/// session to others. It takes the place of what the handler says of its page.
pub(crate) const KEPT_BY_NO_CACHE: &str = "private, no-store";

/// What goes before `Cache-Control` where there is a cache that it is meant for (RFC 9213).
pub(crate) const FOR_SHARED_CACHES: [&str; 2] = ["cdn-cache-control", "surrogate-control"];

/// Whether these values of `Cache-Control` hold the directive `no-store`. Where quotes make that
/// doubtful, they do not.
pub(crate) fn forbids_storing<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> bool {
    values.into_iter().any(|value| {
        let mut directives = value.split(|byte| *byte == b',');
        !value.contains(&b'"')
            && directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-store"))
    })
}
