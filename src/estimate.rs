//! `Estimate`: how much memory and disk so many users need.

/// Bytes of an access token.
const ACCESS_TOKEN: u64 = 4096;
/// Bytes of a refresh token, and of an id token.
const OTHER_TOKEN: u64 = 2048;
/// Bytes of an application's own access token.
const APP_TOKEN: u64 = 3072;

/// How much memory and disk a number of users or tenants needs, in bytes. For planning: 15 % more or less than is
/// measured, as `tests/stores/sizes.rs` does.
///
/// Taken for a user are an access token of 4 KiB for each resource, a refresh token of 2 KiB and an id token of 2 KiB; for a
/// tenant of an application that acts for itself, a token of 3 KiB for each resource. Opaque tokens are much smaller, and
/// tokens with many groups or roles are larger: multiply.
///
/// | 10,000 users with | tokens | `l1` | `redis` | `postgres` | `mysql` | `sqlite` | `memcached` |
/// |---|---|---|---|---|---|---|---|
/// | 1 resource | 82 MB | 96 MB | 107 MB | 121 MB | 223 MB | 125 MB | 86 MB |
/// | 3 resources | 164 MB | 184 MB | 208 MB | 236 MB | 385 MB | 207 MB | 170 MB |
///
/// Not counted is what a store needs to work: the append-only file of Redis (up to three times the data until it is
/// rewritten, and in the worst case as much memory again while it is), the write-ahead logs of SQL databases, rows of PostgreSQL
/// that were replaced and wait for `VACUUM` (three times the data after two changes of each user), replicas.
/// Signed-out sessions take some 400 bytes for a day.
///
/// ```
/// use tower_token_cache::Estimate;
///
/// let estimate = Estimate::users(100_000, 2);
/// println!("maxmemory {} MiB", estimate.redis * 3 / 2 >> 20);
/// assert!(estimate.redis > estimate.tokens);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// The tokens alone.
    pub tokens: u64,
    /// Memory of each instance that has all of them in L1: see [`L1::max_bytes`](crate::L1::max_bytes). One that has
    /// less keeps those who come.
    pub l1: u64,
    /// Memory of Redis, or of all masters of a cluster together.
    pub redis: u64,
    /// Tables and indexes of a `PostgresStore`, of users who have signed in and not yet changed. A page has room for
    /// three parts of values, of 2 KB each, and for little else.
    pub postgres: u64,
    /// Tables and indexes of a `MySqlStore`, with InnoDB's pages of 16 KiB. Users come in no order, so that the pages
    /// are half full.
    pub mysql: u64,
    /// The file of a `SqliteStore`: a page of 4 KiB for each token.
    pub sqlite: u64,
    /// Items of Memcached. Its slabs take up to a quarter more.
    pub memcached: u64,
}

impl Estimate {
    /// Users who are signed in, with tokens for so many resources each.
    pub const fn users(users: u64, resources: u64) -> Self {
        let tokens = ACCESS_TOKEN
            .saturating_mul(resources)
            .saturating_add(2 * OTHER_TOKEN);
        Self::of(users, resources.saturating_add(2), tokens)
    }

    /// Tenants for which an application acts for itself, with tokens for so many resources each.
    pub const fn apps(tenants: u64, resources: u64) -> Self {
        Self::of(tenants, resources, APP_TOKEN.saturating_mul(resources))
    }

    /// So many partitions of so many entries and bytes.
    const fn of(partitions: u64, entries: u64, tokens: u64) -> Self {
        /// Bytes of a partition, of an entry, and percent of the tokens: as measured.
        const fn size(entries: u64, tokens: u64, [own, each, percent]: [u64; 3]) -> u64 {
            let tokens = (tokens / 100).saturating_mul(percent);
            own.saturating_add(each.saturating_mul(entries))
                .saturating_add(tokens)
        }
        Self {
            tokens: partitions.saturating_mul(tokens),
            l1: partitions.saturating_mul(size(entries, tokens, [600, 300, 100])),
            redis: partitions.saturating_mul(size(entries, tokens, [500, 150, 120])),
            postgres: partitions.saturating_mul(size(entries, tokens, [400, 300, 133])),
            mysql: partitions.saturating_mul(size(entries, tokens, [6000, 300, 190])),
            sqlite: partitions.saturating_mul(size(entries, tokens, [250, 4096, 0])),
            memcached: partitions.saturating_mul(size(entries, tokens, [250, 80, 100])),
        }
    }
}
