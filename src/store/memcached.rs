//! `MemcachedStore`: an L2 in one Memcached server.

mod address;
mod connection;
mod pool;
mod server;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

use self::address::Address;
use self::connection::{Answer, Command};
use self::pool::Pool;
use super::{CasAdapter, CasStore};
use crate::error::{ConfigError, StoreError, StoreErrorKind};

/// A store in one Memcached server, by compare-and-set: [`CasAdapter`] says what that costs, and whose clock counts.
///
/// ```no_run
/// use tower_token_cache::{MemcachedStore, TokenCache};
///
/// # async fn open() -> Result<TokenCache, Box<dyn std::error::Error>> {
/// let store = MemcachedStore::connect("memcached://10.0.0.5").await?;
/// let cache = TokenCache::builder(store).build()?;
/// # Ok(cache)
/// # }
/// ```
///
/// # What the server must be
///
/// Memcached is a cache: as it comes, it evicts what it likes when it is full. With the mark of a sign-out goes what
/// keeps a signed-out session from coming back. So [`connect`](CasAdapter::connect) refuses a server that may evict;
/// so does each new connection, in case the server was started anew. Start it with
///
/// ```sh
/// memcached -M -o slab_automove=0
/// ```
///
/// and with enough memory (`-m`): when it is full, changes are refused
/// ([`StoreErrorKind::Refused`]), and wait in the instances until there is room.
/// [`evicting`](CasAdapter::evicting) takes any server, and says what that costs.
///
/// # What it does not do
///
/// - **A restart loses everything**, sign-outs included, and so does `flush_all`. Instances do not write back what they
///   have in memory: without a change feed they cannot know which sessions were signed out elsewhere. All sessions end;
///   a later change begins its session anew.
/// - **A partition takes 1 MiB at most**, or what the server's `-I` says, instead of 8 MiB. A larger one is
///   [`StoreErrorKind::TooLarge`] before anything is sent. The change waits in its instance, and is lost with it, until
///   tokens are removed or the session is signed out.
/// - **One server.** Keys that are spread over several come back from the dead when one of them fails and returns.
///   Proxies (mcrouter, twemproxy) do not tell whether the servers behind them evict.
/// - **No TLS and no password.** A process that can reach the port can read, change and delete all records. Give the
///   cache a [key ring](crate::Builder::key_ring), and let only the instances reach the port. Who deletes the mark of a
///   sign-out undoes the sign-out, as an eviction does.
/// - **No change feed**: other instances see a change within [`L1::max_staleness`](crate::L1::max_staleness).
///
/// Tested with Memcached 1.6.18.
pub type MemcachedStore = CasAdapter<Memcached>;

/// The bytes under a [`MemcachedStore`].
pub struct Memcached {
    pool: Pool,
    identity: u64,
}

impl CasAdapter<Memcached> {
    /// A store in the server at this address: `memcached://host`, `memcached://host:port` (11211 if not named), or
    /// on Unix `unix:///path/to/socket`.
    ///
    /// A server that cannot be reached is no error: it is asked again with each connection.
    ///
    /// # Errors
    /// [`ConfigError`] for `address`: it is none, or the server may evict what is stored.
    pub async fn connect(address: &str) -> Result<Self, ConfigError> {
        Memcached::open(address, false).await.map(Self::new)
    }

    /// The same with a server that may evict what is stored.
    ///
    /// What an eviction costs depends on what is evicted:
    ///
    /// - a session: its user signs in again;
    /// - a lease: two instances may redeem one refresh token, and some providers then end the session;
    /// - the mark of a sign-out: a change from before the sign-out that the store has not heard of yet is stored, if
    ///   its instance had not read the session. The session then has what that change wrote;
    /// - the number of a user's sign-out, or of `sign_out_all`: all sessions that it concerns end.
    ///
    /// # Errors
    /// [`ConfigError`] for `address`: it is none.
    pub async fn evicting(address: &str) -> Result<Self, ConfigError> {
        Memcached::open(address, true).await.map(Self::new)
    }
}

impl Memcached {
    async fn open(text: &str, may_evict: bool) -> Result<Self, ConfigError> {
        let address = Address::parse(text)?;
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        if address.is_elsewhere() {
            tracing::warn!(
                "the connection to Memcached is neither encrypted nor authenticated: any process that can reach \
                 the server can read and delete what is stored"
            );
        }
        let pool = Pool::new(address, may_evict);
        // The connection is not kept: it belongs to the runtime that it was made in.
        match pool.connect().await {
            Err(error) if error.kind() == StoreErrorKind::Refused => Err(ConfigError::new(
                "address",
                "must be of a server that evicts nothing: start it with `memcached -M -o slab_automove=0`, or \
                 take `MemcachedStore::evicting`",
            )
            .with_source(error)),
            _ => Ok(Self {
                pool,
                identity: hasher.finish(),
            }),
        }
    }

    /// Whether the server has made the change.
    async fn change(&self, command: &Command<'_>) -> Result<bool, StoreError> {
        match self.pool.ask(command).await? {
            Answer::Stored => Ok(true),
            Answer::Differs => Ok(false),
            answer => Err(answer.into_error()),
        }
    }
}

impl CasStore for Memcached {
    /// When the server was started, and its number of the value.
    type Revision = (u64, u64);

    async fn get(&self, key: &str) -> Result<Option<(Bytes, Self::Revision)>, StoreError> {
        match self.pool.ask(&Command::Get { key }).await? {
            Answer::Found(bytes, revision) => Ok(Some((bytes, revision))),
            Answer::Absent => Ok(None),
            answer => Err(answer.into_error()),
        }
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&Self::Revision>,
        keep: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let command = Command::Put {
            key,
            value: &value,
            expected: expected.copied(),
            keep,
        };
        self.change(&command).await
    }

    async fn delete(&self, key: &str, expected: &Self::Revision) -> Result<bool, StoreError> {
        let expected = *expected;
        self.change(&Command::Delete { key, expected }).await
    }

    async fn takes(&self, key: &str, length: usize) -> Result<bool, StoreError> {
        self.pool.takes(key, length).await
    }

    fn identity(&self) -> u64 {
        self.identity
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcached").finish_non_exhaustive()
    }
}
