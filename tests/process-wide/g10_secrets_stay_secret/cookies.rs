//! Sessions that live in cookies: what the browser gets to see, and what it sends back.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_token_cache::cookie::CookieStore;
use tower_token_cache::seal::RingKey;
use tower_token_cache::{Clock, KeyRing, Timestamp};

use super::evidence::Evidence;
use super::*;
use common::leaks::Canary;

const PATHS: [&str; 6] = ["/get", "/put", "/large", "/acquire", "/panic", "/end"];

/// An application whose sign-outs are kept in a store.
struct App {
    router: Router,
    sign_outs: TestStore,
    clock: Clock,
}

impl App {
    fn new(evidence: &Evidence, ring: KeyRing, policy: FailurePolicy) -> Self {
        let (sign_outs, clock) = (TestStore::default(), Clock::manual(Timestamp::now()));
        let store = CookieStore::builder(ring)
            .sign_outs_in(sign_outs.clone())
            .clock(clock.clone());
        evidence.debug("a builder", &store);
        let store = store.build().unwrap();
        let layer = store.layer_with(|builder| builder.failure_policy(policy));
        let layer = layer.unwrap().failure_policy(policy);
        evidence.debug("a store", &(&store, &layer, layer.cache()));
        Self {
            router: web::routes().layer(layer),
            sign_outs,
            clock,
        }
    }

    /// The cookies after a response, of which nothing shows a secret.
    async fn send(&self, evidence: &Evidence, path: &str, cookies: &str) -> Option<String> {
        let mut request = Request::get(path);
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies);
        }
        let sent = self
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap());
        // A handler that panics ends its own task only.
        let response = tokio::spawn(sent).await.ok()?.unwrap();
        let cookies = set(evidence, &response);
        evidence.text("headers", &format!("{:?}", response.headers()));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        evidence.bytes("a body", &body);
        cookies
    }
}

/// What a browser sends back after a response that sets cookies.
fn set(evidence: &Evidence, response: &Response<Body>) -> Option<String> {
    let mut pairs = Vec::new();
    for line in response.headers().get_all(SET_COOKIE) {
        let line = line.to_str().unwrap();
        evidence.text("a cookie", line);
        let (pair, _) = line.split_once(';').unwrap();
        pairs.push(pair.to_owned());
        evidence.bytes("a cookie", &text(pair));
    }
    (!pairs.is_empty()).then(|| pairs.join("; "))
}

/// The bytes in a cookie.
fn text(pair: &str) -> Vec<u8> {
    let text = pair.rsplit(['=', '.']).next().unwrap();
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

pub(crate) async fn travel(evidence: &mut Evidence) {
    for policy in POLICIES {
        let app = App::new(evidence, journeys::ring(), policy);
        let good = app.send(evidence, "/put", "").await;
        let Some(good) = good else {
            // Nothing is kept past L2.
            assert_eq!(policy, FailurePolicy::Bypass);
            continue;
        };
        // The id of the session is the browser's alone.
        let session = text(&good)[1..17].to_vec();
        evidence.look_for_in_log(Canary::new("a session in cookies", session));
        for path in PATHS {
            app.send(evidence, path, &good).await;
        }
        // It was signed out by the last.
        app.send(evidence, "/get", &good).await;

        let good = app.send(evidence, "/put", "").await.unwrap();
        for cookies in damaged(&good) {
            for path in PATHS {
                app.send(evidence, path, &cookies).await;
            }
        }
        let strangers = KeyRing::from_keys(RingKey::from_bytes([1; 32]), []);
        let strange = App::new(evidence, strangers, policy);
        strange.send(evidence, "/get", &good).await;

        app.sign_outs.set_down(true);
        for path in PATHS {
            app.send(evidence, path, &good).await;
        }
        app.sign_outs.set_down(false);
        app.clock.advance(Duration::from_secs(15 * 24 * 3600));
        app.send(evidence, "/get", &good).await;
    }
}

/// Characters that are others, ends that are missing, and secrets where cookies should be.
fn damaged(good: &str) -> Vec<String> {
    let at = good.find(".0=").unwrap() + 3;
    let changed = (at..good.len()).step_by(97).map(|place| {
        let other = if &good[place..=place] == "A" {
            "B"
        } else {
            "A"
        };
        format!("{}{other}{}", &good[..place], &good[place + 1..])
    });
    let name = &good[..at];
    let planted = indiscretion().replace(' ', "-");
    let packed = URL_SAFE_NO_PAD.encode(indiscretion());
    changed
        .chain([
            good[..good.len() - 9].to_owned(),
            format!("{name}1.{planted}"),
            format!("{name}1.{packed}"),
            format!("{name}{planted}"),
            format!("{good}; {name}1.{planted}"),
        ])
        .collect()
}
