//! The same in actix-web.

use std::net::SocketAddr;

use actix_web::web::{self, Path};
use actix_web::{App, HttpResponse, HttpServer};
use reqwest::{Method, StatusCode};
use tower_token_cache::{Error, Token, TokenCache, Tokens};

use super::jar::Jar;
use super::server::{HOUR, builder, shown, text};

async fn start() -> (SocketAddr, TokenCache) {
    let layer = builder().max_size(20 * 1024).build().unwrap();
    let layer = layer.layer().unwrap();
    let cache = layer.cache().clone();
    let server = HttpServer::new(move || {
        let tokens = web::resource("/tokens/{name}")
            .route(web::get().to(read))
            .route(web::post().to(put))
            .route(web::put().to(put_and_fail));
        App::new()
            .service(tokens)
            .route("/session", web::delete().to(sign_out))
            .wrap(actix_web::middleware::from_fn(fail))
            .wrap(layer.clone())
    });
    let server = server.workers(4).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    (address, cache)
}

/// A middleware that turns what a handler has answered into an error.
async fn fail(
    request: actix_web::dev::ServiceRequest,
    next: actix_web::middleware::Next<impl actix_web::body::MessageBody>,
) -> Result<actix_web::dev::ServiceResponse<impl actix_web::body::MessageBody>, actix_web::Error> {
    let fails = request.method() == "PUT";
    let response = next.call(request).await?;
    match fails {
        true => Err(actix_web::error::ErrorConflict("after the change")),
        false => Ok(response),
    }
}

async fn read(tokens: Tokens, name: Path<String>) -> Result<String, Error> {
    shown(&tokens, &name).await
}

async fn put(tokens: Tokens, name: Path<String>, body: String) -> Result<HttpResponse, Error> {
    let token = Token::new(body).with_expires_in(HOUR);
    tokens.insert(name.as_str(), token).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn put_and_fail(
    tokens: Tokens,
    name: Path<String>,
    body: String,
) -> Result<HttpResponse, Error> {
    put(tokens, name, body).await
}

async fn sign_out(tokens: Tokens) -> Result<String, Error> {
    Ok(format!("{:?}", tokens.sign_out().await?))
}

#[actix_web::test]
async fn sessions_in_cookies_work_in_actix() {
    let (at, cache) = start().await;
    let mut jar = Jar::default();
    for (size, chunks) in [(500, 1), (18_000, 5), (500, 1)] {
        let token = text(size);
        let answer = jar.post(at, "/tokens/a", &token).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
        assert_eq!(jar.0.len(), chunks);
        let end = "; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=3600";
        assert!(answer.lines[0].ends_with(end), "{answer:?}");
        assert_eq!(answer.cache_control.as_deref(), Some("private, no-store"));
        let found = jar.get(at, "/tokens/a").await;
        assert_eq!((found.body, found.lines.len()), (token, 0));
    }
    let answer = jar.post(at, "/tokens/b", &text(30_000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.lines.len(), 0);
    let mut tampered = jar.clone();
    tampered.0.first_entry().unwrap().get_mut().pop();
    assert_eq!(tampered.get(at, "/tokens/a").await.body, "Absent");
    assert_eq!(cache.stats().unopenable, 1);
    let mut copied = jar.clone();
    assert_eq!(
        jar.send(at, Method::DELETE, "/session").await.body,
        "Stored"
    );
    assert_eq!(jar.0.len(), 0);
    assert_eq!(copied.get(at, "/tokens/a").await.body, "Absent");
}

#[actix_web::test]
async fn an_error_after_the_change_carries_the_cookies() {
    let (at, _) = start().await;
    let mut jar = Jar::default();
    let answer = jar.send_body(at, Method::PUT, "/tokens/a", "t").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.body, "after the change");
    assert_eq!(jar.get(at, "/tokens/a").await.body, "t");
}
