//! Moves the tokens of a running site to another store, while its instances serve.
//!
//! The instances have a `MigratingStore` of the same two stores by then: its documentation has the steps. The tables of
//! a SQL database are there by then, too (`migrate()`).
//!
//! ```sh
//! cargo run -p migrate redis://127.0.0.1 tokens.db [namespace] [partitions a second]
//! cargo run -p migrate tokens.db postgres://tokens@127.0.0.1/app
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;
use std::{env, process};

use futures_util::StreamExt;
use tower_token_cache::store::{Listed, MigratingStore, Movable};
use tower_token_cache::{MySqlStore, PostgresStore, RedisStore, SqliteStore};

/// What caches have unless they are given another one.
const NAMESPACE: &str = "ttc";
/// How long a database may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [old, new, options @ ..] = &arguments[..] else {
        eprintln!("usage: migrate <old> <new> [namespace] [partitions a second]");
        process::exit(2);
    };
    match scheme(old) {
        None => to(new, sqlite(old).await?, options).await,
        Some("postgres" | "postgresql") => to(new, postgres(old).await?, options).await,
        Some("mysql" | "mariadb") => to(new, mysql(old).await?, options).await,
        Some(_) => to(new, redis(old).await?, options).await,
    }
}

async fn to<O>(new: &str, old: O, options: &[String]) -> Result<(), Failure>
where
    O: Movable + Listed,
{
    match scheme(new) {
        None => run(old, sqlite(new).await?, options).await,
        Some("postgres" | "postgresql") => run(old, postgres(new).await?, options).await,
        Some("mysql" | "mariadb") => run(old, mysql(new).await?, options).await,
        Some(_) => run(old, redis(new).await?, options).await,
    }
}

/// Of a URL; a file has none.
fn scheme(store: &str) -> Option<&str> {
    store.split_once("://").map(|(scheme, _)| scheme)
}

async fn redis(url: &str) -> Result<RedisStore, Failure> {
    Ok(RedisStore::connect(url).await?)
}

async fn sqlite(path: &str) -> Result<SqliteStore, Failure> {
    Ok(SqliteStore::open(path).await?)
}

async fn postgres(url: &str) -> Result<PostgresStore, Failure> {
    Ok(PostgresStore::builder(url).connect(PATIENCE).await?)
}

async fn mysql(url: &str) -> Result<MySqlStore, Failure> {
    Ok(MySqlStore::builder(url).connect(PATIENCE).await?)
}

async fn run<O, N>(old: O, new: N, options: &[String]) -> Result<(), Failure>
where
    O: Movable + Listed,
    N: Movable,
{
    let namespace = options.first().map_or(NAMESPACE, String::as_str);
    let per_second = options.get(1).map_or(Ok(500), |it| it.parse())?;
    let store = MigratingStore::moving(old, new);
    let mut run = pin!(store.mover(namespace).per_second(per_second).run());
    while let Some(progress) = run.next().await {
        // After an error: run it again, it goes on where it was.
        let progress = progress?;
        let (seen, moved) = (progress.seen, progress.moved);
        print!("\r{seen} seen, {moved} moved, {} passes", progress.passes);
        io::stdout().flush()?;
        if progress.done {
            println!(": done");
        }
    }
    Ok(())
}
