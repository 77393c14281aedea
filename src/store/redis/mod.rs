//! `RedisStore`: partitions as hashes in Redis or Valkey.

mod access;
mod address;
mod answers;
mod builder;
mod calls;
#[cfg(feature = "redis-cluster")]
mod cluster;
mod credentials;
mod eviction;
mod failure;
mod feed;
mod foreign;
#[cfg(feature = "seal")]
mod keys;
mod link;
mod links;
mod movable;
mod multiplexed;
mod pool;
mod pool_failure;
mod record;
mod scripts;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod serving;
mod tls;

use std::fmt;
use std::time::Duration;

use bb8_redis::redis::{Pipeline, Value};

pub(crate) use self::access::Access;
pub(crate) use self::address::{Address, bad_url};
use self::answers::{lacks_type, store_error, unexpected};
pub use self::builder::RedisStoreBuilder;
pub use self::credentials::RedisCredentials;
#[cfg(feature = "seal")]
pub use self::keys::RedisKeys;
use self::links::Links;
use self::scripts::hash_key;
use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision, TokenStore, raise,
};
use crate::error::{ConfigError, StoreError, StoreErrorKind};

/// A store in Redis or Valkey (tested with Redis 6.2, 7.0 and 8.0, Valkey 9.1): one hash per partition, under
/// `namespace:{digest}`, and one script per commit.
///
/// A few multiplexed connections serve everybody. One that breaks or does not answer in time is
/// replaced, and what was on its way over one that is cut goes out again over another, within the
/// [response timeout](RedisStoreBuilder::response_timeout): all of it can be repeated. Scripts are
/// loaded again where the server has lost them. Clones share the connections.
///
/// | URL | names |
/// |---|---|
/// | `redis://[user:password@]host[:port][/database]` | a server |
/// | `unix:///path[?db=N&user=U&pass=P]` | a server on this machine |
/// | `redis+sentinel://[user:password@]host[:port],…/service[/database]` | the master of a service, by its sentinels (feature `redis-sentinel`) |
/// | `redis+cluster://[user:password@]host[:port],…` | a cluster, by some of its nodes (feature `redis-cluster`) |
///
/// User and password are encoded as in any URL: a `/`, `?`, `#`, `%` or `@` within them is written
/// as `%2F`, `%3F`, `%23`, `%25` or `%40`. Options and fragments other than those of the table are
/// errors. Why a server cannot be connected to is the source of the [`StoreError`], and one line of
/// the log at WARN when it changes.
///
/// With `rediss` for `redis` the connections are encrypted, those to sentinels and all nodes
/// included (feature `redis-tls`). The servers' certificates must hold the names by which they are
/// reached, which in a cluster and behind sentinels are those that the servers announce.
///
/// # What the servers must keep
///
/// Set `maxmemory-policy` to `noeviction`, the default of Redis. A server that evicts keys ends
/// sessions early, and with the mark of a sign-out it evicts what keeps a signed-out session from
/// coming back. A server that may is one WARN, once the first connection is made; where `INFO` is not
/// allowed, nothing is known. A full server that does not evict refuses writes, which wait and are
/// tried again, and answers reads.
///
/// # Rights
///
/// The least that an ACL user needs, where the [namespace](crate::Builder::namespace) is `ttc`:
///
/// | for | rights |
/// |---|---|
/// | the store | `~ttc:* +hgetall +time +evalsha +eval +hget +hset +hdel +del +get +set +pttl +pexpire +pexpireat +persist` |
/// | connections | `+ping`, and `+select` for a database other than 0 |
/// | a cluster | `+cluster\|slots +asking` |
/// | masters behind sentinels | `+role`, so that one that is none any more is noticed |
/// | sentinels | `+sentinel\|get-master-addr-by-name` |
/// | a [key repository](Self::keys) | `~ttc:keys +hgetall +hsetnx` |
/// | to be told what changes | `+client\|tracking`; `+role` and `+info`, without which a server that has been replaced, and says that it is a master, may go unnoticed |
/// | to be warned of eviction | `+info` |
/// | a [mover](super::MigratingStore::mover) from it | `+scan` |
///
/// A user may have two passwords while a new one is rolled out: `ACL SETUSER tokens >new`, and `<old` once no
/// instance has the old one. The URL is read once, when the store is built; credentials that change are
/// [asked for](RedisStoreBuilder::credentials).
///
/// A right that is missing is a [`Refused`](StoreErrorKind::Refused) whose source is what the server
/// says.
///
/// # Failover
///
/// Redis replicates after it has answered: what it has acknowledged just before a failover, a
/// sign-out included, may be missing after it.
///
/// In a cluster a [move](TokenStore::relocate) takes three steps, because the two partitions may
/// be kept by two nodes: it is checked, the old partition is signed out, and the new one is
/// written. Whoever fails in between has ended the old session; the move can be repeated until it
/// is done.
#[derive(Clone)]
pub struct RedisStore {
    links: Links,
}

impl RedisStore {
    /// A store on the servers of this URL. They need not be up: connections are made, and made
    /// again, as they are needed. [`RedisStoreBuilder::connect`] fails where they are not.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used, or not without another feature of this
    /// crate.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// A store with other settings than the defaults.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url.into())
    }
}

impl TokenStore for RedisStore {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        let loaded = self.load_group(group).await;
        loaded.unwrap_or_else(|error| vec![Err(error); group.len()])
    }

    fn server(&self, partition: &PartitionId) -> usize {
        self.links.server(partition)
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        let mut pipeline = Pipeline::with_capacity(group.len());
        for id in group {
            pipeline.cmd("HGET").arg(hash_key(id)).arg(record::HEAD);
        }
        let revision = |answer| match answer {
            Ok(head) => record::revision(&head).ok_or_else(unexpected),
            // Something that is no hash stands in the partition's place.
            Err(error) if lacks_type(&error) => Ok(Revision::default()),
            Err(error) => Err(store_error(error)),
        };
        match self.send(&pipeline).await {
            Ok(answers) => answers.into_iter().map(revision).collect(),
            Err(error) => vec![Err(error); group.len()],
        }
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let outcome = |answer| record::outcome(answer).ok_or_else(unexpected);
        match self
            .run(&scripts::COMMIT, group.iter().map(scripts::commit))
            .await
        {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.and_then(outcome))
                .collect(),
            Err(error) => vec![Err(error); group.len()],
        }
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        let remaining = |answer| record::touched(answer).ok_or_else(unexpected);
        match self
            .run(&scripts::TOUCH, group.iter().map(scripts::touch))
            .await
        {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.and_then(remaining))
                .collect(),
            Err(error) => vec![Err(error); group.len()],
        }
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let command = scripts::clear(partition, expected, id);
        let answer = self.run_one(&scripts::CLEAR, command).await?;
        record::cleared(answer).ok_or_else(unexpected)
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        if raise.number() >= raise::LIMIT {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        let command = scripts::raise(partition, raise, keep);
        let answer = self.run_one(&scripts::RAISE, command).await?;
        record::raised(&answer).ok_or_else(unexpected)
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        feed::feed(self.links.access(), namespace)
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        if self.links.is_cluster() {
            return self.relocate_in_steps(from, commit).await;
        }
        let command = scripts::relocate(from, commit);
        let answer = self.run_one(&scripts::RELOCATE, command).await?;
        record::outcome(answer).ok_or_else(unexpected)
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        let command = scripts::acquire(lease, ttl);
        let answer = self.run_one(&scripts::ACQUIRE, command).await?;
        record::lease(answer).ok_or_else(unexpected)
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let command = scripts::renew(lease, ttl);
        Ok(self.run_one(&scripts::RENEW, command).await? == Value::Int(1))
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let command = scripts::release(lease);
        Ok(self.run_one(&scripts::RELEASE, command).await? == Value::Int(1))
    }

    fn identity(&self) -> u64 {
        self.links.identity()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}
