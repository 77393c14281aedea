//! Sets up a `SqlStore`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::dialect::Dialect;
use super::handle::SqlStore;
use super::tables::Tables;
use crate::error::{ConfigError, StoreError, StoreErrorKind};
use crate::panics::caught;
use crate::secret::Secret;
use crate::time::setting;

/// Between two attempts of [`SqlStoreBuilder::connect`].
const PAUSE: Duration = Duration::from_millis(50);

/// How long a password source may take is the [response timeout](SqlStoreBuilder::response_timeout).
pub(super) type Credentials =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Secret, StoreError>> + Send>> + Send + Sync>;

/// What a dialect is made of.
pub(super) struct Settings {
    pub(super) url: String,
    pub(super) tables: Tables,
    pub(super) connections: usize,
    pub(super) credentials: Option<Credentials>,
}

/// Sets up a [`SqlStore`].
#[must_use = "there is no store until `build`"]
pub struct SqlStoreBuilder<D> {
    settings: Settings,
    response_timeout: Duration,
    open: fn(Settings) -> Result<D, ConfigError>,
}

impl<D> SqlStoreBuilder<D> {
    pub(super) fn new(url: String, open: fn(Settings) -> Result<D, ConfigError>) -> Self {
        Self {
            settings: Settings {
                url,
                tables: Tables::default(),
                connections: 8,
                credentials: None,
            },
            response_timeout: Duration::from_secs(1),
            open,
        }
    }

    /// The schema (in MySQL and MariaDB the database) that the tables are in. It must exist. Defaults to the one that
    /// the connection finds first. Lower-case letters, digits and `_`, at most 32.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.settings.tables.set_schema(schema.into());
        self
    }

    /// What the names of the tables begin with: two applications in one schema have two prefixes, or share all
    /// records. Lower-case letters, digits and `_`, at most 32. Defaults to `token_cache_`.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.tables.set_prefix(prefix.into());
        self
    }

    /// How many connections an instance has at most, besides one for the feed of each cache. Defaults to 8: a server
    /// takes 100 (PostgreSQL) or 151 (MySQL, MariaDB) of all its clients.
    pub fn connections(mut self, max: usize) -> Self {
        self.settings.connections = max;
        self
    }

    /// How long to wait for a free connection, for a new one, and for an answer. A connection that has not answered by
    /// then is closed, and the server gives up the statement. Defaults to 1 s, the default of
    /// [`Timeouts::operation`](crate::Timeouts::operation): the cache stops waiting earlier, with each attempt, and
    /// closes the connection, too. A connection that is being made goes on, and is there for the next operation.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = setting(timeout);
        self
    }

    /// Where the password comes from, instead of from the URL: it is asked for with each new connection, within the
    /// [response timeout](Self::response_timeout), so that it
    /// can change, as tokens of a cloud's IAM do. Connections live half an hour at most. An error or a panic is that of the
    /// operation that needs the connection.
    ///
    /// ```
    /// use tower_token_cache::{Secret, StoreError};
    /// # #[cfg(feature = "postgres")]
    /// # fn builder() -> tower_token_cache::SqlStoreBuilder<tower_token_cache::Postgres> {
    /// use tower_token_cache::PostgresStore;
    ///
    /// async fn iam_token() -> Result<Secret, StoreError> {
    ///     // … asks the cloud
    /// #   Ok(Secret::from("token".to_string()))
    /// }
    ///
    /// PostgresStore::builder("postgres://tokens@db.example.com/app?sslmode=verify-full").credentials(iam_token)
    /// # }
    /// ```
    pub fn credentials<F, R>(mut self, password: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Secret, StoreError>> + Send + 'static,
    {
        self.settings.credentials = Some(Arc::new(move || Box::pin(password())));
        self
    }
}

impl<D: Dialect> SqlStoreBuilder<D> {
    /// The store. It connects when it is first used, on the runtime that uses it; [`connect`](Self::connect) waits
    /// for that.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be read, or has an unknown option; names that are not as described;
    /// no connections at all, or a timeout of zero.
    pub fn build(self) -> Result<SqlStore<D>, ConfigError> {
        if self.response_timeout.is_zero() {
            return Err(ConfigError::new("response_timeout", "must be above 0"));
        }
        if self.settings.connections == 0 {
            return Err(ConfigError::new("connections", "must be above 0"));
        }
        self.settings.tables.validate()?;
        let dialect = (self.open)(self.settings)?;
        Ok(SqlStore {
            dialect: Arc::new(dialect),
            response_timeout: self.response_timeout,
            acquired: Arc::default(),
            released: Arc::default(),
            sweep: Arc::default(),
            fails: Arc::default(),
        })
    }

    /// The store, once its database has given a good answer and has the tables; waits so long for that.
    ///
    /// # Errors
    /// As for [`build`](Self::build). [`ConfigError`] of `url` when there was no good answer; its sources say why: no
    /// such host, a password that is wrong, tables that are missing or of another version. A database that refuses is
    /// not asked again.
    pub async fn connect(self, patience: Duration) -> Result<SqlStore<D>, ConfigError> {
        let store = self.build()?;
        let deadline = Instant::now() + setting(patience);
        // The cache will use the store on a runtime of its own: this connection ends here.
        while let Err(error) = store.connect().await {
            let refused = error.kind() == StoreErrorKind::Refused;
            if refused || Instant::now() + PAUSE > deadline {
                let reason = "no database that it names has given a good answer";
                return Err(ConfigError::new("url", reason).with_source(error));
            }
            sleep(PAUSE).await;
        }
        Ok(store)
    }
}

/// Shows neither the URL nor a password.
impl<D> fmt::Debug for SqlStoreBuilder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStoreBuilder")
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}

/// The password of now; `None` is that of the URL.
pub(super) async fn password(credentials: Option<&Credentials>) -> sqlx::Result<Option<Secret>> {
    match credentials {
        Some(ask) => {
            let panicked = |panicked| {
                Err(StoreError::with_source(
                    StoreErrorKind::Unreachable,
                    panicked,
                ))
            };
            let asked = caught(|| ask()).await.unwrap_or_else(panicked);
            let failed = |error| sqlx::Error::Configuration(Box::new(error));
            asked.map(Some).map_err(failed)
        }
        None => Ok(None),
    }
}
