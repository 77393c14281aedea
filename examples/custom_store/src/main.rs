//! A store of your own from three operations: two instances share tokens in a folder.
//!
//! ```sh
//! cargo run -p custom_store [tokens]
//! ```

mod folder;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use tower_token_cache::store::CasAdapter;
use tower_token_cache::{KeyRing, Lookup, PartitionKey, Token, TokenCache};

use crate::folder::Folder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let folder = env::args().nth(1).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from("tokens"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let [one, other] = [instance(&folder)?, instance(&folder)?];

    let session = PartitionKey::session("5f2c6e1a")?;
    let tokens = one.tokens(session.clone());
    tokens.insert("graph", Token::new("ya29.a0Af")).await?;
    println!("one instance has written it: {:?}", tokens.commit().await?);
    let tokens = other.tokens(session);
    if let Lookup::Hit(token) = tokens.get("graph").await? {
        let length = token.access_token().len();
        println!("the other one has a token of {length} characters");
    }
    println!("and signs out: {:?}", tokens.sign_out().await?);
    Ok(())
}

/// As each process would have one.
fn instance(folder: &Path) -> Result<TokenCache, Box<dyn std::error::Error>> {
    let ring = KeyRing::open_dir(folder.with_extension("keys"))?;
    let store = CasAdapter::new(Folder(folder.into()));
    Ok(TokenCache::builder(store).key_ring(ring).build()?)
}
