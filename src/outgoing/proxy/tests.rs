//! What a proxy takes for a path and for an API, and how long it waits.

use super::*;
use crate::TokenCache;
use crate::acquire::Prior;
use crate::key::PartitionKey;
use crate::outgoing::Origins;
use crate::store::MemoryStore;
use crate::token::{Token, TokenSet};

#[test]
fn no_path_leads_elsewhere() {
    for odd in [
        "/.",
        "/..",
        "/../a",
        "/a/..",
        "/a/./b",
        "/%2e%2e/a",
        "/%2E./a",
        "/a/.%2e",
        "/..%2fa",
        "/a%2F..%2Fb",
        "/..%5Ca",
        "/\\..\\a",
        "/..;/a",
        "/a/..;x=y/b",
        "/%2e;a",
    ] {
        assert!(is_odd(odd), "{odd}");
    }
    for sound in [
        "/",
        "/a",
        "//a",
        "/a.b",
        "/...",
        "/a/..b",
        "/a%2Fb",
        "/a;..",
        "/:80/@evil",
    ] {
        assert!(!is_odd(sound), "{sound}");
    }
}

#[test]
fn an_api_is_at_an_origin_of_the_layer() {
    let source = async |_: Prior| Ok::<TokenSet, BoxError>(Token::new("t").into());
    let origins = Origins::new(["https://api.example"]).unwrap();
    let bearer = BearerLayer::new("api", source, origins).unwrap();
    for api in [
        "https://api.example",
        "https://api.example/",
        "https://api.example/v1",
    ] {
        Proxy::new(api, bearer.clone()).unwrap();
    }
    for wrong in [
        "",
        "/",
        "api.example",
        "https://other.example",
        "http://api.example",
        "https://api.example?a",
        "https://api.example/#a",
        "https://api.example/../a",
        "https://api.example:444",
    ] {
        let refused = Proxy::new(wrong, bearer.clone()).expect_err(wrong);
        assert_eq!(refused.option(), "api", "{wrong}");
    }
}

async fn passed<S>(service: S, request: Request<Full<Bytes>>) -> Response<Full<Bytes>>
where
    S: tower_service::Service<Request<Bytes>, Response = Response<Full<Bytes>>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let source = async |_: Prior| Ok::<TokenSet, BoxError>(Token::new("t").into());
    let origins = Origins::new(["https://api.example"]).unwrap();
    let cache = TokenCache::builder(MemoryStore::new())
        .runtime(tokio::runtime::Handle::current())
        .build()
        .unwrap();
    let tokens = cache.tokens(PartitionKey::session("s").unwrap());
    let bearer = BearerLayer::new("api", source, origins).unwrap();
    let proxy = Proxy::new("https://api.example/v1", bearer.for_tokens(tokens)).unwrap();
    let proxy = proxy.http_client(HttpClient::new::<_, Bytes, _>(service));
    proxy
        .timeout(Duration::from_secs(3))
        .max_answer(5)
        .pass(request)
        .await
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_in_time_and_is_no_longer_than_allowed() {
    let never = tower::service_fn(|_: Request<Bytes>| {
        std::future::pending::<Result<Response<Full<Bytes>>, BoxError>>()
    });
    let begun = tokio::time::Instant::now();
    let answer = passed(never, request("/a")).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(begun.elapsed().as_secs(), 3);
    for (body, status) in [
        ("12345", StatusCode::OK),
        ("123456", StatusCode::BAD_GATEWAY),
    ] {
        let api = tower::service_fn(move |sent: Request<Bytes>| {
            assert_eq!(sent.uri(), "https://api.example/v1/a?b");
            let answer = Response::new(Full::new(Bytes::from(body)));
            std::future::ready(Ok::<_, BoxError>(answer))
        });
        let answer = passed(api, request("/a?b")).await;
        assert_eq!(answer.status(), status, "{body}");
    }
}
