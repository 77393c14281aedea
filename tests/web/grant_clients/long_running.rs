//! Work on behalf of a user that goes on when the user's assertion has expired.

use std::sync::Arc;

use common::eventually;
use common::oidc::OidcProvider;
use common::support::*;
use serde_json::{Value, json};
use tower_token_cache::grant::{Client, JwtBearer, RefreshToken};
use tower_token_cache::{Acquire, Acquired, Error, Lookup, PartitionKey, Tokens};

use super::{NOWHERE, code, token_url};

const USER: (&str, &str) = ("app", "the app's secret");
const API: (&str, &str) = ("api", "the API's secret");
/// How long an access token lives, in seconds.
const LIFETIME: u64 = 2;

/// A provider, and an API that is called by a user.
struct Site {
    provider: OidcProvider,
    client: Client,
}

impl Site {
    async fn start() -> Self {
        let provider = OidcProvider::start(NOWHERE, LIFETIME);
        let metadata = json!({
            "client_id": API.0,
            "client_secret": API.1,
            "grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer", "refresh_token"],
            "redirect_uris": [],
            "response_types": [],
        });
        provider.register(&metadata).await;
        let client = Client::new(token_url(&provider), API.0)
            .unwrap()
            .secret(API.1);
        let client = client.scopes(["openid", "offline_access"]);
        Self { provider, client }
    }

    /// What a user's request to the API is authorized by.
    async fn assertion(&self) -> String {
        let answer = self.provider.sign_in(USER, NOWHERE).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    fn begins(&self, assertion: &str) -> Arc<dyn Acquire> {
        Arc::new(JwtBearer::on_behalf_of(self.client.clone(), assertion))
    }

    fn goes_on(&self) -> Arc<dyn Acquire> {
        Arc::new(RefreshToken::new(self.client.clone()))
    }

    async fn is_good(&self, acquired: &Acquired) -> bool {
        let token = acquired.token.access_token();
        self.provider.is_active(API, token).await
    }

    async fn is_of_no_use(&self, assertion: &str) {
        eventually("the assertion expires", async || {
            !self.provider.is_active(API, assertion).await
        })
        .await;
    }
}

async fn expires(tokens: &Tokens) {
    eventually("the token expires", async || {
        tokens.get("mail").await.unwrap() == Lookup::Absent
    })
    .await;
}

fn work(number: u32) -> PartitionKey {
    PartitionKey::session(format!("work {number}")).unwrap()
}

async fn acquire(tokens: &Tokens, key: &str, source: Arc<dyn Acquire>) -> Result<Acquired, Error> {
    tokens.acquire(key)?.with_source(source).await
}

#[tokio::test]
async fn work_goes_on_without_the_assertion_on_every_instance_until_it_is_ended() {
    let site = Site::start().await;
    let store = TestStore::default();
    let assertion = site.assertion().await;
    let begun = cache(store.clone()).tokens(work(1));
    let acquired = acquire(&begun, "mail", site.begins(&assertion))
        .await
        .unwrap();
    assert!(site.is_good(&acquired).await);
    site.is_of_no_use(&assertion).await;
    expires(&begun).await;
    let late = cache(store.clone()).tokens(work(2));
    let refused = acquire(&late, "mail", site.begins(&assertion))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "invalid_grant");

    // A process that has never seen it, for the same API and for another one.
    let goes_on = cache(store.clone()).tokens(work(1));
    for (refreshed, key) in [(1, "mail"), (2, "calendar")] {
        let acquired = acquire(&goes_on, key, site.goes_on()).await.unwrap();
        assert!(site.is_good(&acquired).await);
        assert_eq!(site.provider.count("refreshed").await, refreshed);
    }
    // It is this work's alone.
    let other = cache(store.clone()).tokens(work(3));
    let refused = acquire(&other, "mail", site.goes_on()).await.unwrap_err();
    assert_eq!(
        (code(&refused), refused.status().as_u16()),
        ("login_required", 401)
    );

    assert_stored(goes_on.sign_out().await.unwrap());
    let ended = cache(store).tokens(work(1));
    let refused = acquire(&ended, "mail", site.goes_on()).await.unwrap_err();
    assert_eq!(code(&refused), "login_required");
}

#[tokio::test]
async fn work_whose_refresh_token_is_refused_begins_again_with_the_next_assertion() {
    let site = Site::start().await;
    let cache = cache(TestStore::default());
    let tokens = cache.tokens(work(1));
    let assertion = site.assertion().await;
    acquire(&tokens, "mail", site.begins(&assertion))
        .await
        .unwrap();
    // A reuse ends the grant.
    let refresh_token = tokens.refresh_token().await.unwrap().hit().unwrap();
    for status in [200, 400] {
        assert_eq!(
            site.provider.redeem(API, refresh_token.expose()).await,
            status
        );
    }
    expires(&tokens).await;
    let refused = acquire(&tokens, "mail", site.goes_on()).await.unwrap_err();
    assert_eq!(
        (code(&refused), refused.status().as_u16()),
        ("invalid_grant", 401)
    );

    assert_stored(tokens.sign_out().await.unwrap());
    let tokens = cache.tokens(work(1));
    let assertion = site.assertion().await;
    for source in [site.begins(&assertion), site.goes_on()] {
        let acquired = acquire(&tokens, "mail", source).await.unwrap();
        assert!(site.is_good(&acquired).await);
        expires(&tokens).await;
    }
}

#[tokio::test]
async fn without_offline_access_the_work_ends_with_its_first_token() {
    let site = Site::start().await;
    let client = site.client.clone().scopes(["openid"]);
    let tokens = cache(TestStore::default()).tokens(work(1));
    let source = Arc::new(JwtBearer::on_behalf_of(client, site.assertion().await));
    acquire(&tokens, "mail", source).await.unwrap();
    expires(&tokens).await;
    let refused = acquire(&tokens, "mail", site.goes_on()).await.unwrap_err();
    assert_eq!(code(&refused), "login_required");
}
