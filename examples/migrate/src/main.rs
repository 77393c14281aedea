//! Moves the tokens of a running site to another store, while its instances serve.
//!
//! The instances have a `MigratingStore` of the same two stores by then: its documentation has the steps.
//!
//! ```sh
//! cargo run -p migrate redis://127.0.0.1 tokens.db [namespace] [partitions a second]
//! cargo run -p migrate tokens.db redis://127.0.0.1
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::pin::pin;
use std::{env, process};

use futures_util::StreamExt;
use tower_token_cache::store::{Listed, MigratingStore, Movable};
use tower_token_cache::{RedisStore, SqliteStore};

/// What caches have unless they are given another one.
const NAMESPACE: &str = "ttc";

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [old, new, options @ ..] = &arguments[..] else {
        eprintln!("usage: migrate <old> <new> [namespace] [partitions a second]");
        process::exit(2);
    };
    let namespace = options.first().map_or(NAMESPACE, String::as_str);
    let per_second = options.get(1).map_or(Ok(500), |it| it.parse())?;
    match (old.contains("://"), new.contains("://")) {
        (true, true) => run(redis(old).await?, redis(new).await?, namespace, per_second).await,
        (true, false) => run(redis(old).await?, sqlite(new).await?, namespace, per_second).await,
        (false, true) => run(sqlite(old).await?, redis(new).await?, namespace, per_second).await,
        (false, false) => {
            run(
                sqlite(old).await?,
                sqlite(new).await?,
                namespace,
                per_second,
            )
            .await
        }
    }
}

async fn redis(url: &str) -> Result<RedisStore, Failure> {
    Ok(RedisStore::connect(url).await?)
}

async fn sqlite(path: &str) -> Result<SqliteStore, Failure> {
    Ok(SqliteStore::open(path).await?)
}

async fn run<O, N>(old: O, new: N, namespace: &str, per_second: u32) -> Result<(), Failure>
where
    O: Movable + Listed,
    N: Movable,
{
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
