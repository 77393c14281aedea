//! Where a server is.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::error::ConfigError;

const PORT: u16 = 11211;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let invalid = "must be memcached://host, memcached://host:port or unix:///path";
        let invalid = || ConfigError::new("address", invalid);
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            let usable = cfg!(unix) && path.is_absolute();
            return usable.then_some(Self::Unix(path)).ok_or_else(invalid);
        }
        let text = text.strip_prefix("memcached://").ok_or_else(invalid)?;
        let text = text.strip_suffix('/').unwrap_or(text);
        let authority: http::uri::Authority = text.parse().map_err(|_| invalid())?;
        let host = authority.host();
        // What is before the host is a user.
        let rest = authority.as_str().strip_prefix(host).ok_or_else(invalid)?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => PORT,
            None => return Err(invalid()),
            Some(port) => port.parse().map_err(|_| invalid())?,
        };
        // An IPv6 address stands in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid());
        }
        Ok(Self::Tcp {
            host: host.into(),
            port,
        })
    }

    /// Whether others can listen on the way there.
    pub(super) fn is_elsewhere(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                let address: Result<IpAddr, _> = host.parse();
                !host.eq_ignore_ascii_case("localhost")
                    && !address.is_ok_and(|address| address.is_loopback())
            }
            Self::Unix(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let tcp = |host: &str, port| Address::Tcp {
            host: host.into(),
            port,
        };
        for (text, address) in [
            ("memcached://cache", tcp("cache", 11211)),
            ("memcached://cache:1234/", tcp("cache", 1234)),
            ("memcached://[::1]:1234", tcp("::1", 1234)),
            (
                "unix:///run/memcached",
                Address::Unix("/run/memcached".into()),
            ),
        ] {
            assert_eq!(Address::parse(text).ok(), Some(address), "{text}");
        }
        for text in [
            "",
            "cache",
            "memcached://",
            "memcached://:1",
            "memcached://cache:",
            "memcached://cache:x",
            "memcached://cache:70000",
            "memcached://me:secret@cache",
            "memcached://cache/x",
            "unix://relative",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        let elsewhere = |text| {
            Address::parse(text)
                .map(|address| address.is_elsewhere())
                .ok()
        };
        assert_eq!(elsewhere("memcached://127.0.0.1"), Some(false));
        assert_eq!(elsewhere("memcached://[::1]"), Some(false));
        assert_eq!(elsewhere("memcached://cache"), Some(true));
    }
}
