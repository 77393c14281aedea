//! `Proxy`: an API behind a back end for a front end.

#[cfg(feature = "actix")]
mod actix;
mod sending;
mod service;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer as _;
use tower_service::Service as _;

use self::sending::Sending;
use super::bearer::are_listed;
use super::{BearerLayer, BearerService, CallError, TokenError};
use crate::acquire::BoxError;
use crate::error::{ConfigError, Error, session_challenge};
use crate::grant::{HttpClient, keep_demand};
use crate::tokens::Tokens;

/// The methods that are passed on. `TRACE` would show the token to the browser, and `CONNECT` is for proxies of another kind.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];
/// What the API is told of a request.
const OF_REQUESTS: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
];
/// What the browser is told of an answer.
const OF_ANSWERS: [HeaderName; 6] = [
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::RETRY_AFTER,
];
/// The longest body of a request, in bytes: what axum takes by default.
const MAX_REQUEST: usize = 2 * 1024 * 1024;

/// Passes the requests of a browser on to an API, with the user's token in place of the cookie: the heart of a back end for a
/// front end.
///
/// A tower service, for `nest_service` of axum, and a handler of actix-web. The
/// [layer](crate::TokenCacheLayer) has to be around it. What the [`BearerLayer`] does it does here: a token that is refused is
/// replaced once, and [what only the user can give](super) is answered with the API's challenge. That waits in the session, too,
/// unless it has scopes that are [not listed](BearerLayer::scopes_on_demand):
/// [`AuthorizationCode::demanded`](crate::grant::AuthorizationCode::demanded) is the login for it.
///
/// ```
/// use axum::Router;
/// use tower_token_cache::grant::{Client, RefreshToken};
/// use tower_token_cache::outgoing::{BearerLayer, Origins, Proxy};
/// use tower_token_cache::{BoxError, TokenCache, TokenCacheLayer, session::Cookie};
///
/// fn routes(cache: TokenCache, client: Client) -> Result<Router, BoxError> {
///     const API: &str = "https://api.example";
///     let bearer = BearerLayer::new("api", RefreshToken::new(client), Origins::new([API])?)?;
///     let proxy = Proxy::new(API, bearer)?;
///     Ok(Router::new()
///         .nest_service("/bff/api", proxy)
///         // and what keeps other sites' pages out: see `examples/bff`.
///         .layer(TokenCacheLayer::new(cache, Cookie::new("sid")?)))
/// }
/// ```
///
/// With actix-web it is `.route("/bff/api/{path:.*}", web::to(proxy.clone()))`: what stands before the brace is taken away.
///
/// # What is passed on
///
/// | | |
/// |---|---|
/// | methods | `GET`, `POST`, `PUT`, `PATCH`, `DELETE`; others are answered 405 |
/// | path and query | As they are. A path with `.` or `..` in it, in whatever spelling, is answered 400. |
/// | headers of the request | `Accept`, `Accept-Language`, `Content-Encoding`, `Content-Language`, `Content-Type`, `If-Match`, `If-None-Match`. No cookie, no `Authorization`, nothing of the connection. |
/// | headers of the answer | `Content-Disposition`, `Content-Encoding`, `Content-Language`, `Content-Type`, `ETag`, `Retry-After`. No cookie of the API's, no `Location`, nothing that it says to caches or of other origins. |
/// | bodies | Of requests up to 2 MiB (413), of answers [up to 8 MiB](Self::max_answer) (502). Both are read as a whole. |
///
/// Redirects are not followed: one could lead to what only this server can reach. Each answer has `Cache-Control: no-store` and
/// `X-Content-Type-Options: nosniff`. An API that does not answer [in time](Self::timeout) or whose answer is no whole one is a
/// 502. For streams and uploads, call the API by the [`BearerLayer`].
#[derive(Clone)]
pub struct Proxy {
    api: Box<str>,
    bearer: BearerLayer,
    sending: Sending,
}

impl Proxy {
    /// Passes requests on to this API, such as `https://api.example` or `https://api.example/v1`, with the token of this layer.
    ///
    /// # Errors
    /// [`ConfigError`] for an API that is no such URL, or whose origin is not among those of the layer; and if there are no
    /// random numbers for TLS.
    pub fn new(api: impl AsRef<str>, bearer: BearerLayer) -> Result<Self, ConfigError> {
        let api = api.as_ref().trim_end_matches('/');
        let wrong = |reason| ConfigError::new("api", reason);
        let uri: Uri = api.parse().map_err(|_| wrong("must be a URL"))?;
        if uri.query().is_some() || api.contains('#') || is_odd(uri.path()) {
            return Err(wrong("must have no query, no fragment, and no dots"));
        }
        if uri.authority().is_none() || !bearer.settings().origins.allow(&uri) {
            return Err(wrong("must be at an origin of the layer"));
        }
        Ok(Self {
            api: api.into(),
            bearer,
            sending: Sending::new(HttpClient::over_hyper()?),
        })
    }

    /// The client that requests go out by. It follows no redirect. Defaults to hyper with rustls and the roots of Mozilla,
    /// without a proxy.
    pub fn http_client(mut self, client: impl Into<HttpClient>) -> Self {
        self.sending.client = client.into();
        self
    }

    /// How long the API may take for an answer; after a 401 for each of two. Defaults to ten seconds, as users wait no longer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.sending.timeout = timeout;
        self
    }

    /// The longest answer of the API, in bytes: a longer one is a 502. Defaults to 8 MiB, for it is kept in memory until it is
    /// whole.
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.sending.max_answer = bytes;
        self
    }

    /// The answer to a request, whatever the framework.
    async fn pass<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let mut answer = match METHODS.contains(&head.method) {
            true => match self.outgoing(&head, body).await {
                Ok(outgoing) => self.call(outgoing).await,
                Err(status) => plain(status, ""),
            },
            false => {
                let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "");
                let all = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
                refused.headers_mut().insert(header::ALLOW, all);
                refused
            }
        };
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        answer
    }

    /// The request that the API gets, but for the token; or why it gets none.
    async fn outgoing<B>(
        &self,
        head: &http::request::Parts,
        body: B,
    ) -> Result<Request<Bytes>, StatusCode>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        if is_odd(head.uri.path()) {
            return Err(StatusCode::BAD_REQUEST);
        }
        let path = head.uri.path_and_query().map_or("/", |it| it.as_str());
        let uri = format!("{}{path}", self.api).parse::<Uri>();
        let uri = uri.map_err(|_| StatusCode::BAD_REQUEST)?;
        let body = sending::read(body, MAX_REQUEST).await?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        copy(&OF_REQUESTS, &head.headers, request.headers_mut());
        if let Some(tokens) = head.extensions.get::<Tokens>() {
            request.extensions_mut().insert(tokens.clone());
        }
        Ok(request)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let tokens = request.extensions().get::<Tokens>().cloned();
        // One that is ready at all times.
        let mut service: BearerService<Sending> = self.bearer.layer(self.sending.clone());
        match service.call(request).await {
            // It is for the connection to the API alone (RFC 9110 §15.2).
            Ok(answer) if answer.status().is_informational() => {
                plain(StatusCode::BAD_GATEWAY, "an outgoing request failed")
            }
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                let mut answer = Response::new(Full::new(body));
                *answer.status_mut() = head.status;
                copy(&OF_ANSWERS, &head.headers, answer.headers_mut());
                asking(&mut answer, session_challenge(head.status));
                answer
            }
            Err(error) => {
                if let CallError::Token(TokenError::Cache(Error::StepUp(challenge))) = &error
                    && are_listed(challenge, &self.bearer.settings().on_demand)
                    && let Some(tokens) = tokens
                {
                    keep_demand(&tokens, challenge).await;
                }
                refusal(&error)
            }
        }
    }
}

/// As the frameworks answer with this error.
fn refusal(error: &CallError<BoxError>) -> Response<Full<Bytes>> {
    let CallError::Token(TokenError::Cache(cause)) = error else {
        return plain(error.status(), &error.to_string());
    };
    let mut answer = plain(cause.status(), &cause.to_string());
    if let Some(after) = cause.retry_after() {
        let headers = answer.headers_mut();
        headers.insert(header::RETRY_AFTER, after.as_secs().into());
    }
    asking(&mut answer, cause.www_authenticate());
    answer
}

fn asking(answer: &mut Response<Full<Bytes>>, challenge: Option<HeaderValue>) {
    if let Some(challenge) = challenge {
        let headers = answer.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = status;
    if !text.is_empty() {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    answer
}

fn copy(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// Whether a server may take a part of this path for a step to another place than it says: dots and slashes are
/// percent-decoded by some, backslashes are slashes for others, and `..;` are two dots.
fn is_odd(path: &str) -> bool {
    let plain = path.to_ascii_lowercase().replace("%2e", ".");
    let plain = plain.replace("%2f", "/").replace(['\\'], "/");
    let mut parts = plain.split('/').flat_map(|part| part.split("%5c"));
    parts.any(|part| matches!(part.split(';').next(), Some("." | "..")))
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
