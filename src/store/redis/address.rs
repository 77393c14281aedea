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
        // It could ask for certificates not to be checked.
        if url.contains('#') {
            return Err(bad_url());
        }
        let (scheme, rest) = url.split_once(':').ok_or_else(bad_url)?;
        let scheme = scheme.to_ascii_lowercase();
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
        "must be redis://[user:password@]host[:port][/database], rediss://…, unix:///path, \
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
