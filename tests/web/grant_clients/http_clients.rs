//! A whole refresh by each HTTP client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use common::oidc::OidcProvider;
use common::support::*;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::retry::Policy;
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_token_cache::grant::{Client, HttpClient, RefreshToken};
use tower_token_cache::{MemoryStore, TokenSet};

use super::{NOWHERE, token_url};

const CLIENT: (&str, &str) = ("app", "the app's secret");

/// Refreshes twice: the second time with what the first has brought.
async fn refreshes(http: Option<HttpClient>) {
    let provider = OidcProvider::start(NOWHERE, 3600);
    let answer = provider.sign_in(CLIENT, NOWHERE).await;
    let set: TokenSet = serde_json::from_str(&answer).unwrap();
    let mut client = Client::new(token_url(&provider), CLIENT.0)
        .unwrap()
        .secret(CLIENT.1);
    if let Some(http) = http {
        client = client.http_client(http);
    }
    let source = Arc::new(RefreshToken::new(client));
    let tokens = cache(MemoryStore::new()).tokens(session("s"));
    tokens.insert("api", set).await.unwrap();
    for refreshed in 1..=2 {
        let before = tokens.refresh_token().await.unwrap().hit().unwrap();
        let forced = tokens.acquire("api").unwrap().force_refresh();
        let acquired = forced.with_source(source.clone()).await.unwrap();
        assert!(
            provider
                .is_active(CLIENT, acquired.token.access_token())
                .await
        );
        assert_ne!(tokens.refresh_token().await.unwrap().hit().unwrap(), before);
        assert_eq!(provider.count("refreshed").await, refreshed);
    }
    assert_eq!(provider.count("invalid_grant").await, 0);
}

#[tokio::test]
async fn the_default_client() {
    refreshes(None).await;
}

#[tokio::test]
async fn reqwest_0_12() {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    refreshes(Some(http.build().unwrap().into())).await;
}

#[tokio::test]
async fn reqwest_0_13() {
    let http = reqwest_0_13::Client::builder().redirect(reqwest_0_13::redirect::Policy::none());
    refreshes(Some(http.build().unwrap().into())).await;
}

type Hyper = legacy::Client<HttpConnector, Full<Bytes>>;

fn hyper() -> Hyper {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

/// Once more where no connection could be made.
#[derive(Clone)]
struct Unconnected(usize);

impl<T> Policy<Request<Full<Bytes>>, T, BoxError> for Unconnected {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<T, BoxError>,
    ) -> Option<Self::Future> {
        let error = result.as_ref().err()?.downcast_ref::<legacy::Error>()?;
        self.0 = self.0.checked_sub(1)?;
        error.is_connect().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

/// As the README has it; and the first connection is refused.
#[tokio::test]
async fn a_stack_of_tower_layers() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let refusing = hyper().map_request(move |mut request: Request<Full<Bytes>>| {
        if count.fetch_add(1, SeqCst) == 0 {
            *request.uri_mut() = Uri::from_static("http://127.0.0.1:1/");
        }
        request
    });
    let stack = ServiceBuilder::new()
        .retry(Unconnected(2))
        .timeout(Duration::from_secs(5))
        .concurrency_limit(16)
        .service(refusing);
    refreshes(Some(HttpClient::new(stack))).await;
    assert_eq!(asked.load(SeqCst), 3);
}

/// Neither `Sync`, nor of hyper's types.
#[tokio::test]
async fn a_boxed_closure() {
    let hyper = hyper();
    let closure = service_fn(move |request: Request<Vec<u8>>| {
        let hyper = hyper.clone();
        async move {
            hyper
                .request(request.map(|form| Full::new(form.into())))
                .await
        }
    });
    refreshes(Some(HttpClient::new(BoxCloneService::new(closure)))).await;
}
