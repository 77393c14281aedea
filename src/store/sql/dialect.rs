//! `Dialect`: what differs between servers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::Connection;

use super::failure::{Verdict, unfit};
use super::handle::SqlStore;
use super::leases::{Acquire, Key, Release};
use super::plan::Plan;
#[cfg(feature = "seal")]
use crate::seal::KeyRecord;
use crate::store::found::{Depth, Found};
use crate::store::pool::Pool;
use crate::store::{Feed, Lease, LeaseState, PartitionId};
use crate::time::Timestamp;

/// The version of the tables that this version of the crate works with, and of what tells their changes: tables of this
/// version are left as they are.
pub(super) const VERSION: i64 = 2;

/// Partitions on a page of a listing.
pub(super) const PAGE: usize = 500;

/// Whether tables of this version are those that are needed; `None` where there are none.
pub(super) fn check_version(found: Option<i64>) -> sqlx::Result<()> {
    Err(unfit(match found {
        Some(VERSION) => return Ok(()),
        Some(found @ ..VERSION) => format!(
            "the tables are of version {found}, and {VERSION} is needed: call `migrate`, or have its `statements` run"
        ),
        Some(found) => format!(
            "the tables are of version {found}, and not {VERSION}: a later version of tower-token-cache has made them"
        ),
        None => {
            "there are no tables of that name: call `migrate`, or have its `statements` run".into()
        }
    }))
}

/// Statements and quirks. Each method is a constant number of round-trips, whatever it is about. Times are the
/// server's.
pub trait Dialect: Send + Sync + Sized + 'static {
    type Connection: Connection + Send;

    fn pool(&self) -> &Pool<Self::Connection>;

    /// Makes the tables and their version, also over those of an earlier version. What is there stays.
    fn statements(&self) -> Vec<String>;

    /// A connection that has nothing set up.
    fn connect(&self) -> impl Future<Output = sqlx::Result<Self::Connection>> + Send;

    /// Settles what a connection needs, and looks at where it leads to.
    fn prepare(
        &self,
        connection: &mut Self::Connection,
        timeout: Duration,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Runs [`statements`](Self::statements), one instance at a time.
    fn migrate(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Reads partitions, all as of one moment, which is told; in the order of the ids.
    fn read(
        &self,
        connection: &mut Self::Connection,
        ids: &[&PartitionId],
        depth: Depth,
    ) -> impl Future<Output = sqlx::Result<(Timestamp, Vec<Found>)>> + Send;

    /// Carries a plan out, in one transaction; the partitions of which it was, by their places in the plan. The
    /// others were changed since they were read.
    fn write(
        &self,
        connection: &mut Self::Connection,
        plan: &Plan,
    ) -> impl Future<Output = sqlx::Result<Vec<usize>>> + Send;

    /// One that is taken or given back at that moment may be missing.
    fn acquire_leases(
        &self,
        connection: &mut Self::Connection,
        group: &[Acquire],
    ) -> impl Future<Output = sqlx::Result<HashMap<Key, LeaseState>>> + Send;

    /// Whether it was still this owner's.
    fn renew_lease(
        &self,
        connection: &mut Self::Connection,
        lease: &Lease,
        ttl: Duration,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Those that were still their owners'.
    fn release_leases(
        &self,
        connection: &mut Self::Connection,
        group: &[Release],
    ) -> impl Future<Output = sqlx::Result<HashSet<Key>>> + Send;

    /// The ids of the partitions after this one, in their order: at most [`PAGE`].
    fn list(
        &self,
        connection: &mut Self::Connection,
        after: &[u8],
    ) -> impl Future<Output = sqlx::Result<Vec<Vec<u8>>>> + Send;

    /// The records of a key ring.
    #[cfg(feature = "seal")]
    fn list_keys(
        &self,
        connection: &mut Self::Connection,
        namespace: &str,
    ) -> impl Future<Output = sqlx::Result<Vec<KeyRecord>>> + Send;

    /// Adds a record to a key ring; whether there was none of its name.
    #[cfg(feature = "seal")]
    fn add_key(
        &self,
        connection: &mut Self::Connection,
        namespace: &str,
        record: &KeyRecord,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Frees some of what is over, unless another instance is at it; whether there may be more.
    fn purge(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// What an error of the server means.
    fn verdict(error: &dyn sqlx::error::DatabaseError) -> Verdict;

    /// The change feed.
    fn feed(store: SqlStore<Self>) -> Feed;

    /// What tells this database from others.
    fn identity(&self) -> u64;
}
