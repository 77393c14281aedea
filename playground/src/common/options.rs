//! The command line.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tower_token_cache::seal::KeyRingError;
use tower_token_cache::{
    Acquisitions, Builder, ConfigError, CookieStore, FailurePolicy, KeyRing, L1, Lifetimes,
    MemcachedStore, MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore, StoreError,
    TokenCache, TokenCacheLayer, WriteMode,
};
use url::Url;

use super::{Provider, Site, session, with_choices};

const USAGE: &str = "\
  --listen ADDR            where to listen; port 0 takes a free one [127.0.0.1:3000]
  --store STORE            memory, sqlite:PATH, cookie or a URL [memory]: redis://HOST, rediss://HOST,
                           unix:///PATH, redis+cluster://HOST,..., redis+sentinel://HOST,.../NAME;
                           postgres://HOST/DATABASE or mysql://HOST/DATABASE, where it makes its tables;
                           memcached://HOST
  --l1-max-bytes N         memory for L1 [524288000]
  --no-l1                  ask the store every time
  --failure-policy POLICY  degrade, strict or bypass [degrade]
  --write-mode MODE        after or before the response [after]
  --absolute SECS          lifetime since the last change [1209600]
  --sliding SECS           lifetime since the last use [off]
  --prefix NAME            namespace in the store [ttc]
  --encrypt DIR            seals what is stored, with the keys in this folder [off]
  --encrypt-env [VAR]      the same, with the keys in this environment variable [TTC_KEYS]
  --issuer [CLIENT=]URL    OpenID provider for /acquire, of the default client or of this one [none]
  --client-id ID           this application's id at the provider
  --client-secret SECRET   this application's secret at the provider
  --lease SECS             how long one process may keep others from the provider [30]";

pub(crate) struct Options {
    pub(crate) listen: String,
    store: String,
    l1: L1,
    failure_policy: FailurePolicy,
    write_mode: WriteMode,
    absolute: Option<Duration>,
    sliding: Option<Duration>,
    prefix: Option<String>,
    key_ring: Option<KeyRing>,
    /// By client; that of the default client has an empty name.
    issuers: Vec<(String, Url)>,
    client_id: Option<String>,
    client_secret: Option<String>,
    lease: Option<Duration>,
}

/// What is wrong with the options: names one, and never repeats a URL, which may hold a password.
type Complaint = String;

impl Options {
    /// The options of this process, which ends with code 2 when they are wrong. Logs go to stderr.
    pub(crate) fn from_args() -> Self {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .init();
        Self::parse(std::env::args().skip(1)).unwrap_or_else(|complaint| complain(&complaint))
    }

    fn parse(args: impl Iterator<Item = String>) -> Result<Self, Complaint> {
        let mut args = args.peekable();
        let mut options = Self {
            listen: "127.0.0.1:3000".into(),
            store: "memory".into(),
            l1: L1::new(),
            failure_policy: FailurePolicy::default(),
            write_mode: WriteMode::default(),
            absolute: None,
            sliding: None,
            prefix: None,
            key_ring: None,
            issuers: Vec::new(),
            client_id: None,
            client_secret: None,
            lease: None,
        };
        while let Some(arg) = args.next() {
            let (name, mut given) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let mut value = || {
                let value = given.take().or_else(|| args.next());
                value.ok_or_else(|| format!("{name}: needs a value"))
            };
            match name {
                "--listen" => options.listen = value()?,
                "--store" => options.store = value()?,
                "--l1-max-bytes" => options.l1 = options.l1.max_bytes(number(name, &value()?)?),
                "--no-l1" if arg == name => options.l1 = L1::disabled(),
                "--failure-policy" => {
                    options.failure_policy = failure_policy(&value()?)
                        .ok_or_else(|| format!("{name}: must be degrade, strict or bypass"))?;
                }
                "--write-mode" => {
                    options.write_mode = write_mode(&value()?)
                        .ok_or_else(|| format!("{name}: must be after or before"))?;
                }
                "--absolute" => options.absolute = Some(seconds(name, &value()?)?),
                "--sliding" => options.sliding = Some(seconds(name, &value()?)?),
                "--prefix" => options.prefix = Some(value()?),
                "--encrypt" => options.key_ring = Some(ring(name, KeyRing::open_dir(value()?))?),
                "--encrypt-env" => {
                    let next = || args.next_if(|arg| !arg.starts_with("--"));
                    let variable = given.take().or_else(next);
                    let keys = KeyRing::from_env(variable.as_deref().unwrap_or("TTC_KEYS"));
                    options.key_ring = Some(ring(name, keys)?);
                }
                "--issuer" => options.issuers.push(issuer(name, &value()?)?),
                "--client-id" => options.client_id = Some(value()?),
                "--client-secret" => options.client_secret = Some(value()?),
                "--lease" => options.lease = Some(seconds(name, &value()?)?),
                "--help" if arg == name => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                _ => return Err(format!("{name}: no such option\n{USAGE}")),
            }
        }
        Ok(options)
    }

    /// The cache and the provider that these options ask for. Ends the process with code 2 when it cannot be had.
    pub(crate) async fn site(&self) -> Site {
        let site = async {
            let providers = Arc::new(self.providers()?);
            let layer = match self.store.as_str() {
                "cookie" => self.cookies()?,
                _ => TokenCacheLayer::new(self.cache().await?, session()),
            };
            Ok(Site {
                cache: layer.cache().clone(),
                layer: with_choices(layer),
                providers,
            })
        };
        site.await
            .unwrap_or_else(|complaint: Complaint| complain(&complaint))
    }

    fn providers(&self) -> Result<HashMap<String, Arc<Provider>>, Complaint> {
        let given = (&*self.issuers, &self.client_id, &self.client_secret);
        let missing = match given {
            ([], None, None) => return Ok(HashMap::new()),
            ([_, ..], Some(id), Some(secret)) => {
                let issuers = self.issuers.iter().cloned();
                let providers = issuers.map(|(client, issuer)| {
                    let provider = Provider::new(issuer, id.clone(), secret.clone());
                    (client, Arc::new(provider))
                });
                return Ok(providers.collect());
            }
            ([], ..) => "--issuer",
            (_, None, _) => "--client-id",
            (_, _, None) => "--client-secret",
        };
        Err(format!("{missing}: the three of a provider go together"))
    }

    async fn cache(&self) -> Result<TokenCache, Complaint> {
        let explain_store = |error: ConfigError| format!("--store: {error}");
        let not_made = |error: StoreError| format!("--store: {error}");
        let builder = match self.store.split_once(':') {
            None if self.store == "memory" => TokenCache::builder(MemoryStore::new()),
            Some(("sqlite", path)) => {
                TokenCache::builder(SqliteStore::open(path).await.map_err(explain_store)?)
            }
            Some(("postgres", _)) => {
                let store = PostgresStore::builder(self.store.as_str()).build();
                let store = store.map_err(explain_store)?;
                store.migrate().await.map_err(not_made)?;
                TokenCache::builder(store)
            }
            Some(("mysql", _)) => {
                let store = MySqlStore::builder(self.store.as_str()).build();
                let store = store.map_err(explain_store)?;
                store.migrate().await.map_err(not_made)?;
                TokenCache::builder(store)
            }
            Some(("memcached", _)) => {
                let store = MemcachedStore::connect(&self.store).await;
                TokenCache::builder(store.map_err(explain_store)?)
            }
            Some(_) if is_redis(&self.store) => TokenCache::builder(
                RedisStore::connect(self.store.as_str())
                    .await
                    .map_err(explain_store)?,
            ),
            _ => {
                return Err(
                    "--store: must be memory, sqlite:PATH, cookie or a URL of Redis, PostgreSQL, MySQL or Memcached".into(),
                );
            }
        };
        let mut builder = self.adjust(builder);
        if let Some(prefix) = &self.prefix {
            builder = builder.namespace(prefix.as_str());
        }
        if let Some(key_ring) = &self.key_ring {
            builder = builder.key_ring(key_ring.clone());
        }
        builder.build().map_err(explain)
    }

    /// Sessions in cookies that plain http carries.
    fn cookies(&self) -> Result<TokenCacheLayer, Complaint> {
        let key_ring = match &self.key_ring {
            Some(key_ring) => key_ring.clone(),
            None => {
                eprintln!("warning: without --encrypt the cookies end with this process");
                ring("--store", KeyRing::generate())?
            }
        };
        let store = CookieStore::builder(key_ring)
            .name(self.prefix.as_deref().unwrap_or("ttc"))
            .insecure_for_localhost()
            .build()
            .map_err(|error| format!("--prefix: {error}"))?;
        let layer = store.layer_with(|builder| self.adjust(builder));
        layer.map_err(explain)
    }

    fn adjust(&self, builder: Builder) -> Builder {
        let mut lifetimes = Lifetimes::new().sliding(self.sliding);
        if let Some(absolute) = self.absolute {
            lifetimes = lifetimes.after_write(absolute);
        }
        let builder = builder
            .l1(self.l1.clone())
            .failure_policy(self.failure_policy)
            .write_mode(self.write_mode)
            .lifetimes(lifetimes);
        match self.lease {
            Some(lease) => builder.acquisitions(Acquisitions::new().lease_ttl(lease)),
            None => builder,
        }
    }
}

/// Names the option of this program that is at fault.
fn explain(error: ConfigError) -> Complaint {
    let option = match error.option() {
        "namespace" => "--prefix",
        "L1::max_bytes" => "--l1-max-bytes",
        "Lifetimes::after_write" => "--absolute",
        "Lifetimes::sliding" => "--sliding",
        "Acquisitions::lease_ttl" => "--lease",
        other => other,
    };
    format!("{option}: {error}")
}

fn is_redis(url: &str) -> bool {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    matches!(
        scheme,
        Some(
            "redis"
                | "rediss"
                | "unix"
                | "redis+unix"
                | "redis+cluster"
                | "rediss+cluster"
                | "redis+sentinel"
                | "rediss+sentinel"
        )
    )
}

pub(crate) fn complain(complaint: &str) -> ! {
    eprintln!("{complaint}");
    std::process::exit(2);
}

/// A policy by its name, in an option or a header.
pub(super) fn failure_policy(name: &str) -> Option<FailurePolicy> {
    match name {
        "degrade" => Some(FailurePolicy::Degrade),
        "strict" => Some(FailurePolicy::Strict),
        "bypass" => Some(FailurePolicy::Bypass),
        _ => None,
    }
}

/// A write mode by its name, in an option or a header.
pub(super) fn write_mode(name: &str) -> Option<WriteMode> {
    match name {
        "after" => Some(WriteMode::AfterResponse),
        "before" => Some(WriteMode::BeforeResponse),
        _ => None,
    }
}

fn ring(name: &str, opened: Result<KeyRing, KeyRingError>) -> Result<KeyRing, Complaint> {
    opened.map_err(|error| format!("{name}: {error}"))
}

/// A client, or the default one, and its issuer.
fn issuer(name: &str, value: &str) -> Result<(String, Url), Complaint> {
    // A URL may hold such a sign, too.
    let named = value
        .split_once('=')
        .filter(|(client, _)| !client.contains(':'));
    let (client, url) = named.unwrap_or(("", value));
    let url = Url::parse(url).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| format!("{name}: must be an http or https URL"))?;
    Ok((client.to_owned(), url))
}

fn seconds(name: &str, value: &str) -> Result<Duration, Complaint> {
    number(name, value).map(Duration::from_secs)
}

fn number(name: &str, value: &str) -> Result<u64, Complaint> {
    value
        .parse()
        .map_err(|_| format!("{name}: must be a whole number, not {value:?}"))
}
