//! Sessions at two real OpenID providers, on two processes: all tokens expire at once, and each provider is asked with its
//! own refresh tokens, once for each session.

use std::collections::BTreeSet;

use common::eventually;
use common::oidc::OidcProvider;
use common::playground::{Answer, Playground};
use common::redis::RedisServer;
use common::support;
use futures_util::future::join_all;
use serde_json::Value;
use tower_token_cache::{Lookup, TokenCache};

/// As both servers have it.
const CLIENT: (&str, &str) = ("app", "the app's secret");
/// What this application calls them.
const NAMES: [&str; 2] = ["one", "two"];
const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";
const USERS: usize = 20;
const REQUESTS: usize = 200;

struct Site {
    providers: [OidcProvider; 2],
    processes: [Playground; 2],
    /// Reads what is stored.
    observer: TokenCache,
    _redis: RedisServer,
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

impl Site {
    /// With access tokens that last so many seconds.
    async fn start(lifetime: u64) -> Self {
        let redis = RedisServer::start();
        let providers = NAMES.map(|_| OidcProvider::start(REDIRECT_URI, lifetime));
        let [one, two] = [0, 1].map(|at| format!("{}={}", NAMES[at], providers[at].issuer()));
        let options = [
            ["--store", &redis.url()],
            ["--issuer", &one],
            ["--issuer", &two],
            ["--client-id", CLIENT.0],
            ["--client-secret", CLIENT.1],
        ];
        let start = |_| Playground::start("playground", &options.concat());
        Self {
            processes: NAMES.map(start),
            observer: support::redis_cache(&redis).await,
            providers,
            _redis: redis,
        }
    }

    /// Signs the user in at both, in one session. The refresh tokens.
    async fn sign_in(&self, user: &str) -> [String; 2] {
        let mut refresh_tokens = NAMES.map(str::to_owned);
        for (at, provider) in self.providers.iter().enumerate() {
            let answer = provider.sign_in_as(user, CLIENT, REDIRECT_URI).await;
            let path = format!("/tokens/api?client={}", NAMES[at]);
            let headers = [("x-session", user), ("x-write-mode", "before")];
            let kept = self.processes[at].send("PUT", &path, &headers, &answer);
            assert_eq!(kept.await.status, 204);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            refresh_tokens[at] = answer["refresh_token"].as_str().unwrap().to_owned();
        }
        refresh_tokens
    }

    async fn all_expire(&self) {
        for user in (0..USERS).map(user) {
            let tokens = self.observer.tokens(support::session(&user));
            for name in NAMES {
                let tokens = tokens.client(name).unwrap();
                eventually("the token expires", async || {
                    tokens.reload().await.unwrap();
                    tokens.get("api").await.unwrap() == Lookup::Absent
                })
                .await;
            }
        }
    }

    async fn acquire(&self, process: usize, user: &str, client: usize, demand: &str) -> Answer {
        let path = format!("/acquire/api?client={}{demand}", NAMES[client]);
        self.processes[process].acquire(user, &path).await
    }

    /// All users need both tokens, on both processes. What each got, by user and client.
    async fn burst(&self) -> Vec<[BTreeSet<String>; 2]> {
        let requests = (0..REQUESTS).map(|number| async move {
            let (user_at, client, process) = (number % USERS, number / USERS % 2, number / 40 % 2);
            let answer = self.acquire(process, &user(user_at), client, "").await;
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            let token = answer.body["access_token"].as_str().unwrap();
            (user_at, client, token.to_owned())
        });
        let mut got = vec![<[BTreeSet<String>; 2]>::default(); USERS];
        for (user, client, token) in join_all(requests).await {
            got[user][client].insert(token);
        }
        got
    }

    async fn counts(&self, what: &str) -> [u64; 2] {
        let [one, two] = &self.providers;
        [one.count(what).await, two.count(what).await]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_expire_at_once_and_each_provider_is_asked_with_its_own_refresh_tokens() {
    let site = Site::start(3).await;
    let users = Vec::from_iter((0..USERS).map(user));
    let first = join_all(users.iter().map(|user| site.sign_in(user))).await;
    site.all_expire().await;
    site.burst().await;
    let refreshed = site.counts("refreshed").await;
    // On a slow machine some expire again before the last request.
    assert!(refreshed.iter().all(|count| *count >= USERS as u64));

    site.all_expire().await;
    for provider in &site.providers {
        provider.set_lifetime(3600).await;
    }
    let got = site.burst().await;
    let each_once = refreshed.map(|count| count + USERS as u64);
    assert_eq!(site.counts("refreshed").await, each_once);
    for (user, got) in users.iter().zip(&got) {
        for (at, got) in got.iter().enumerate() {
            let token = got.first().unwrap();
            assert_eq!(got.len(), 1, "{user} at {}: one token for all", NAMES[at]);
            let [own, other] = [at, 1 - at].map(|at| site.providers[at].user_of(CLIENT, token));
            assert_eq!(own.await.as_ref(), Some(user));
            assert_eq!(other.await, None);
        }
    }
    for what in ["invalid_grant", "revoked"] {
        assert_eq!(site.counts(what).await, [0, 0], "{what}");
    }

    // The first refresh token was spent long ago. Its reuse ends the grant, which concerns the other provider in nothing.
    let status = site.providers[0].redeem(CLIENT, &first[0][0]).await;
    assert_eq!((status, site.counts("revoked").await), (400, [1, 0]));
    for process in 0..2 {
        let refused = site.acquire(process, &users[0], 0, "&force=1").await;
        assert_eq!(refused.status, 401, "{:?}", refused.body);
        let other = site.acquire(process, &users[0], 1, "&force=1").await;
        assert_eq!(other.status, 200, "{:?}", other.body);
    }
    // That reuse, and one refusal that both processes share.
    assert_eq!(site.counts("invalid_grant").await, [2, 0]);
}
