//! What is sent to an endpoint of the provider.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Uri};
use url::Url;
use url::form_urlencoded::byte_serialize;

use crate::acquire::ProviderError;
use crate::secret::Secret;
use crate::wipe::Wiped;

/// A form in the making. Its buffer is wiped, also where it grows.
pub(super) struct Form(Wiped<Vec<u8>>);

impl Form {
    /// A form with nothing in it.
    pub(super) fn new() -> Self {
        Self(Wiped::new(Vec::with_capacity(1024)))
    }

    /// Adds a parameter.
    pub(super) fn push(&mut self, name: &str, value: &str) {
        // Each byte takes three at most.
        let added = 3 * (name.len() + value.len()) + 2;
        if self.0.capacity() - self.0.len() < added {
            let mut larger = Wiped::new(Vec::with_capacity(2 * self.0.len() + added));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        encode(name, &mut self.0);
        self.0.push(b'=');
        encode(value, &mut self.0);
    }

    /// The request that posts it.
    pub(super) fn post_to(self, endpoint: &Url) -> Result<Request<Bytes>, ProviderError> {
        let json = HeaderValue::from_static("application/json");
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let mut request = Request::post(uri(endpoint).map_err(ProviderError::unreachable)?)
            .body(Bytes::from_owner(self.0))
            .map_err(ProviderError::unreachable)?;
        request.headers_mut().insert(ACCEPT, json);
        request.headers_mut().insert(CONTENT_TYPE, form);
        Ok(request)
    }
}

/// The URL as requests have it. URLs may have characters that URIs may not.
pub(super) fn uri(url: &Url) -> Result<Uri, http::uri::InvalidUri> {
    url.as_str().parse()
}

/// Sends the client's name and secret in the header (RFC 6749 §2.3.1).
pub(super) fn authorize(request: &mut Request<Bytes>, client_id: &str, secret: &Secret) {
    let mut pair = Wiped::new(Vec::with_capacity(3 * (client_id.len() + secret.len()) + 1));
    encode(client_id, &mut pair);
    pair.push(b':');
    encode(secret.expose(), &mut pair);
    let mut text = String::with_capacity("Basic ".len() + 4 * pair.len().div_ceil(3));
    text.push_str("Basic ");
    STANDARD.encode_string(&*pair, &mut text);
    let text = Wiped::new(text.into_bytes());
    if let Ok(mut credentials) = HeaderValue::from_bytes(&text) {
        credentials.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, credentials);
    }
}

/// Form-encodes a text.
fn encode(text: &str, to: &mut Vec<u8>) {
    for piece in byte_serialize(text.as_bytes()) {
        to.extend_from_slice(piece.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_whole_however_long_it_gets() {
        let mut form = Form::new();
        let long = "ä&=+ %".repeat(1000);
        let pairs = [("a", "1"), ("b", &*long), ("c d", ""), ("e", &*long)];
        for (name, value) in pairs {
            form.push(name, value);
        }
        let url = Url::parse("https://login.example/token?tenant=t").unwrap();
        let request = form.post_to(&url).unwrap();
        let read = url::form_urlencoded::parse(request.body());
        assert!(read.eq(pairs.map(|(n, v)| (n.into(), v.into()))));
        assert_eq!(request.uri().query(), Some("tenant=t"));
    }
}
