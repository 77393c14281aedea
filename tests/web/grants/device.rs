//! The device authorization grant, with a browser beside the device.

use futures_util::future::join;
use tower_token_cache::grant::{DeviceAuthorization, DeviceError};

use super::*;

/// Types the code and decides, as a user does.
async fn decide(browser: &mut Browser, device: &DeviceAuthorization, answer: &str) {
    let page = Url::parse(device.verification_uri()).unwrap();
    let asked = browser.go(Method::GET, page.clone()).await;
    let xsrf = asked.body["xsrf"].as_str().unwrap();
    let form = [("xsrf", xsrf), ("user_code", device.user_code())];
    let asked = browser.submit(page.clone(), &form).await;
    let xsrf = asked.body["xsrf"]
        .as_str()
        .unwrap_or_else(|| panic!("{asked:?}"));
    let form = [
        ("xsrf", xsrf),
        ("user_code", device.user_code()),
        (answer, "yes"),
    ];
    browser.submit(page, &form).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_tokens_or_a_no() {
    let site = Site::start().await;
    let mut allowed = site.client.authorize_device().await.unwrap();
    let mut denied = site.client.authorize_device().await.unwrap();
    assert_eq!(
        (allowed.interval().as_secs(), allowed.expires_in().as_secs()),
        (5, 600)
    );
    let complete = allowed.verification_uri_complete().unwrap();
    assert!(complete.contains(allowed.user_code()));
    assert!(!format!("{allowed:?}").contains(allowed.user_code()));
    decide(&mut Browser::new(), &allowed, "confirm").await;
    decide(&mut Browser::new(), &denied, "abort").await;
    let (allowed, denied) = join(allowed.poll(), denied.poll()).await;
    let login = allowed.unwrap();
    let claims = login.claims().unwrap();
    assert_eq!(
        (claims.subject(), claims.issuer()),
        ("alice", site.provider.issuer())
    );
    assert!(
        site.provider
            .is_active(CLIENT, login.tokens.access().access_token())
            .await
    );
    assert!(matches!(denied, Err(DeviceError::Denied)), "{denied:?}");
}
