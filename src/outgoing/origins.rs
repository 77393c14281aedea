//! `Origins`: where a token may be sent.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Uri;

use crate::error::ConfigError;

/// The origins that a [`BearerLayer`](super::BearerLayer) sends its token to: scheme, host and port
/// (RFC 6454). A request to any other is sent without it.
#[derive(Clone, Debug)]
pub struct Origins {
    listed: Arc<[Origin]>,
    relative: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Origin {
    secure: bool,
    host: Box<str>,
    port: u16,
}

impl Origins {
    /// These origins, such as `https://graph.example` or `https://graph.example:8443`. Plain `http`
    /// only to this machine (`localhost`, 127.0.0.0/8, `[::1]`): whoever is on the way reads the
    /// token.
    ///
    /// # Errors
    /// [`ConfigError`] for `origins`: there is none, or one is no origin, has a path, a query or a
    /// user name, or is `http` to another machine.
    pub fn new<T: AsRef<str>>(origins: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let listed = origins.into_iter().map(|text| listed(text.as_ref()));
        let listed = listed.collect::<Result<Vec<_>, _>>()?;
        match listed.is_empty() {
            true => Err(ConfigError::new("origins", "must name at least one")),
            false => Ok(Self {
                listed: listed.into(),
                relative: false,
            }),
        }
    }

    /// Requests whose URI names no host: for a service that has one server, such as a `Channel` of
    /// tonic, which decides where they go. No redirect is such a request.
    pub fn relative() -> Self {
        Self {
            listed: [].into(),
            relative: true,
        }
    }

    /// Whether the token may go there.
    pub(super) fn allow(&self, uri: &Uri) -> bool {
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => self.relative,
            _ => Origin::of(uri).is_some_and(|origin| self.listed.contains(&origin)),
        }
    }
}

fn listed(text: &str) -> Result<Origin, ConfigError> {
    let wrong = |reason| ConfigError::new("origins", reason);
    let uri: Uri = text
        .parse()
        .map_err(|_| wrong("must be like https://host or https://host:port"))?;
    let is_bare =
        matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains(['@', '#']);
    let origin = Origin::of(&uri).filter(|_| is_bare);
    let origin = origin.ok_or_else(|| wrong("must be like https://host or https://host:port"))?;
    match origin.secure || origin.is_loopback() {
        true => Ok(origin),
        false => Err(wrong("must be https, unless they are on this machine")),
    }
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?;
        let secure = match () {
            () if scheme.eq_ignore_ascii_case("https") => true,
            () if scheme.eq_ignore_ascii_case("http") => false,
            () => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?;
        // A port that cannot be read is not the default one.
        let named = uri.authority()?.as_str().rsplit(']').next()?;
        let port = match uri.port_u16() {
            Some(port) => port,
            None if named.rsplit('@').next()?.contains(':') => return None,
            None if secure => 443,
            None => 80,
        };
        Some(Self {
            secure,
            host: canonical(host),
            port,
        })
    }

    fn is_loopback(&self) -> bool {
        let v6 = self
            .host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match v6 {
            Some(v6) => v6.parse().is_ok_and(|v6: Ipv6Addr| v6.is_loopback()),
            None => {
                let v4 = self.host.parse().is_ok_and(|v4: Ipv4Addr| v4.is_loopback());
                v4 || &*self.host == "localhost"
            }
        }
    }
}

/// An IPv6 address is written in many ways, a name in either case.
fn canonical(host: &str) -> Box<str> {
    let v6 = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match v6.and_then(|v6| v6.parse::<Ipv6Addr>().ok()) {
        Some(v6) => format!("[{v6}]").into(),
        None => host.to_ascii_lowercase().into(),
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origins = [
            "https://api.example",
            "https://API.example:8443/",
            "http://[0:0::1]:80",
        ];
        let origins = Origins::new(origins).unwrap();
        for (uri, allowed) in [
            ("https://api.example", true),
            ("HTTPS://Api.Example/path?query", true),
            ("https://api.example:443/", true),
            ("https://api.example:8443/", true),
            ("https://user:pass@api.example/", true),
            ("http://[::1]/", true),
            ("http://api.example/", false),
            ("http://api.example:443/", false),
            ("https://api.example:444/", false),
            ("https://api.example.evil/", false),
            ("https://evil.api.example/", false),
            ("https://api.example@evil.example/", false),
            ("https://api.example./", false),
            ("ftp://api.example/", false),
            ("https://[::1]/", false),
            ("http://127.0.0.1/", false),
            ("/path", false),
            ("*", false),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(origins.allow(&uri), allowed, "{uri}");
        }
    }

    #[test]
    fn relative_requests_are_a_matter_of_their_own() {
        let relative = Origins::relative();
        assert!(relative.allow(&Uri::from_static("/service/method")));
        assert!(!relative.allow(&Uri::from_static("https://api.example/")));
        assert!(!relative.allow(&Uri::from_static("api.example:443")));
    }

    #[test]
    fn what_would_leak_is_no_origin() {
        for loopback in [
            "http://localhost:3000",
            "http://127.8.0.1",
            "http://[::1]:3000",
        ] {
            Origins::new([loopback]).unwrap();
        }
        for wrong in [
            "http://api.example",
            "http://localhost.example",
            "http://[::2]",
            "http://10.0.0.1",
            "ftp://api.example",
            "https://api.example/v1",
            "https://api.example?x",
            "https://user@api.example",
            "https://api.example:99999",
            "https://",
            "api.example",
            "/path",
            "*",
            "",
        ] {
            let error = Origins::new([wrong]).expect_err(wrong);
            assert_eq!(error.option(), "origins", "{wrong}");
        }
        assert!(Origins::new([""; 0]).is_err());
    }
}
