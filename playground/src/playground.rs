//! An instrumented server for trying things out, on axum. `common` has its contract.
//!
//! ```sh
//! cargo run -p playground -- --store sqlite:tokens.db
//! ```

mod common;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tower_token_cache::{Error, Tokens};

use crate::common::{Answer, Content, Demand, Options, Site, Trial};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let options = Options::from_args();
    let site = options.site().await;
    let listener = match TcpListener::bind(&options.listen).await {
        Ok(listener) => listener,
        Err(error) => common::complain(&format!("--listen: {error}")),
    };
    let app = Router::new()
        .route("/tokens", get(list).delete(sign_out))
        .route("/tokens/{name}", get(read).put(put).delete(remove))
        .route("/acquire/{name}", post(acquire))
        .layer(site.layer.clone())
        .route("/status", get(status))
        .route("/sessions/{user}", get(sessions).delete(sign_out_user))
        .with_state(site.clone());

    let stop = common::stop_signal()?.shared();
    common::announce(listener.local_addr()?);
    let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone());
    tokio::select! {
        ended = server.into_future() => ended?,
        () = stop.then(|()| tokio::time::sleep(common::DEADLINE)) => {}
    }
    common::drain(&site.cache).await;
    Ok(())
}

async fn read(tokens: Tokens, Path(name): Path<String>) -> Result<Answer, Error> {
    common::get(&tokens, &name).await
}

async fn list(tokens: Tokens) -> Result<Answer, Error> {
    common::list(&tokens).await
}

async fn put(
    tokens: Tokens,
    Path(name): Path<String>,
    Query(trial): Query<Trial>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, Error> {
    let user = headers
        .get(common::USER)
        .and_then(|user| user.to_str().ok());
    common::put(tokens, name, trial, user, body).await
}

async fn remove(tokens: Tokens, Path(name): Path<String>) -> Result<Answer, Error> {
    common::remove(&tokens, &name).await
}

async fn sign_out(tokens: Tokens) -> Result<Answer, Error> {
    common::sign_out(&tokens).await
}

async fn acquire(
    tokens: Tokens,
    State(site): State<Site>,
    Path(name): Path<String>,
    Query(demand): Query<Demand>,
) -> Result<Answer, Error> {
    common::acquire(tokens, &site.providers, name, demand).await
}

async fn sessions(State(site): State<Site>, Path(user): Path<String>) -> Result<Answer, Error> {
    common::sessions(&site.cache, &user).await
}

async fn sign_out_user(
    State(site): State<Site>,
    Path(user): Path<String>,
) -> Result<Answer, Error> {
    common::sign_out_user(&site.cache, &user).await
}

async fn status(State(site): State<Site>) -> Answer {
    common::status(&site.cache)
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Ok(status) = StatusCode::from_u16(self.status) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let body = match self.content {
            Content::Empty => Body::empty().into_response(),
            Content::Json(value) => Json(value).into_response(),
            Content::Stream(stream) => Body::from_stream(stream).into_response(),
        };
        (status, AppendHeaders(self.headers), body).into_response()
    }
}
