//! The format of the cookies.

use reqwest::Method;
use tower_token_cache::cookie::CookieStore;
use tower_token_cache::seal::RingKey;
use tower_token_cache::{Clock, KeyRing, Timestamp};

use super::jar::Jar;
use super::server::Server;

/// Made by another implementation (Python's `cryptography` and `zlib`): two chunks, with the token
/// and the refresh token of the other golden files inside. They must be taken for ever.
#[tokio::test]
async fn cookies_of_the_documented_format_are_taken() {
    let file = include_str!("../../golden/cookies.v1.txt");
    let pairs = file.trim().split("; ");
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
    let mut jar = Jar(pairs
        .map(|(name, text)| (name.into(), text.into()))
        .collect());
    assert_eq!(jar.0.len(), 2);

    // They were set at 1,799,998,000.
    let now = Timestamp::from_millis(1_799_998_060_000);
    let ring = KeyRing::from_keys(RingKey::from_bytes([9; 32]), []);
    let store = CookieStore::builder(ring).clock(Clock::manual(now));
    let server = Server::new(store).await;
    let found = jar.get(server.address, "/tokens/graph").await;
    assert_eq!(
        (found.body.as_str(), found.lines.len()),
        ("access-token", 0)
    );
    jar.send(server.address, Method::DELETE, "/tokens/graph")
        .await;
    let acquired = jar.get(server.address, "/acquire").await;
    assert_eq!(acquired.body, "acquired-1-for-refresh-token");
    assert_eq!(server.cache.stats().unopenable, 0);
}
