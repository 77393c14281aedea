//! `--store cookie` of the playgrounds.

use reqwest::Method;

use super::jar::Jar;
use super::server::text;
use common::playground::{PLAYGROUNDS, Playground};

#[tokio::test]
async fn playgrounds_keep_sessions_in_cookies() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let options = ["--store", "cookie", "--encrypt", keys.to_str().unwrap()];
    let instances = PLAYGROUNDS.map(|example| Playground::start(example, &options));
    let addresses = instances.each_ref().map(Playground::address);
    let mut jar = Jar::default();
    for (number, at) in addresses.into_iter().enumerate() {
        let body = format!(r#"{{"access_token":"t{number}","refresh_token":"r"}}"#);
        let path = format!("/tokens/{number}");
        let put = jar.send_body(at, Method::PUT, &path, &body).await;
        assert_eq!(put.status, 204);
        assert!(put.lines[0].starts_with("ttc.0=1."), "{put:?}");
        assert!(!put.lines[0].contains("Secure"), "{put:?}");
    }
    for at in addresses {
        assert_eq!(jar.get(at, "/tokens").await.body, r#"["0","1"]"#);
    }
    let large = format!(r#"{{"access_token":"{}"}}"#, text(30_000));
    for at in addresses {
        let put = jar.send_body(at, Method::PUT, "/tokens/a", &large).await;
        assert_eq!((put.status.as_u16(), put.lines.len()), (413, 0));
    }
    jar.send(addresses[0], Method::DELETE, "/tokens").await;
    assert!(jar.0.is_empty());
}

#[tokio::test]
async fn without_keys_the_cookies_end_with_the_process() {
    for example in PLAYGROUNDS {
        let instances = [(); 2].map(|()| Playground::start(example, &["--store", "cookie"]));
        let [one, two] = instances.each_ref().map(Playground::address);
        let mut jar = Jar::default();
        let body = r#"{"access_token":"t"}"#;
        jar.send_body(one, Method::PUT, "/tokens/a", body).await;
        assert_eq!(jar.get(one, "/tokens/a").await.status, 200);
        assert_eq!(jar.get(two, "/tokens/a").await.status, 404);
    }
}
