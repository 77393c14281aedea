//! Session values in cookies: they go with the browser, and none can be taken, for cookies can be copied.

use reqwest::{Method, StatusCode};
use tower_token_cache::KeyRing;
use tower_token_cache::cookie::CookieStore;

use super::jar::Jar;
use super::server::{Server, builder, text};

#[tokio::test]
async fn a_value_goes_with_its_browser_and_ends_with_the_session() {
    let ring = KeyRing::generate().unwrap();
    let one = Server::new(CookieStore::builder(ring.clone())).await;
    let two = Server::new(CookieStore::builder(ring)).await;
    let (mut ada, mut bob) = (Jar::default(), Jar::default());
    ada.post(one.address, "/values/login", "state").await;
    for at in [two.address, one.address] {
        assert_eq!(ada.get(at, "/values/login").await.body, "state");
        assert_eq!(bob.get(at, "/values/login").await.body, "");
    }
    ada.send(two.address, Method::DELETE, "/session").await;
    assert_eq!(ada.get(one.address, "/values/login").await.body, "");
}

#[tokio::test]
async fn a_value_that_could_be_taken_again_is_not_given() {
    let server = Server::new(builder()).await;
    let mut jar = Jar::default();
    jar.post(server.address, "/values/login", "state").await;
    let mut copy = jar.clone();
    for jar in [&mut jar, &mut copy] {
        let taken = jar.send(server.address, Method::DELETE, "/values/login");
        let taken = taken.await;
        assert_eq!(taken.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!((taken.body.as_str(), taken.lines.len()), ("InCookies", 0));
        assert_eq!(jar.get(server.address, "/values/login").await.body, "state");
    }
}

#[tokio::test]
async fn a_value_that_cookies_cannot_carry_is_refused() {
    let server = Server::new(builder()).await;
    let mut jar = Jar::default();
    let large = text(60_000);
    let put = jar.post(server.address, "/values/large", &large).await;
    assert_eq!(put.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(jar.get(server.address, "/values/large").await.body, "");
}
