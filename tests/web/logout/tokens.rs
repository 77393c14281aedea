//! Valid tokens, and what they end.

use super::issuer::{Site, form, send, status};

#[tokio::test]
async fn a_logout_token_ends_what_it_names_and_no_more() {
    let site = Site::start().await;
    site.sign_in("phone", "1", "ada").await;
    site.sign_in("laptop", "2", "ada").await;
    site.sign_in("bob", "3", "bob").await;
    let all = ["phone", "laptop", "bob"];

    // Of one session, with the user beside it, on an instance that does not know it.
    let (_, there) = site.instance();
    let mut claims = site.claims("a");
    claims["sid"] = "1".into();
    claims["sub"] = "ada".into();
    let answer = send(&there, form(&site.key.sign(&claims))).await;
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(site.alive(&all).await, ["laptop", "bob"]);

    // Of a user.
    let mut claims = site.claims("b");
    claims["sub"] = "ada".into();
    assert_eq!(status(&site.logout, &site.key.sign(&claims)).await, 200);
    assert_eq!(site.alive(&all).await, ["bob"]);

    // Of a session that there is not.
    let answer = send(&site.logout, form(&site.token("c", "9"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(site.alive(&all).await, ["bob"]);
}

/// The provider repeats what it got no answer to, and an attacker what was overheard.
#[tokio::test]
async fn a_token_that_comes_again_ends_nothing_more_on_any_instance() {
    let site = Site::start().await;
    site.sign_in("before", "1", "ada").await;
    let token = site.token("a", "1");
    assert_eq!(status(&site.logout, &token).await, 200);
    site.sign_in("after", "1", "ada").await;
    let (_, there) = site.instance();
    for logout in [&site.logout, &there] {
        assert_eq!(status(logout, &token).await, 200);
    }
    assert_eq!(site.alive(&["before", "after"]).await, ["after"]);
    // Another token of the same content.
    assert_eq!(status(&there, &site.token("b", "1")).await, 200);
    assert!(site.alive(&["after"]).await.is_empty());
}

#[tokio::test]
async fn a_token_is_known_until_it_is_too_old() {
    let site = Site::start().await;
    let mut claims = site.claims("a");
    let now = claims["iat"].as_u64().unwrap();
    // From a clock that is ahead, and good for long.
    claims["iat"] = (now + 59).into();
    claims["exp"] = (now + 86_400).into();
    claims["sid"] = "1".into();
    let token = site.key.sign(&claims);
    assert_eq!(status(&site.logout, &token).await, 200);
    site.sign_in("after", "1", "ada").await;
    for _ in 0..9 {
        site.clock.advance(std::time::Duration::from_secs(60));
        let (_, there) = site.instance();
        let status = status(&there, &token).await;
        assert!([200, 400].contains(&status), "{status}");
        assert_eq!(site.alive(&["after"]).await, ["after"]);
    }
    assert_eq!(status(&site.logout, &token).await, 400);
}

#[tokio::test]
async fn while_the_store_is_away_the_provider_is_asked_to_come_again() {
    let site = Site::start().await;
    site.sign_in("phone", "1", "ada").await;
    let token = site.token("a", "1");
    site.store.set_down(true);
    let answer = send(&site.logout, form(&token)).await;
    assert_eq!((answer.status, &*answer.body), (503, ""));
    assert_eq!(answer.headers["retry-after"], "5");
    site.store.set_down(false);
    assert_eq!(site.alive(&["phone"]).await, ["phone"], "it has failed");
    common::eventually("the store is asked again", async || {
        status(&site.logout, &token).await == 200
    })
    .await;
    assert!(site.alive(&["phone"]).await.is_empty());
}
