//! A rolling cookie is set anew by whatever uses its session.

use std::time::Duration;

use common::support::*;
use tower_token_cache::{Clock, Error, Timestamp, TokenCache, TokenCacheLayer, TokenSet, Tokens};

use super::browser::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A browser that is signed in, with a cookie that is due.
async fn due() -> (TokenCacheLayer, Browser) {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(TestStore::default()).clock(clock.clone());
    let cache: TokenCache = cache.build().unwrap();
    let layer = TokenCacheLayer::new(cache, sid().rolling(HOUR));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    clock.advance(HOUR / 2);
    (layer, browser)
}

#[tokio::test]
async fn a_request_that_finds_a_token_renews_it_whatever_it_asks_for_next() {
    let (layer, browser) = due().await;
    let nexts = ["nothing", "keys", "an absent token", "an absent value"];
    let mut renewed = Vec::new();
    for next in nexts {
        let visit = browser
            .clone()
            .visit(&layer, async |tokens: Tokens| {
                assert_eq!(api(&tokens).await.as_deref(), Some("ada"));
                match next {
                    "nothing" => {}
                    "keys" => drop(tokens.keys().await?),
                    "an absent token" => assert!(!tokens.get("other").await?.is_hit()),
                    _ => assert!(!tokens.value::<String>("v").await?.is_hit()),
                }
                Ok::<_, Error>(())
            })
            .await;
        visit.result.unwrap();
        renewed.extend(Some(next).filter(|_| visit.set_cookie.len() == 1));
    }
    assert_eq!(renewed, nexts);
}

#[tokio::test]
async fn each_kind_of_use_renews_it() {
    let (layer, browser) = due().await;
    let uses = [
        "insert",
        "put",
        "value",
        "take",
        "keys",
        "acquire",
        "acquire anew",
        "link",
        "commit",
    ];
    let mut renewed = Vec::new();
    for how in uses {
        let visit = browser
            .clone()
            .visit(&layer, async |tokens: Tokens| {
                match how {
                    "insert" => tokens.insert("more", token("m")).await?,
                    "put" => tokens.put("v", "x", HOUR).await?,
                    "value" => assert!(tokens.value::<String>("v").await?.is_hit()),
                    "take" => assert!(tokens.take::<String>("v").await?.is_hit()),
                    "keys" => assert_eq!(tokens.keys().await?.len(), 2),
                    "link" => tokens.link_user("ada").await?,
                    "commit" => drop(tokens.commit().await?),
                    "acquire" => {
                        let never = async |_| Err::<TokenSet, _>("never");
                        let _ = tokens.get_or_acquire("api", never).await?;
                    }
                    _ => {
                        let new = async |_| Ok::<_, Error>(TokenSet::from(token("new")));
                        let _ = tokens.get_or_acquire("new", new).await?;
                    }
                }
                Ok::<_, Error>(())
            })
            .await;
        visit.result.unwrap();
        renewed.extend(Some(how).filter(|_| visit.set_cookie.len() == 1));
    }
    assert_eq!(renewed, uses);
}

#[tokio::test]
async fn a_session_that_does_not_exist_is_not_renewed() {
    let (layer, _) = due().await;
    let mut browser = Browser::with(format!("{SID}{}", "A".repeat(43)));
    let visit = browser
        .visit(&layer, async |tokens: Tokens| {
            assert!(tokens.keys().await?.is_empty());
            assert!(!tokens.take::<String>("v").await?.is_hit());
            assert!(!tokens.get("api").await?.is_hit());
            Ok::<_, Error>(())
        })
        .await;
    visit.result.unwrap();
    assert!(visit.set_cookie.is_empty(), "{:?}", visit.set_cookie);
}
