//! Revocation, and the end of the session at the provider.

use common::support::{TestStore, assert_stored, builder, cache, eventually, session};
use tower_token_cache::Secret;
use tower_token_cache::grant::RevocationError;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_refresh_token_is_redeemed_no_more() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let login = site.login(&tokens, &mut Browser::new()).await.unwrap();
    let refresh_token = login.tokens.refresh_token().unwrap();
    site.client.revoke(refresh_token).await.unwrap();
    assert_eq!(
        site.provider.redeem(CLIENT, refresh_token.expose()).await,
        400
    );
    assert_eq!(site.provider.count("invalid_grant").await, 1);
    let access = login.tokens.access().access_token();
    assert!(!site.provider.is_active(CLIENT, access).await);
    // One that is revoked already, and one that never was.
    site.client.revoke(refresh_token).await.unwrap();
    site.client.revoke(&Secret::from("unknown")).await.unwrap();
    let impostor = site.client.clone().secret("guessed");
    let refused = impostor.revoke(refresh_token).await.unwrap_err();
    assert!(
        matches!(&refused, RevocationError::Refused(error) if error.code() == "invalid_client")
    );
    assert!(!format!("{refused:?} {refused}").contains(refresh_token.expose()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_here_leaves_no_refresh_token_at_the_provider() {
    let site = Site::start().await;
    let cache = builder(TestStore::default()).revoke_with(None, site.client.clone());
    let tokens = cache.build().unwrap().tokens(session("s"));
    let login = site.login(&tokens, &mut Browser::new()).await.unwrap();
    let refresh_token = login.tokens.refresh_token().unwrap().expose().to_owned();
    let access = login.tokens.access().access_token().to_owned();
    tokens.insert("api", login.tokens).await.unwrap();
    assert!(site.provider.is_active(CLIENT, &access).await);
    assert_stored(tokens.sign_out().await.unwrap());
    eventually("it is revoked", async || {
        !site.provider.is_active(CLIENT, &access).await
    })
    .await;
    assert_eq!(site.provider.redeem(CLIENT, &refresh_token).await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_at_the_provider_ends() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let mut browser = Browser::new();
    let login = site.login(&tokens, &mut browser).await.unwrap();
    let silently = AuthorizationCode::new(site.client.clone(), CALLBACK).unwrap();
    let silently = silently.param("prompt", "none").unwrap();
    let url = silently.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut browser, &url).await;
    silently.end(&tokens, callback(&back)).await.unwrap();

    let end = site.client.end_session().unwrap();
    let end = end.id_token_hint(login.tokens.id_token().unwrap());
    let end = end
        .post_logout_redirect_uri("http://127.0.0.1:1/signed-out")
        .state("a b");
    assert!(!format!("{end:?}").contains("id_token"));
    let url = Url::parse(&end.into_url()).unwrap();
    let page = browser.go(Method::GET, url.clone()).await;
    let xsrf = page.body["xsrf"]
        .as_str()
        .expect("the provider asks")
        .to_owned();
    let confirm = url.join("/session/end/confirm").unwrap();
    let form = [("xsrf", &*xsrf), ("logout", "yes")];
    let (_, next) = browser.post(confirm, &form).await;
    let back = next.expect("the provider sends the browser back");
    assert_eq!(
        (back.path(), param(&back, "state").as_deref()),
        ("/signed-out", Some("a b"))
    );

    let url = silently.begin(&tokens, "/").await.unwrap();
    let back = visit(&mut browser, &url).await;
    let refused = silently.end(&tokens, callback(&back)).await.unwrap_err();
    assert!(matches!(&refused, LoginError::Provider(error) if error.code() == "login_required"));
}
