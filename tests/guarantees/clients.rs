//! Several providers in one session: what belongs to one client is never used for another.

use std::time::Duration;

use tower_token_cache::{
    BoxError, Error, Lookup, Prior, ProviderError, Timestamp, Token, TokenCache, TokenSet, Tokens,
};

use common::issuer::Issuer;
use common::support::*;

const CLIENTS: [&str; 2] = ["google", "github"];

fn expired() -> TokenSet {
    TokenSet::from(Token::new("a0").with_expires_at(Timestamp::from_millis(1)))
        .with_refresh_token("r0")
        .with_id_token("i0")
}

/// What asks this issuer, and fails the test if it is sent what belongs to another client.
fn source(
    issuer: &Issuer,
    client: Option<&'static str>,
) -> impl FnOnce(
    Prior,
) -> std::pin::Pin<Box<dyn Future<Output = Result<TokenSet, ProviderError>> + Send>>
+ Send
+ 'static {
    let issuer = issuer.clone();
    move |prior| {
        assert_eq!(prior.client(), client);
        assert_eq!(prior.key().as_ref(), "api");
        Box::pin(issuer.refresh(prior))
    }
}

async fn acquired(tokens: &Tokens, issuer: &Issuer, client: Option<&'static str>) -> String {
    let acquired = tokens.get_or_acquire("api", source(issuer, client)).await;
    acquired.unwrap().access_token().to_owned()
}

/// A session that is signed in at both providers and at that of the default client; all has expired.
async fn signed_in(cache: &TokenCache) -> Tokens {
    let tokens = cache.tokens(session("s"));
    tokens.insert("api", expired()).await.unwrap();
    for client in CLIENTS {
        let tokens = tokens.client(client).unwrap();
        tokens.insert("api", expired()).await.unwrap();
    }
    assert_stored(tokens.commit().await.unwrap());
    tokens
}

#[tokio::test]
async fn each_client_has_tokens_of_its_own_under_one_key() {
    let store = TestStore::default();
    let tokens = cache(store.clone()).tokens(session("s"));
    for client in CLIENTS {
        let set = TokenSet::from(token(client))
            .with_refresh_token(format!("{client}-r"))
            .with_id_token(format!("{client}-i"));
        tokens
            .client(client)
            .unwrap()
            .insert("api", set)
            .await
            .unwrap();
    }
    assert_stored(tokens.commit().await.unwrap());
    for cache in [cache(store.clone()), cache(store)] {
        let tokens = cache.tokens(session("s"));
        for client in CLIENTS {
            let of_client = tokens.client(client).unwrap();
            assert_eq!(access(&of_client, "api").await.as_deref(), Some(client));
            let refresh_token = of_client.refresh_token().await.unwrap().hit().unwrap();
            assert_eq!(refresh_token.expose(), format!("{client}-r"));
            let id_token = of_client.id_token().await.unwrap().hit().unwrap();
            assert_eq!(id_token.expose(), format!("{client}-i"));
            let keys = of_client.keys().await.unwrap();
            assert_eq!(
                keys.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
                ["api"]
            );
        }
        assert_eq!(tokens.get("api").await.unwrap(), Lookup::Absent);
        assert_eq!(tokens.refresh_token().await.unwrap(), Lookup::Absent);
        assert_eq!(tokens.keys().await.unwrap(), []);
    }
    let google = tokens.client("google").unwrap();
    google.remove("api").await.unwrap();
    assert_eq!(google.get("api").await.unwrap(), Lookup::Absent);
    let github = tokens.client("github").unwrap();
    assert_eq!(access(&github, "api").await.as_deref(), Some("github"));
}

#[tokio::test]
async fn all_expire_at_once_and_each_provider_is_sent_its_own_refresh_token() {
    let store = TestStore::default();
    let caches = [cache(store.clone()), cache(store)];
    drop(signed_in(&caches[0]).await);
    let clients = [None, Some("google"), Some("github")];
    let issuers = clients.map(|_| Issuer::new());
    let mut requests = Vec::new();
    for cache in &caches {
        for (client, issuer) in clients.into_iter().zip(&issuers) {
            let tokens = cache.tokens(session("s"));
            let tokens = client.map_or(tokens.clone(), |name| tokens.client(name).unwrap());
            let issuer = issuer.clone();
            let request = async move { acquired(&tokens, &issuer, client).await };
            requests.push(tokio::spawn(request));
        }
    }
    for request in requests {
        assert_eq!(request.await.unwrap(), "a1");
    }
    for issuer in issuers {
        assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    }
}

#[tokio::test]
async fn a_provider_that_is_slow_or_refuses_concerns_no_other_client() {
    let tokens = signed_in(&cache(TestStore::default())).await;
    let [google, github] = CLIENTS.map(|name| tokens.client(name).unwrap());
    let (slow, quick) = (Issuer::new(), Issuer::new());
    slow.hold();
    let waits = tokio::spawn({
        let (google, slow) = (google.clone(), slow.clone());
        async move { acquired(&google, &slow, Some("google")).await }
    });
    slow.arrival().await;
    assert_eq!(acquired(&github, &quick, Some("github")).await, "a1");
    slow.release();
    assert_eq!(waits.await.unwrap(), "a1");

    let refuses = async |_: Prior| Err::<TokenSet, _>(ProviderError::refused("invalid_grant"));
    let forced = google.acquire("api").unwrap().force_refresh();
    let refused = forced.with(refuses).await;
    assert!(matches!(refused, Err(Error::Acquire(_))));
    let forced = github.acquire("api").unwrap().force_refresh();
    let acquired = forced.with(source(&quick, Some("github"))).await.unwrap();
    assert_eq!(acquired.token.access_token(), "a2");
    let again = google.acquire("api").unwrap().force_refresh();
    let again = again.with(source(&slow, Some("google"))).await;
    assert!(matches!(again, Err(Error::Acquire(_))), "it is remembered");
    assert_eq!(slow.calls(), 1);
}

/// An acquire function may need a token of another client, as for a token exchange.
#[tokio::test]
async fn an_acquire_function_can_acquire_with_another_clients_refresh_token() {
    let tokens = signed_in(&cache(TestStore::default())).await;
    let [google, github] = CLIENTS.map(|name| tokens.client(name).unwrap());
    let (outer, inner) = (Issuer::new(), Issuer::new());
    let nested = move |prior: Prior| async move {
        acquired(&github, &inner, Some("github")).await;
        outer.refresh(prior).await
    };
    let token = google.get_or_acquire("api", nested).await.unwrap();
    assert_eq!(token.access_token(), "a1");
}

#[tokio::test(start_paused = true)]
async fn a_move_takes_all_clients_along_and_waits_for_the_redemptions_of_all() {
    for elsewhere in [false, true] {
        let store = TestStore::default();
        let here = cache(store.clone());
        let tokens = signed_in(&here).await;
        let issuers = CLIENTS.map(|_| Issuer::new());
        let mut redeeming = Vec::new();
        for (client, issuer) in CLIENTS.into_iter().zip(&issuers) {
            issuer.hold();
            let (tokens, issuer) = (tokens.client(client).unwrap(), issuer.clone());
            redeeming.push(tokio::spawn(async move {
                acquired(&tokens, &issuer, Some(client)).await
            }));
        }
        for issuer in &issuers {
            issuer.arrival().await;
        }
        let other = match elsewhere {
            true => cache(store.clone()),
            false => here.clone(),
        };
        let old = other.tokens(session("s"));
        let moving = tokio::spawn(async move { old.move_to(session("new")).await });
        for issuer in &issuers {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(!moving.is_finished());
            issuer.release();
        }
        moving.await.unwrap().unwrap();
        for redeemed in redeeming {
            assert_eq!(redeemed.await.unwrap(), "a1");
        }
        let moved = cache(store).tokens(session("new"));
        for client in CLIENTS {
            let moved = moved.client(client).unwrap();
            let found = moved.refresh_token().await.unwrap().hit().unwrap();
            assert_eq!(found.expose(), "r1", "{client}, elsewhere: {elsewhere}");
        }
        let found = moved.refresh_token().await.unwrap().hit().unwrap();
        assert_eq!(found.expose(), "r0");
    }
}

#[tokio::test]
async fn a_sign_out_ends_all_clients() {
    let store = TestStore::default();
    let tokens = signed_in(&cache(store.clone())).await;
    let google = tokens.client("google").unwrap();
    assert_stored(google.sign_out().await.unwrap());
    let fresh = cache(store).tokens(session("s"));
    assert_eq!(fresh.refresh_token().await.unwrap(), Lookup::Absent);
    for client in CLIENTS {
        let fresh = fresh.client(client).unwrap();
        assert_eq!(fresh.refresh_token().await.unwrap(), Lookup::Absent);
    }
}

#[tokio::test]
async fn what_is_no_clients_name_is_refused() {
    let tokens = cache(TestStore::default()).tokens(session("s"));
    for name in ["", "a\u{1}b", "\u{1}client\u{1}x", "a\nb", &"x".repeat(257)] {
        assert!(
            matches!(tokens.client(name), Err(Error::InvalidKey(_))),
            "{name:?}"
        );
    }
    // No text that two names and two keys could share.
    let one = tokens.client("a b").unwrap();
    one.insert("c", token("1")).await.unwrap();
    assert_eq!(
        tokens.client("a").unwrap().get("b c").await.unwrap(),
        Lookup::Absent
    );
}

/// `Tokens::client`: "What fails at one provider keeps no request from asking another." `github` refuses its own
/// refresh token, which one of `google`'s tokens needs; another token of `google` has nothing to do with that.
#[tokio::test]
async fn what_fails_at_one_provider_keeps_no_request_from_asking_another() {
    let mut held = Vec::new();
    type Failure = fn() -> ProviderError;
    let failures: [(&str, Failure); 3] = [
        ("refused", || ProviderError::refused("invalid_grant")),
        ("asked for an hour", || {
            ProviderError::status(http::StatusCode::TOO_MANY_REQUESTS)
                .with_retry_after(Duration::from_secs(3600))
        }),
        ("failed", || {
            ProviderError::status(http::StatusCode::BAD_GATEWAY)
        }),
    ];
    for (what, failure) in failures {
        let tokens = cache(TestStore::default()).tokens(session("s"));
        let [google, github] = ["google", "github"].map(|name| tokens.client(name).unwrap());
        for tokens in [&google, &github] {
            let set = TokenSet::from(Token::new("x").with_expires_at(Timestamp::from_millis(1)))
                .with_refresh_token("r");
            tokens.insert("api", set).await.unwrap();
        }
        assert_stored(tokens.commit().await.unwrap());
        let inner = github.clone();
        let first = google
            .get_or_acquire(
                "needs github",
                async move |_: Prior| -> Result<TokenSet, Error> {
                    inner
                        .get_or_acquire("api", async move |_: Prior| Err::<TokenSet, _>(failure()))
                        .await?;
                    unreachable!()
                },
            )
            .await;
        assert!(first.is_err());
        let good = async |_: Prior| Ok::<_, BoxError>(TokenSet::from(token("good")));
        if let Err(error) = google.get_or_acquire("plain", good).await {
            held.push(format!(
                "github {what}: google is not asked: {} {error:?}",
                error.status()
            ));
        }
    }
    assert!(held.is_empty(), "{held:#?}");
}

/// The same where the mistake is the application's: the source of `google` was given `github`'s handle.
#[tokio::test]
async fn a_source_of_the_wrong_client_keeps_no_request_from_asking_with_the_right_one() {
    use tower_token_cache::Acquire;
    use tower_token_cache::grant::{Client, RefreshToken};
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let github = tokens.client("github").unwrap();
    let set = TokenSet::from(Token::new("x").with_expires_at(Timestamp::from_millis(1)))
        .with_refresh_token("r");
    github.insert("api", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let source = RefreshToken::new(
        Client::new("http://127.0.0.1:1/token", "app")
            .unwrap()
            .named("google"),
    );
    let wrong = github
        .get_or_acquire("wrong", move |prior: Prior| source.acquire(prior))
        .await;
    assert!(wrong.is_err());
    let good = async |_: Prior| Ok::<_, BoxError>(TokenSet::from(token("good")));
    let right = github.get_or_acquire("api", good).await;
    assert!(right.is_ok(), "{right:?}");
}
