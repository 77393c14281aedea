//! `Debug` of what is public, where it may hold a secret and no journey shows it.

use std::sync::Arc;

use bytes::Bytes;
use tower_token_cache::grant::{
    AuthStyle, Client, ClientCredentials, JwtBearer, PrivateKeyJwt, RefreshToken, SigningKey,
    TokenExchange,
};
use tower_token_cache::import::Found;
use tower_token_cache::outgoing::{BearerLayer, Origins};
use tower_token_cache::seal::{KeyRecord, RingKey};
use tower_token_cache::session::SignIn;
use tower_token_cache::store::{
    Change, Commit, CommitId, Loaded, PartitionId, Portable, Put, StoredEntry,
};
use tower_token_cache::{
    KeyExtractor, Lookup, PartitionKey, Prior, ProviderError, RedisCredentials, RedisStore, Secret,
    Token, TokenCacheLayer, TokenKey, key,
};

use super::evidence::{Evidence, Indiscreet};
use super::*;

pub(crate) fn show(evidence: &Evidence) {
    tokens_and_keys(evidence);
    stored(evidence);
    sources(evidence);
    layers(evidence);
}

fn tokens_and_keys(evidence: &Evidence) {
    let set = tokens();
    evidence.debug(
        "tokens",
        &(
            &set,
            set.access(),
            set.refresh_token(),
            Secret::from(ACCESS),
        ),
    );
    evidence.debug("a sign-in", &SignIn::new("api", set.clone()).user(USER));
    evidence.debug("a lookup", &Lookup::Hit(set));
    let keys = [
        PartitionKey::user(USER),
        PartitionKey::session(SESSION),
        PartitionKey::session(SESSION.repeat(4)),
        PartitionKey::application(CLIENT_SECRET, USER),
    ];
    evidence.debug("a key", &keys);
    evidence.debug("a key", &PartitionKey::assertion(ASSERTION));
    for bad in [
        indiscretion().repeat(9),
        format!("{SESSION}\n"),
        format!("\u{1}{USER}"),
    ] {
        evidence.error("a key", &PartitionKey::session(&bad).unwrap_err());
        evidence.error("a key", &TokenKey::new(&bad).unwrap_err());
        evidence.error("a key", &TokenKey::scoped("r", [bad.as_str()]).unwrap_err());
    }
    evidence.debug("a ring's key", &RingKey::from_bytes(KEY));
    let content = RingKey::from_bytes(KEY).to_base64().as_bytes().to_vec();
    evidence.debug("a ring's record", &KeyRecord::new("key-1", content));
}

/// What a store sees: without encryption, tokens.
fn stored(evidence: &Evidence) {
    let value = Bytes::from(indiscretion());
    let partition = PartitionId::for_tests("ttc", SESSION);
    let entry = tower_token_cache::store::EntryId::from([7; 16]);
    let put = Put::new(value.clone(), None);
    let mut commit = Commit::new(partition, CommitId([1; 8]), 0);
    commit.changes = vec![Change::new(entry, Some(put))];
    let mut loaded = Loaded::default();
    loaded.entries = vec![StoredEntry::new(entry, 1, None, value)];
    let mut portable = Portable::default();
    portable.entries.clone_from(&loaded.entries);
    evidence.debug("what a store sees", &(commit, loaded, portable));
    let credentials = RedisCredentials::new(USER, PASSWORD);
    evidence.debug("credentials", &credentials);
    let builder = RedisStore::builder("redis://127.0.0.1");
    let builder = builder.credentials(move || std::future::ready(Ok(credentials.clone())));
    evidence.debug("a builder", &builder);
    let found = Found::new(session(SESSION), "api", tokens()).user(USER);
    evidence.debug("what is imported", &found);
}

fn sources(evidence: &Evidence) {
    let client = Client::new("https://login.example/token", "app").unwrap();
    let client = client
        .secret(CLIENT_SECRET)
        .auth_style(AuthStyle::Body)
        .param("code", ACCESS);
    evidence.debug("a client", &client);
    evidence.debug("a grant", &RefreshToken::new(client.clone()));
    evidence.debug("a grant", &ClientCredentials::new(client.clone()));
    evidence.debug("a grant", &JwtBearer::new(client.clone(), ASSERTION));
    evidence.debug(
        "a grant",
        &JwtBearer::on_behalf_of(client.clone(), ASSERTION),
    );
    let exchange = TokenExchange::new(client, ASSERTION, "t").actor(ACCESS, "t");
    evidence.debug("a grant", &exchange);
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/certificates/old_sec1.pem"
    );
    let pem = std::fs::read_to_string(path).unwrap();
    let key = SigningKey::from_pem(&pem).unwrap().kid("k");
    evidence.debug("a client's key", &key);
    evidence.debug("a client's assertion", &PrivateKeyJwt::new(key));
    let broken = SigningKey::from_pem(pem.replace("BEGIN EC", "BEGIN")).unwrap_err();
    evidence.error("a client's key", &broken);
    let bad = [
        format!("https://user:{PASSWORD}@login.example/token"),
        format!("http://login.example/token?secret={CLIENT_SECRET}"),
        format!("{CLIENT_SECRET}://"),
    ];
    for url in bad {
        if let Err(error) = Client::new(url, "app") {
            evidence.error("a client", &error);
        }
    }
    let error = ProviderError::unreachable(Indiscreet(indiscretion()));
    evidence.text(
        "a provider's error",
        &format!("{error} {error:?} {error:#?}"),
    );
    let json = format!(r#"{{"access_token":{{"a":"{ACCESS}"}}}}"#);
    // What serde_json says of it is the caller's to log, and quotes no object.
    evidence.outcome("an answer", serde_json::from_str::<TokenSet>(&json));
}

fn layers(evidence: &Evidence) {
    let cache = builder(MemoryStore::new()).build().unwrap();
    let handle = cache.tokens(session(SESSION));
    let own = session(SESSION);
    let extractor = key::header(http::header::HOST)
        .or(key::cookie("sid"))
        .or(key::bearer_assertion())
        .or(key::constant(own));
    evidence.debug("an extractor", &extractor);
    evidence.debug("a layer", &TokenCacheLayer::new(cache.clone(), extractor));
    let source = async |_: Prior| Err::<TokenSet, _>("never");
    let layer = BearerLayer::new("api", source, Origins::relative())
        .unwrap()
        .for_tokens(handle);
    evidence.debug("a layer", &layer);
    evidence.debug("shared", &Arc::new(Token::new(ACCESS)));
}
