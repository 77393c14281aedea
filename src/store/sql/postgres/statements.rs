//! The statements, with the names of the tables in them.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;

use crate::store::found::Depth;
use crate::store::sql::dialect::{PAGE, VERSION};
use crate::store::sql::tables::Tables;

/// Milliseconds since the epoch, by the server's clock.
const NOW: &str = "(SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint)";

/// How many rows of each table a sweep frees at once, so that none takes long.
const BATCH: u32 = 500;

/// Values do not shrink: they are sealed, or tokens, which are random.
const TABLES: [&str; 13] = [
    "CREATE TABLE IF NOT EXISTS {schema} (version bigint PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS {partitions} (
    id bytea PRIMARY KEY,
    stamp bigint NOT NULL,
    generation bigint NOT NULL,
    version bigint NOT NULL,
    created_at bigint NOT NULL,
    cleared_at bigint,
    hard_end bigint,
    sliding bigint,
    idle_end bigint,
    last_expiry bigint,
    recent bytea NOT NULL,
    purge_hour bigint
) WITH (fillfactor = 80)",
    "CREATE INDEX IF NOT EXISTS {prefix}partitions_purge ON {partitions} (purge_hour) WHERE purge_hour IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS {entries} (
    partition_id bytea NOT NULL REFERENCES {partitions} (id) ON DELETE CASCADE,
    entry_id bytea NOT NULL,
    version bigint NOT NULL,
    expires_at bigint,
    purge_hour bigint,
    value bytea NOT NULL,
    PRIMARY KEY (partition_id, entry_id)
) WITH (fillfactor = 80)",
    "CREATE INDEX IF NOT EXISTS {prefix}entries_purge ON {entries} (purge_hour) WHERE purge_hour IS NOT NULL",
    "ALTER TABLE {entries} ALTER COLUMN value SET STORAGE EXTERNAL",
    "CREATE TABLE IF NOT EXISTS {leases} (
    partition_id bytea NOT NULL,
    entry_id bytea NOT NULL,
    owner bytea NOT NULL,
    ends_at bigint NOT NULL,
    PRIMARY KEY (partition_id, entry_id)
) WITH (fillfactor = 80)",
    "CREATE TABLE IF NOT EXISTS {keys} (
    namespace text NOT NULL,
    name text NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (namespace, name)
)",
    TELL,
    "CREATE OR REPLACE TRIGGER {prefix}tell_insert AFTER INSERT ON {partitions}
    REFERENCING NEW TABLE AS later FOR EACH STATEMENT EXECUTE FUNCTION {tell}('{prefix}changes')",
    "CREATE OR REPLACE TRIGGER {prefix}tell_update AFTER UPDATE ON {partitions}
    REFERENCING OLD TABLE AS earlier NEW TABLE AS later FOR EACH STATEMENT EXECUTE FUNCTION {tell}('{prefix}changes')",
    "CREATE OR REPLACE TRIGGER {prefix}tell_delete AFTER DELETE ON {partitions}
    REFERENCING OLD TABLE AS earlier FOR EACH STATEMENT EXECUTE FUNCTION {tell}('{prefix}changes')",
    "CREATE OR REPLACE TRIGGER {prefix}tell_truncate AFTER TRUNCATE ON {partitions}
    FOR EACH STATEMENT EXECUTE FUNCTION {tell}('{prefix}changes')",
];

/// The triggers that tell, as long as they do: in their order. A table that is made anew has others.
const TELLERS: &str = "ARRAY(SELECT oid::bigint FROM pg_trigger WHERE tgrelid = to_regclass('{partitions}') \
    AND tgname IN ('{prefix}tell_insert', '{prefix}tell_update', '{prefix}tell_delete', '{prefix}tell_truncate') \
    AND tgenabled IN ('O', 'A') ORDER BY tgname)";

/// How many there have to be.
pub(super) const TELLING: usize = 4;

/// Whether all tables are there, and all that tell.
const MADE: &str = "SELECT (SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest(ARRAY['{schema}', '{partitions}', \
    '{entries}', '{leases}', '{keys}']) AS name) AND cardinality({tellers}) = {telling}";

/// Tells which partitions have changed, whoever has changed them; a touch is no change. Another life can have the
/// numbers of the one before, and never its ids. 170 names of 44 characters fit into a payload of 8,000 bytes.
const TELL: &str = "CREATE OR REPLACE FUNCTION {tell}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids bytea[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify(TG_ARGV[0], '*');
        RETURN NULL;
    ELSIF TG_OP = 'INSERT' THEN
        ids := ARRAY(SELECT id FROM later);
    ELSIF TG_OP = 'DELETE' THEN
        ids := ARRAY(SELECT id FROM earlier);
    ELSE
        ids := ARRAY(SELECT l.id FROM later l LEFT JOIN earlier e ON e.id = l.id
            AND e.generation = l.generation AND e.version = l.version AND e.recent = l.recent WHERE e.id IS NULL);
    END IF;
    IF cardinality(ids) > 10000 THEN
        PERFORM pg_notify(TG_ARGV[0], '*');
    ELSE
        PERFORM pg_notify(TG_ARGV[0], string_agg(encode(id, 'base64'), ' '))
            FROM unnest(ids) WITH ORDINALITY AS changed(id, place) GROUP BY (place - 1) / 170;
    END IF;
    RETURN NULL;
END
$$";

const RECORD: &str = "p.id, p.stamp, p.generation, p.version, p.created_at, p.cleared_at, \
    p.hard_end, p.sliding, p.idle_end, p.last_expiry, p.recent";

/// Each partition is there if its stamp is the one that was read. The rows are locked in the order of their ids, and
/// looked at again where that had to wait. All parts of a statement see the tables as they were before it: an entry is
/// either removed or put.
const WRITE: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[], $13::bigint[])
        WITH ORDINALITY AS i(id, replaces, stamp, generation, version, created_at, cleared_at, hard_end, sliding,
        idle_end, last_expiry, recent, purge_hour, place)
    WHERE {now} <= $14
), held AS MATERIALIZED (
    SELECT p.id FROM {partitions} p JOIN input i ON p.id = i.id AND p.stamp = i.replaces ORDER BY p.id FOR UPDATE OF p
), due AS MATERIALIZED (
    SELECT i.* FROM input i LEFT JOIN held h ON h.id = i.id
    WHERE (h.id IS NOT NULL OR i.replaces IS NULL)
    AND (NOT $15 OR (SELECT count(*) FROM held) = (SELECT count(replaces) FROM input))
), changed AS (
    UPDATE {partitions} p SET stamp = i.stamp, generation = i.generation, version = i.version,
        created_at = i.created_at, cleared_at = i.cleared_at, hard_end = i.hard_end, sliding = i.sliding,
        idle_end = i.idle_end, last_expiry = i.last_expiry, recent = i.recent, purge_hour = i.purge_hour
    FROM due i WHERE p.id = i.id AND p.stamp = i.replaces
    RETURNING i.place
), begun AS (
    INSERT INTO {partitions} (id, stamp, generation, version, created_at, cleared_at, hard_end, sliding, idle_end,
        last_expiry, recent, purge_hour)
    SELECT id, stamp, generation, version, created_at, cleared_at, hard_end, sliding, idle_end, last_expiry, recent,
        purge_hour FROM due WHERE replaces IS NULL ORDER BY id
), removed AS (
    DELETE FROM {entries} e USING due i, unnest($16::bigint[], $17::bytea[]) d(place, entry_id)
    WHERE i.place = d.place AND e.partition_id = i.id AND e.entry_id = d.entry_id
), put AS (
    INSERT INTO {entries} (partition_id, entry_id, version, expires_at, purge_hour, value)
    SELECT i.id, v.entry_id, v.version, v.expires_at, v.purge_hour, v.value
    FROM unnest($18::bigint[], $19::bytea[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bytea[])
        v(place, entry_id, version, expires_at, purge_hour, value) JOIN due i ON i.place = v.place
    ON CONFLICT (partition_id, entry_id) DO UPDATE SET version = excluded.version, expires_at = excluded.expires_at,
        purge_hour = excluded.purge_hour, value = excluded.value
)
SELECT place FROM due";

/// In the order of the leases, in which others take theirs.
const ACQUIRE: &str = "
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[]) AS a(partition_id, entry_id, owner, ttl)
), taken AS (
    INSERT INTO {leases} AS l (partition_id, entry_id, owner, ends_at)
    SELECT partition_id, entry_id, owner, {now} + ttl FROM asked ORDER BY partition_id, entry_id
    ON CONFLICT (partition_id, entry_id) DO UPDATE SET owner = excluded.owner, ends_at = excluded.ends_at
    WHERE l.owner = excluded.owner OR l.ends_at <= {now}
    RETURNING l.partition_id, l.entry_id
)
SELECT partition_id, entry_id, NULL::bigint AS remaining FROM taken
UNION ALL SELECT l.partition_id, l.entry_id, greatest(l.ends_at - {now}, 0)
FROM asked a JOIN {leases} l ON l.partition_id = a.partition_id AND l.entry_id = a.entry_id
WHERE NOT EXISTS (SELECT FROM taken t WHERE t.partition_id = a.partition_id AND t.entry_id = a.entry_id)";

const RENEW: &str = "UPDATE {leases} SET ends_at = {now} + $4 \
    WHERE partition_id = $1 AND entry_id = $2 AND owner = $3 AND ends_at > {now}";

const RELEASE: &str = "DELETE FROM {leases} l \
    USING unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS a(partition_id, entry_id, owner) \
    WHERE l.partition_id = a.partition_id AND l.entry_id = a.entry_id AND l.owner = a.owner AND l.ends_at > {now} \
    RETURNING l.partition_id, l.entry_id";

/// Rows that are in use just then are left to the next sweep.
const PURGE: &str = "
WITH claim AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS mine, {now} AS now),
partitions AS (
    DELETE FROM {partitions} WHERE id = ANY (ARRAY(SELECT p.id FROM {partitions} p, claim
        WHERE mine AND purge_hour <= now / 3600000 LIMIT {batch} FOR UPDATE OF p SKIP LOCKED))
    AND purge_hour <= (SELECT now / 3600000 FROM claim) RETURNING 1
), old_entries AS MATERIALIZED (
    SELECT e.partition_id, e.entry_id FROM {entries} e, claim
    WHERE mine AND e.purge_hour <= now / 3600000 LIMIT {batch} FOR UPDATE OF e SKIP LOCKED
), entries AS (
    DELETE FROM {entries} e USING old_entries o WHERE e.partition_id = o.partition_id AND e.entry_id = o.entry_id
    AND e.purge_hour <= (SELECT now / 3600000 FROM claim) RETURNING 1
), old_leases AS MATERIALIZED (
    SELECT l.partition_id, l.entry_id FROM {leases} l, claim
    WHERE mine AND l.ends_at <= now LIMIT {batch} FOR UPDATE OF l SKIP LOCKED
), leases AS (
    DELETE FROM {leases} l USING old_leases o WHERE l.partition_id = o.partition_id AND l.entry_id = o.entry_id
    AND l.ends_at <= (SELECT now FROM claim) RETURNING 1
)
SELECT greatest((SELECT count(*) FROM partitions), (SELECT count(*) FROM entries), (SELECT count(*) FROM leases)) >= {batch}";

const LIST: &str = "SELECT id FROM {partitions} WHERE id > $1 ORDER BY id LIMIT {page}";

#[cfg(feature = "seal")]
const LIST_KEYS: &str = "SELECT name, content FROM {keys} WHERE namespace = $1 LIMIT $2";

#[cfg(feature = "seal")]
const ADD_KEY: &str =
    "INSERT INTO {keys} (namespace, name, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

pub(super) struct Statements {
    /// Makes the tables.
    pub(super) tables: Vec<String>,
    /// The name of the table that has the version, as `to_regclass` takes it.
    pub(super) schema_table: String,
    /// On which changes are told.
    pub(super) channel: String,
    /// What the channels of proofs begin with.
    pub(super) proofs: String,
    /// The advisory lock of sweeps and migrations.
    pub(super) lock: i64,
    version: Arc<str>,
    made: Arc<str>,
    hear: Arc<str>,
    prove: Arc<str>,
    read: [Arc<str>; 3],
    write: Arc<str>,
    acquire: Arc<str>,
    renew: Arc<str>,
    release: Arc<str>,
    purge: Arc<str>,
    list: Arc<str>,
    #[cfg(feature = "seal")]
    list_keys: Arc<str>,
    #[cfg(feature = "seal")]
    add_key: Arc<str>,
}

impl Statements {
    pub(super) fn new(tables: &Tables) -> Self {
        let fill = |statement: &str| -> String {
            let statement = statement
                .replace("{now}", NOW)
                .replace("{batch}", &BATCH.to_string())
                .replace("{page}", &PAGE.to_string());
            tables.fill(&statement, '"')
        };
        let made = TABLES.iter().map(|statement| fill(statement));
        let version = format!("INSERT INTO {{schema}} VALUES ({VERSION}) ON CONFLICT DO NOTHING");
        let read = |columns: &str, join: &str| -> Arc<str> {
            let query = format!(
                "SELECT {{now}} AS now, {RECORD}{columns} \
                 FROM unnest($1::bytea[]) i(id) LEFT JOIN {{partitions}} p ON p.id = i.id{join}"
            );
            fill(&query).into()
        };
        let entries = " LEFT JOIN {entries} e ON e.partition_id = p.id";
        let head = ", e.entry_id, e.version AS entry_version, e.expires_at";
        let schema_table = fill("{schema}");
        let digest = Sha256::digest(schema_table.as_bytes());
        let lock = digest
            .first_chunk()
            .map_or(0, |bytes| i64::from_be_bytes(*bytes));
        Self {
            tables: made.chain([fill(&version)]).collect(),
            channel: tables.plain("changes"),
            proofs: tables.plain("proof_"),
            lock,
            made: fill(
                &MADE
                    .replace("{tellers}", TELLERS)
                    .replace("{telling}", &TELLING.to_string()),
            )
            .into(),
            // A proof need not be on disk. A process that stands still must not fill the server's queue for ever.
            hear: fill(&format!(
                "SELECT {TELLERS} FROM (SELECT set_config('synchronous_commit', 'off', false), \
                 set_config('tcp_user_timeout', '60000', false)) AS settings"
            ))
            .into(),
            prove: fill(&format!(
                "SELECT {TELLERS} FROM (SELECT pg_notify($1, $2)) AS said"
            ))
            .into(),
            version: fill("SELECT version FROM {schema} ORDER BY version DESC LIMIT 1").into(),
            read: [
                read("", ""),
                read(head, entries),
                read(&format!("{head}, e.value"), entries),
            ],
            write: fill(WRITE).into(),
            acquire: fill(ACQUIRE).into(),
            renew: fill(RENEW).into(),
            release: fill(RELEASE).into(),
            purge: fill(PURGE).into(),
            list: fill(LIST).into(),
            #[cfg(feature = "seal")]
            list_keys: fill(LIST_KEYS).into(),
            #[cfg(feature = "seal")]
            add_key: fill(ADD_KEY).into(),
            schema_table,
        }
    }

    /// Settings of the session, whether it is a standby, whether triggers work in it, whether there are tables, and which
    /// server it is: since when it runs.
    ///
    /// The plan of a prepared statement is made for the tables as they are then. In the first minute they are small, and
    /// read whole; that plan would stay while they grow, until the server has counted their rows. Without such plans a sweep,
    /// which reads all leases, seems so dear that the server would compile it first: that takes longer than a second.
    pub(super) fn prepare(&self) -> &'static str {
        "SELECT pg_is_in_recovery(), current_setting('session_replication_role') = 'replica', \
         to_regclass($2) IS NOT NULL, \
         (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint \
         FROM (SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $1, false), \
         set_config('default_transaction_isolation', 'read committed', false), \
         set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false)) AS settings"
    }

    pub(super) fn version(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.version.clone())
    }

    /// Whether there is all that is made, of whatever version.
    pub(super) fn made(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.made.clone())
    }

    /// Settings of a connection that listens, and the triggers that tell.
    pub(super) fn hear(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.hear.clone())
    }

    /// Says something on a channel, and which triggers tell.
    pub(super) fn prove(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.prove.clone())
    }

    pub(super) fn read(&self, depth: Depth) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.read[depth as usize].clone())
    }

    pub(super) fn write(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.write.clone())
    }

    pub(super) fn acquire(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.acquire.clone())
    }

    pub(super) fn renew(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.renew.clone())
    }

    pub(super) fn release(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.release.clone())
    }

    pub(super) fn purge(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.purge.clone())
    }

    pub(super) fn list(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.list.clone())
    }

    #[cfg(feature = "seal")]
    pub(super) fn list_keys(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.list_keys.clone())
    }

    #[cfg(feature = "seal")]
    pub(super) fn add_key(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.add_key.clone())
    }
}
