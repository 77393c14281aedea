//! The URLs that credentials and browsers are sent to.

use url::{Host, Url};

use super::request::uri;

/// An `https` URL, or one on this machine; without user name, password and fragment. The error says what it must be.
pub(crate) fn endpoint(text: &str) -> Result<Url, &'static str> {
    // The parser's error is left out: it says nothing that the reason does not.
    let url = Url::parse(text).map_err(|_| "must be an absolute URL")?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have no user name, password or fragment");
    }
    let is_safe = match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url),
        _ => false,
    };
    if !is_safe {
        return Err("must be https");
    }
    uri(&url).map_err(|_| "has characters that must be percent-encoded")?;
    Ok(url)
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
