//! An instrumented server for trying things out, on actix-web. `common` has its contract.
//!
//! ```sh
//! cargo run -p playground --bin playground_actix -- --store sqlite:tokens.db
//! ```

mod common;

use std::net::TcpListener;

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, Path, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, body::BoxBody};
use tower_token_cache::{Error, Tokens};

use crate::common::{Answer, Content, Demand, Options, Site, Trial};

/// As much as axum takes; the cache has a limit of its own.
const MAX_BODY: usize = 2 << 20;

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let options = Options::from_args();
    let site = options.site().await;
    let listener = match TcpListener::bind(&options.listen) {
        Ok(listener) => listener,
        Err(error) => common::complain(&format!("--listen: {error}")),
    };
    let address = listener.local_addr()?;
    // One cache, which every worker's copy of the layer shares.
    let layer = site.layer.clone();
    let data = Data::new(site.clone());
    let app = move || {
        let tokens = web::scope("/tokens")
            .wrap(layer.clone())
            .route("", web::get().to(list))
            .route("", web::delete().to(sign_out))
            .route("/{name}", web::get().to(read))
            .route("/{name}", web::put().to(put))
            .route("/{name}", web::delete().to(remove));
        let acquisitions = web::scope("/acquire")
            .wrap(layer.clone())
            .route("/{name}", web::post().to(acquire));
        App::new()
            .app_data(web::PayloadConfig::new(MAX_BODY))
            .app_data(data.clone())
            .service(tokens)
            .service(acquisitions)
            .route("/status", web::get().to(status))
            .route("/sessions/{user}", web::get().to(sessions))
            .route("/sessions/{user}", web::delete().to(sign_out_user))
    };

    let stop = common::stop_signal()?;
    let server = HttpServer::new(app)
        .listen(listener)?
        .h1_allow_half_closed(false)
        .disable_signals()
        .shutdown_timeout(common::DEADLINE.as_secs())
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(async move {
        stop.await;
        handle.stop(true).await;
    });
    common::announce(address);
    server.await?;
    common::drain(&site.cache).await;
    Ok(())
}

async fn read(tokens: Tokens, name: Path<String>) -> Result<Answer, Error> {
    common::get(&tokens, &name).await
}

async fn list(tokens: Tokens) -> Result<Answer, Error> {
    common::list(&tokens).await
}

async fn put(
    tokens: Tokens,
    name: Path<String>,
    trial: Query<Trial>,
    request: HttpRequest,
    body: Bytes,
) -> Result<Answer, Error> {
    let user = request.headers().get(common::USER);
    let user = user.and_then(|user| user.to_str().ok());
    common::put(tokens, name.into_inner(), trial.into_inner(), user, body).await
}

async fn remove(tokens: Tokens, name: Path<String>) -> Result<Answer, Error> {
    common::remove(&tokens, &name).await
}

async fn sign_out(tokens: Tokens) -> Result<Answer, Error> {
    common::sign_out(&tokens).await
}

async fn acquire(
    tokens: Tokens,
    site: Data<Site>,
    name: Path<String>,
    demand: Query<Demand>,
) -> Result<Answer, Error> {
    let (name, demand) = (name.into_inner(), demand.into_inner());
    common::acquire(tokens, &site.providers, name, demand).await
}

async fn sessions(site: Data<Site>, user: Path<String>) -> Result<Answer, Error> {
    common::sessions(&site.cache, &user).await
}

async fn sign_out_user(site: Data<Site>, user: Path<String>) -> Result<Answer, Error> {
    common::sign_out_user(&site.cache, &user).await
}

async fn status(site: Data<Site>) -> Answer {
    common::status(&site.cache)
}

impl Responder for Answer {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let Ok(status) = StatusCode::from_u16(self.status) else {
            return HttpResponse::InternalServerError().finish();
        };
        let mut response = HttpResponse::build(status);
        for header in self.headers {
            response.append_header(header);
        }
        match self.content {
            Content::Empty => response.finish(),
            Content::Json(value) => response.json(value),
            Content::Stream(stream) => response.streaming(stream),
        }
    }
}
