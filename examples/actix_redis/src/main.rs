//! Sign-in, a page that needs the user's token, sign-out; every instance shares tokens in Redis.
//!
//! ```sh
//! export KEYS=$(openssl rand -base64 32) # the same for every instance, from a secret store
//! REDIS_URL=redis://127.0.0.1 cargo run -p actix_redis
//! ```
//!
//! `LISTEN` is the address of the server, and port 0 takes a free one.

use std::{env, io, time::Duration};

use actix_web::web::{get, post};
use actix_web::{App, HttpResponse, HttpServer};
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{
    Durability, Error, KeyRing, Lookup, RedisStore, TokenCache, TokenCacheLayer, TokenSet, Tokens,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let redis = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1".into());
    // Built once: all workers share its memory, and it outlives them.
    let cache = TokenCache::builder(RedisStore::connect(redis.as_str()).await?)
        .key_ring(KeyRing::from_env("KEYS")?)
        .build()?;
    // Without TLS, so for the machine that it runs on.
    let cookie = Cookie::new("sid")?.insecure_for_localhost();
    let layer = TokenCacheLayer::new(cache.clone(), cookie);
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(layer.clone())
            .route("/sign-in", post().to(sign_in))
            .route("/me", get().to(me))
            .route("/sign-out", post().to(sign_out))
    })
    .bind(address)?;

    let url = format!("http://{}", server.addrs()[0]);
    println!("listening on {url}");
    println!("  curl -X POST -c cookies.txt {url}/sign-in");
    println!("  curl -b cookies.txt {url}/me");
    println!("  curl -X POST -b cookies.txt {url}/sign-out");
    // Ends at SIGTERM or Ctrl-C.
    server.shutdown_timeout(10).run().await?;

    let report = cache.shutdown(Duration::from_secs(5)).await;
    println!(
        "flushed {} changes, abandoned {}",
        report.flushed, report.abandoned
    );
    Ok(())
}

/// Where your OAuth flow ends: the browser gets a new session, with the token endpoint's answer in it.
async fn sign_in(tokens: Tokens) -> Result<HttpResponse, Error> {
    let sign_in = SignIn::new("graph", ask_token_endpoint());
    Ok(match tokens.sign_in(sign_in).await? {
        Durability::Stored => HttpResponse::Ok().body("signed in\n"),
        // Other instances do not know the session until then.
        Durability::Pending => HttpResponse::Accepted().body("signed in here, soon everywhere\n"),
    })
}

/// A page that calls an API with the user's token.
async fn me(tokens: Tokens) -> Result<HttpResponse, Error> {
    Ok(match tokens.get("graph").await? {
        Lookup::Hit(token) => {
            let kind = token.token_type().unwrap_or("Bearer");
            let level = tokens.last_read();
            let text = format!("would call the API with a {kind} token from {level:?}\n");
            HttpResponse::Ok().body(text)
        }
        Lookup::Unavailable => HttpResponse::ServiceUnavailable().body("try again later\n"),
        _ => HttpResponse::Unauthorized().body("sign in first\n"),
    })
}

async fn sign_out(tokens: Tokens) -> Result<HttpResponse, Error> {
    Ok(match tokens.sign_out().await? {
        Durability::Stored => HttpResponse::Ok().body("signed out\n"),
        // Other instances go on with the session until then.
        Durability::Pending => HttpResponse::Accepted().body("signed out here, soon everywhere\n"),
    })
}

/// Stands for the request to your provider; the `oauth2` crate's answers can be inserted as well.
fn ask_token_endpoint() -> TokenSet {
    let answer = r#"{"access_token": "a", "token_type": "Bearer", "expires_in": 3600}"#;
    serde_json::from_str(answer).expect("an answer as in RFC 6749")
}
