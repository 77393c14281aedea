//! What an operator sees: spans for OpenTelemetry, metrics for Prometheus, and `/ready`.
//!
//! ```sh
//! cargo run -p telemetry
//! ```
//!
//! Spans go to the standard output. In place of that goes the exporter of your collector, by `with_batch_exporter`: a
//! simple one holds up the thread that ends a span. `LISTEN` is the address of the server, and port 0 takes a free one.

use std::{env, io, time::Duration};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::net::TcpListener;
use tower_token_cache::{
    Error, Health, MemoryStore, ProviderError, Token, TokenCache, TokenCacheLayer, TokenSet,
    Tokens, key,
};
use tracing::{Instrument, Level, info_span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spans = SdkTracerProvider::builder()
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .build();
    // The cache's spans are of level debug.
    let exported = Targets::new()
        .with_default(Level::INFO)
        .with_target("tower_token_cache", Level::DEBUG);
    let exporter = tracing_opentelemetry::layer().with_tracer(spans.tracer("shop"));
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(exporter.with_filter(exported))
        .with(log.with_filter(LevelFilter::INFO))
        .init();

    // Before the cache is built: a cache uses the recorder that is there by then.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let cache = TokenCache::builder(MemoryStore::new()).build()?;
    let scraped = cache.clone();
    let app = Router::new()
        .route("/me", get(me))
        .layer(TokenCacheLayer::new(cache.clone(), key::cookie("sid")))
        .route("/ready", get(ready))
        .with_state(cache.clone())
        .route(
            "/metrics",
            get(async move || {
                // Gauges are as of the last call of it.
                scraped.stats();
                metrics.run_upkeep();
                metrics.render()
            }),
        );

    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}", listener.local_addr()?);
    eprintln!("listening on {url}");
    eprintln!("  curl -b sid=1 {url}/me");
    eprintln!("  curl {url}/metrics");
    eprintln!("  curl {url}/ready");
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    cache.shutdown(Duration::from_secs(5)).await;
    spans.shutdown()?;
    Ok(())
}

/// The acquisition is a child of this request's span, and the call of the provider a child of that.
async fn me(tokens: Tokens) -> Result<&'static str, Error> {
    let acquire = async |_| Ok::<_, ProviderError>(ask_token_endpoint().await);
    let acquired = tokens.get_or_acquire("graph", acquire);
    acquired.instrument(info_span!("GET /me")).await?;
    Ok("calls the API with a token\n")
}

async fn ready(State(cache): State<TokenCache>) -> (StatusCode, Json<Health>) {
    let health = cache.check(Duration::from_millis(500)).await;
    let status = match health.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

/// Stands for the request to your provider.
async fn ask_token_endpoint() -> TokenSet {
    TokenSet::from(Token::new("a").with_expires_in(Duration::from_secs(3600)))
}
