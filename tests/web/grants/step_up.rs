//! An API that demands another login (RFC 9470), an application that calls it, and a browser.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use common::support::{TestStore, builder, cache, session};
use http::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use tower_token_cache::grant::{IdTokenError, RefreshToken};
use tower_token_cache::outgoing::{BearerLayer, CallError, Origins, TokenError};
use tower_token_cache::session::Cookie;
use tower_token_cache::{Challenge, Error, Timestamp, TokenCacheLayer};

use super::*;

const MFA: &str = "urn:example:mfa";

/// Answers what the provider says of the token that it was sent, if that is enough for the path.
async fn api(
    State(provider): State<Arc<OidcProvider>>,
    Path(demand): Path<String>,
    headers: HeaderMap,
) -> Response {
    let token = headers[AUTHORIZATION].to_str().unwrap();
    let token = token.strip_prefix("Bearer ").unwrap();
    let known = provider.introspect(CLIENT, token).await;
    let age = Timestamp::now().as_millis() / 1000 - known["auth_time"].as_u64().unwrap();
    let challenge = match &*demand {
        "mfa" if known["acr"] != MFA => format!(r#"acr_values="{MFA}""#),
        "fresh" if age > 300 => r#"max_age="300""#.to_owned(),
        _ => return Json(known).into_response(),
    };
    let error = "insufficient_user_authentication";
    let challenge = format!(r#"Negotiate, Bearer realm="api", error="{error}", {challenge}"#);
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
}

/// What the application's handlers do, whatever their framework.
#[derive(Clone)]
struct Handlers {
    flow: AuthorizationCode,
    api: String,
    layer: BearerLayer,
}

/// What a script passes on of the challenge that it has read.
#[derive(Default, Deserialize)]
struct Wanted {
    acr_values: Option<String>,
    max_age: Option<u64>,
    login_hint: Option<String>,
}

impl Handlers {
    async fn begin(&self, tokens: &Tokens, wanted: Wanted) -> Result<String, LoginError> {
        let mut flow = self.flow.clone();
        if let Some(values) = wanted.acr_values {
            flow = flow.acr_values(values.split(' ')).unwrap();
        }
        if let Some(age) = wanted.max_age {
            flow = flow.max_age(Duration::from_secs(age));
        }
        if let Some(hint) = wanted.login_hint {
            flow = flow.param("login_hint", hint).unwrap();
        }
        flow.begin(tokens, "/call/any").await
    }

    async fn end(&self, tokens: &Tokens, callback: Callback) -> Result<String, LoginError> {
        let login = self.flow.end(tokens, callback).await?;
        let _ = tokens.sign_in(login.sign_in("api")).await?;
        Ok(login.return_to)
    }

    async fn call(&self, tokens: Tokens, demand: &str) -> Result<Value, Error> {
        let client = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = Request::get(format!("{}/{demand}", self.api))
            .body(Full::default())
            .unwrap();
        request.extensions_mut().insert(tokens);
        match self.layer.layer(client).oneshot(request).await {
            Ok(answer) => Ok(json!(answer.status().as_u16())),
            Err(CallError::Token(TokenError::Cache(error))) => Err(error),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn with_axum(listener: TcpListener, handlers: Handlers, layer: TokenCacheLayer) {
    type App = State<Handlers>;
    let begin = async |State(app): App, tokens: Tokens, wanted: Query<Wanted>| {
        let url = app.begin(&tokens, wanted.0).await?;
        Ok::<_, LoginError>(Redirect::to(&url))
    };
    let end = async |State(app): App, tokens: Tokens, callback: Query<Callback>| {
        let url = app.end(&tokens, callback.0).await?;
        Ok::<_, LoginError>(Redirect::to(&url))
    };
    let posted = async |State(app): App, tokens: Tokens, callback: Form<Callback>| {
        let url = app.end(&tokens, callback.0).await?;
        Ok::<_, LoginError>(Redirect::to(&url))
    };
    let call = async |State(app): App, tokens: Tokens, demand: Path<String>| {
        let answer = app.call(tokens, &demand).await?;
        Ok::<_, Error>(Json(answer))
    };
    let routes = Router::new()
        .route("/login", get(begin))
        .route("/callback", get(end).post(posted))
        .route("/call/{demand}", get(call))
        .layer(layer)
        .with_state(handlers);
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async { axum::serve(listener, routes).await });
}

fn with_actix(listener: TcpListener, handlers: Handlers, layer: TokenCacheLayer) {
    type Data = web::Data<Handlers>;
    fn to(url: String) -> actix_web::HttpResponse {
        let mut response = actix_web::HttpResponse::SeeOther();
        response.insert_header(("location", url)).finish()
    }
    let routes = move || {
        let begin = async |app: Data, tokens: Tokens, wanted: web::Query<Wanted>| {
            let url = app.begin(&tokens, wanted.into_inner()).await?;
            Ok::<_, LoginError>(to(url))
        };
        let end = async |app: Data, tokens: Tokens, callback: web::Query<Callback>| {
            let url = app.end(&tokens, callback.into_inner()).await?;
            Ok::<_, LoginError>(to(url))
        };
        let posted = async |app: Data, tokens: Tokens, callback: web::Form<Callback>| {
            let url = app.end(&tokens, callback.into_inner()).await?;
            Ok::<_, LoginError>(to(url))
        };
        let call = async |app: Data, tokens: Tokens, demand: web::Path<String>| {
            let answer = app.call(tokens, &demand).await?;
            Ok::<_, Error>(web::Json(answer))
        };
        App::new()
            .wrap(layer.clone())
            .app_data(web::Data::new(handlers.clone()))
            .route("/login", web::get().to(begin))
            .route("/callback", web::get().to(end))
            .route("/callback", web::post().to(posted))
            .route("/call/{demand}", web::get().to(call))
    };
    let server = HttpServer::new(routes).workers(1).disable_signals();
    tokio::spawn(server.listen(listener).unwrap().run());
}

type Serve = fn(TcpListener, Handlers, TokenCacheLayer);
const FRAMEWORKS: [(&str, Serve); 2] = [("axum", with_axum), ("actix", with_actix)];

/// The application, and how often its provider has given tokens for a refresh token.
struct Running {
    url: Url,
    provider: Arc<OidcProvider>,
}

impl Running {
    async fn start(serve: Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let callback = format!("{url}/callback");
        let provider = Arc::new(OidcProvider::start(&callback, 3600));
        let discovered = Provider::discover(provider.issuer()).await.unwrap();
        let client = discovered.client(CLIENT.0).secret(CLIENT.1);
        let client = client.scopes(["openid"]);
        let routes = Router::new()
            .route("/{demand}", get(api))
            .with_state(provider.clone());
        let at = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", at.local_addr().unwrap());
        tokio::spawn(async { axum::serve(at, routes).await });
        let origins = Origins::new([&api]).unwrap();
        let layer = BearerLayer::new("api", RefreshToken::new(client.clone()), origins);
        let handlers = Handlers {
            flow: AuthorizationCode::new(client, callback).unwrap(),
            api,
            layer: layer.unwrap(),
        };
        let cache = builder(TestStore::default()).build().unwrap();
        let sessions = TokenCacheLayer::new(cache, Cookie::new("sid").unwrap());
        serve(listener, handlers, sessions);
        let url = Url::parse(&url).unwrap();
        Self { url, provider }
    }

    fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    /// Goes to a page; the status, and what it asks for.
    async fn get(&self, browser: &mut Browser, path: &str) -> (u16, Option<String>) {
        let answer = browser.go(Method::GET, self.at(path)).await;
        let status = match answer.body.as_u64() {
            Some(status) => status as u16,
            None => answer.status.as_u16(),
        };
        let challenge = answer.challenge.map(|it| it.to_str().unwrap().to_owned());
        (status, challenge)
    }
}

/// The login that a script begins for what an answer asks for.
fn login_for(challenge: &str) -> String {
    let mut headers = HeaderMap::new();
    headers.insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    let challenge = Challenge::from_headers(&headers).expect("a challenge");
    let values = Vec::from_iter(challenge.acr_values()).join(" ");
    let mut query = Vec::new();
    if !values.is_empty() {
        query.push(format!("acr_values={values}"));
    }
    query.extend(
        challenge
            .max_age()
            .map(|age| format!("max_age={}", age.as_secs())),
    );
    format!("/login?{}", query.join("&"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_needs_another_login_goes_through_after_it() {
    for (framework, serve) in FRAMEWORKS {
        let app = Running::start(serve).await;
        let mut browser = Browser::new();
        let session = Some("Session".to_owned());
        assert_eq!(
            app.get(&mut browser, "/call/any").await,
            (401, session),
            "{framework}"
        );
        // A login that was an hour ago, without a second factor.
        let done = app.get(&mut browser, "/login?login_hint=long_ago").await;
        assert_eq!(done, (200, None), "{framework}");
        for (demand, expected) in [
            ("fresh", r#"max_age="300""#),
            ("mfa", r#"acr_values="urn:example:mfa""#),
        ] {
            let page = format!("/call/{demand}");
            let (status, challenge) = app.get(&mut browser, &page).await;
            let challenge = challenge.expect("a challenge");
            let error = r#"Bearer error="insufficient_user_authentication""#;
            assert_eq!(status, 401, "{framework}: {demand}");
            assert_eq!(challenge, format!("{error}, {expected}"), "{framework}");
            // Others are content with the token that there is.
            assert_eq!(app.get(&mut browser, "/call/any").await, (200, None));
            let login = login_for(&challenge);
            assert_eq!(
                app.get(&mut browser, &login).await,
                (200, None),
                "{framework}"
            );
            assert_eq!(
                app.get(&mut browser, &page).await,
                (200, None),
                "{framework}"
            );
        }
        assert_eq!(app.provider.count("invalid_grant").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_what_was_asked_for_does_not_count() {
    let site = Site::start().await;
    let tokens = cache(TestStore::default()).tokens(session("s"));
    let end = async |flow: &AuthorizationCode| {
        let url = flow.begin(&tokens, "/").await.unwrap();
        let back = visit(&mut Browser::new(), &url).await;
        // By the flow that all logins of the site have.
        site.flow.end(&tokens, callback(&back)).await
    };
    let strong = site.flow.clone().acr_values([MFA]).unwrap();
    let fresh = site.flow.clone().max_age(Duration::from_secs(300));
    let login = end(&strong).await.unwrap();
    let acr = login.claims().unwrap().get::<String>("acr");
    assert_eq!(acr.as_deref(), Some(MFA));
    end(&fresh).await.unwrap();
    for (flow, hint, expected) in [
        (&strong, "weak", IdTokenError::Acr),
        (&fresh, "long_ago", IdTokenError::AuthTime),
    ] {
        let flow = flow.clone().param("login_hint", hint).unwrap();
        let refused = end(&flow).await.unwrap_err();
        match refused {
            LoginError::IdToken(error) => assert_eq!(error, expected, "{hint}"),
            other => panic!("{hint}: {other:?}"),
        }
        // As a parameter it is a wish.
        let wish = site.flow.clone().param("acr_values", MFA).unwrap();
        end(&wish.param("login_hint", hint).unwrap()).await.unwrap();
    }
}

/// A browser keeps the session's cookie, `SameSite=Lax`, from a POST that comes from the provider.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_posted_without_its_session_ends_and_spends_nothing() {
    for (framework, serve) in FRAMEWORKS {
        let app = Running::start(serve).await;
        let mut browser = Browser::new();
        let (_, mut next) = browser.step(Method::GET, app.at("/login")).await;
        while next.as_ref().is_some_and(|url| url.path() != "/callback") {
            next = browser.step(Method::GET, next.unwrap()).await.1;
        }
        let back = next.unwrap();
        let pairs = Vec::from_iter(back.query_pairs().into_owned());
        let form = Vec::from_iter(pairs.iter().map(|(name, value)| (&**name, &**value)));
        let (posted, _) = Browser::new().post(app.at("/callback"), &form).await;
        assert_eq!(posted.status, 400, "{framework}");
        assert_eq!(posted.challenge, None, "{framework}");
        // The browser sends its cookie with what it goes to by GET, as after a redirect.
        assert_eq!(
            browser.go(Method::GET, back).await.status,
            200,
            "{framework}"
        );
    }
    // A flow does not ask for it.
    let site = Site::start().await;
    let refused = site.flow.param("response_mode", "form_post").unwrap_err();
    assert_eq!(refused.option(), "param");
}
