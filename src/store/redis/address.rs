//! Where the servers are, and who we are to them.

use std::time::Duration;

use bb8_redis::redis::io::tcp::TcpSettings;
use bb8_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::error::ConfigError;

/// What a URL names.
pub(crate) enum Address {
    /// One server.
    Server(Box<ConnectionInfo>),
    /// A cluster, by some of its nodes.
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<ConnectionInfo>),
    /// The master of a service, by the sentinels that know it.
    #[cfg(feature = "redis-sentinel")]
    Sentinel {
        /// The sentinels.
        sentinels: Vec<ConnectionInfo>,
        /// The service's name.
        service: String,
        /// How to sign in to the master. It names a sentinel: the master's place is found out.
        master: Box<ConnectionInfo>,
    },
}

/// The port of a sentinel whose URL names none.
#[cfg(feature = "redis-sentinel")]
const SENTINEL_PORT: u16 = 26379;

impl Address {
    /// Whether the connections are encrypted, too.
    pub(super) fn parse(url: &str) -> Result<(Self, bool), ConfigError> {
        let (scheme, rest) = url.split_once(':').ok_or_else(bad_url)?;
        let scheme = scheme.to_ascii_lowercase();
        check_options(&scheme, rest)?;
        let (scheme, topology) = match scheme.split_once('+') {
            Some((scheme, topology @ ("cluster" | "sentinel"))) => (scheme, Some(topology)),
            _ => (scheme.as_str(), None),
        };
        let tls = matches!(scheme, "rediss" | "valkeys");
        #[cfg(not(feature = "redis-tls"))]
        if tls {
            return Err(missing("needs the feature redis-tls of tower-token-cache"));
        }
        let address = match topology {
            Some("cluster") => cluster(scheme, rest)?,
            Some(_) => sentinel(scheme, rest)?,
            None => Self::Server(Box::new(server(url)?)),
        };
        Ok((address, tls))
    }

    /// Whether what is sent, the password among it, goes unencrypted to another machine.
    pub(super) fn is_in_the_clear(&self) -> bool {
        let exposed = |server: &ConnectionInfo| match server.addr() {
            ConnectionAddr::Tcp(host, _) => !is_loopback(host),
            _ => false,
        };
        match self {
            Self::Server(server) => exposed(server),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(servers) => servers.iter().any(exposed),
            #[cfg(feature = "redis-sentinel")]
            Self::Sentinel { sentinels, .. } => sentinels.iter().any(exposed),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// What the `redis` crate does not know it passes over, and what it knows could ask for certificates
/// not to be checked.
fn check_options(scheme: &str, rest: &str) -> Result<(), ConfigError> {
    let known: &[&str] = match scheme {
        "unix" | "redis+unix" | "valkey+unix" => &["db", "user", "pass"],
        _ => &[],
    };
    if rest.contains('#') {
        let reason = "must have no fragment; a `#` within a password is written as %23";
        return Err(ConfigError::new("url", reason));
    }
    let Some((_, query)) = rest.split_once('?') else {
        return Ok(());
    };
    if known.is_empty() && query.contains('@') {
        // It may be the rest of a password.
        let reason = "a `?` within a password is written as %3F";
        return Err(ConfigError::new("url", reason));
    }
    for option in query.split('&') {
        let name = option.split('=').next().unwrap_or_default();
        if known.contains(&name) {
            continue;
        }
        let instead = match name {
            "db" | "database" => "; the database is the last part of the path: redis://host/3",
            "ssl" | "tls" => "; encrypted connections are those of rediss://",
            "user" | "username" | "pass" | "password" => {
                "; user and password stand before the host: redis://user:password@host"
            }
            _ => "",
        };
        let shown =
            name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = if shown { name } else { "…" };
        let reason = format!("has no option `{name}`{instead}");
        return Err(ConfigError::because("url", reason));
    }
    Ok(())
}

#[cfg(feature = "redis-cluster")]
fn cluster(scheme: &str, rest: &str) -> Result<Address, ConfigError> {
    let (hosts, path) = split(rest)?;
    match path {
        "" => Ok(Address::Cluster(servers(scheme, hosts, None)?)),
        // A cluster has one database.
        _ => Err(bad_url()),
    }
}

#[cfg(not(feature = "redis-cluster"))]
fn cluster(_: &str, _: &str) -> Result<Address, ConfigError> {
    Err(missing(
        "needs the feature redis-cluster of tower-token-cache",
    ))
}

#[cfg(feature = "redis-sentinel")]
fn sentinel(scheme: &str, rest: &str) -> Result<Address, ConfigError> {
    let (authority, path) = split(rest)?;
    let (service, database) = path.split_once('/').unwrap_or((path, "0"));
    let database = database.parse().map_err(|_| bad_url())?;
    if service.is_empty() || service.contains(['?', '/']) {
        return Err(bad_url());
    }
    // The credentials are the server's: sentinels have their own, or none.
    let hosts = authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts);
    let sentinels = servers(scheme, hosts, Some(SENTINEL_PORT))?;
    let master = servers(scheme, authority, None)?.into_iter().next();
    let master = master.ok_or_else(bad_url)?;
    let settings = master.redis_settings().clone().set_db(database);
    Ok(Address::Sentinel {
        sentinels,
        service: service.to_owned(),
        master: Box::new(master.set_redis_settings(settings)),
    })
}

#[cfg(not(feature = "redis-sentinel"))]
fn sentinel(_: &str, _: &str) -> Result<Address, ConfigError> {
    Err(missing(
        "needs the feature redis-sentinel of tower-token-cache",
    ))
}

/// `[user:password@]host[:port],…`, and the path without the slash at either end.
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
fn split(rest: &str) -> Result<(&str, &str), ConfigError> {
    let rest = rest.strip_prefix("//").ok_or_else(bad_url)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((authority, path.strip_suffix('/').unwrap_or(path)))
}

/// One server for each of the hosts, with the same credentials.
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
fn servers(
    scheme: &str,
    authority: &str,
    default_port: Option<u16>,
) -> Result<Vec<ConnectionInfo>, ConfigError> {
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), authority),
    };
    let server = |host: &str| {
        // The colons of an IPv6 address are in brackets.
        let named = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = default_port.filter(|_| !named);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        self::server(&format!("{scheme}://{credentials}{host}{port}"))
    };
    hosts.split(',').map(server).collect()
}

fn server(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let info = url.into_connection_info().map_err(|_| bad_url())?;
    if !info.addr().is_supported() {
        return Err(bad_url());
    }
    Ok(info.set_tcp_settings(tcp()))
}

/// Another server, reached and signed in to like this one.
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
pub(super) fn located(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match like.addr() {
        ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}

/// Small answers go out at once, and a peer that vanished is noticed.
pub(super) fn tcp() -> TcpSettings {
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(Duration::from_secs(5));
    tcp
}

/// The error never holds the URL, which may hold a password.
pub(crate) fn bad_url() -> ConfigError {
    ConfigError::new(
        "url",
        "must be redis://[user:password@]host[:port][/database], rediss://…, \
         unix:///path[?db=…&user=…&pass=…], \
         redis+cluster://[user:password@]host[:port],… or \
         redis+sentinel://[user:password@]host[:port],…/service[/database]",
    )
}

/// The URL is a good one, which this build cannot use.
#[cfg(not(all(
    feature = "redis-cluster",
    feature = "redis-sentinel",
    feature = "redis-tls"
)))]
fn missing(reason: &'static str) -> ConfigError {
    ConfigError::new("url", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        match Address::parse(url) {
            Ok(_) => panic!("{url} is taken"),
            Err(error) => format!("{error} {error:?}"),
        }
    }

    /// Of every form of the table.
    fn forms() -> Vec<&'static str> {
        let mut forms = vec!["redis://h", "redis://h:1/3", "valkey://h"];
        #[cfg(feature = "redis-tls")]
        forms.push("rediss://u:p@h");
        #[cfg(feature = "redis-cluster")]
        forms.extend(["redis+cluster://h", "redis+cluster://h,i:2/"]);
        #[cfg(feature = "redis-sentinel")]
        forms.extend(["redis+sentinel://h/s", "redis+sentinel://h,i/s/3"]);
        forms
    }

    #[test]
    fn an_option_that_is_none_is_an_error_that_names_it() {
        for url in forms() {
            assert!(Address::parse(url).is_ok(), "{url}");
            for option in ["db", "ssl", "protocol", "timeout", "user", "insecure"] {
                for query in [format!("?{option}=3"), format!("?{option}")] {
                    let error = error(&format!("{url}{query}"));
                    assert!(error.contains(&format!("`{option}`")), "{error}");
                }
            }
            error(&format!("{url}#insecure"));
            error(&format!("{url}?"));
        }
        let unix = "unix:///path?db=1&user=u&pass=p";
        assert!(Address::parse(unix).is_ok());
        for option in ["ssl", "protocol"] {
            let error = error(&format!("{unix}&{option}=3"));
            assert!(error.contains(&format!("`{option}`")), "{error}");
        }
        error("unix:///path?db=x");
    }

    #[test]
    fn a_password_is_taken_as_it_was_encoded_or_its_character_is_named() {
        let of = |url: &str| {
            let (address, _) = Address::parse(url).map_err(|error| error.to_string())?;
            let info = match address {
                Address::Server(info) => *info,
                #[cfg(feature = "redis-cluster")]
                Address::Cluster(mut nodes) => {
                    assert_eq!(nodes.len(), 2);
                    nodes.remove(0)
                }
                #[cfg(feature = "redis-sentinel")]
                Address::Sentinel {
                    sentinels, master, ..
                } => {
                    assert_eq!(sentinels.len(), 2);
                    *master
                }
            };
            let settings = info.redis_settings();
            let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
            Ok::<_, String>((own(settings.username()), own(settings.password())))
        };
        let printable = (' '..='~').chain(['ä', '→', '😀']);
        for character in printable {
            for word in [
                format!("a{character}b"),
                format!("{character}"),
                format!("%41{character}"),
            ] {
                let encoded: String = word.bytes().map(|byte| format!("%{byte:02X}")).collect();
                for (form, raw) in [
                    ("redis://CREDENTIALS@h", true),
                    #[cfg(feature = "redis-tls")]
                    ("rediss://CREDENTIALS@h:1/2", true),
                    #[cfg(feature = "redis-cluster")]
                    ("redis+cluster://CREDENTIALS@h,i", true),
                    #[cfg(feature = "redis-sentinel")]
                    ("redis+sentinel://CREDENTIALS@h,i/s", true),
                    ("unix:///path?user=USER&pass=PASSWORD", false),
                ] {
                    let url = form.replace("CREDENTIALS", "USER:PASSWORD");
                    let url = |text: &str| url.replace("USER", text).replace("PASSWORD", text);
                    assert_eq!(
                        of(&url(&encoded)),
                        Ok((word.clone(), word.clone())),
                        "{form}"
                    );
                    // Where it is written as it is, it is taken so, or it is an error.
                    let plain = form.replace("CREDENTIALS", &format!(":a{character}b"));
                    if let Ok((_, password)) = of(&plain)
                        && raw
                    {
                        assert_eq!(password, format!("a{character}b"), "{form}");
                    }
                }
            }
        }
        for (url, character) in [("redis://:pa?s=s@h", "%3F"), ("redis://:pa#ss@h", "%23")] {
            let error = error(url);
            assert!(error.contains(character), "{error}");
            assert!(!error.contains("ss@h") && !error.contains("`s`"), "{error}");
        }
    }
}
