//! What both playgrounds do, whichever framework serves it. The HTTP contract:
//!
//! | request | answer |
//! |---|---|
//! | `PUT /tokens/{name}`, a token endpoint's answer as JSON | 204; [`Trial`] says whose it is, and what else it can do |
//! | `GET /tokens/{name}` | the token as JSON, and where it was found; 404; 503 under `strict` |
//! | `GET /tokens` | the names, a JSON array |
//! | `DELETE /tokens/{name}` | 204 |
//! | `DELETE /tokens` | signs out: 204, or 202 while the store cannot be told |
//! | `POST /acquire/{name}` | a usable token as JSON, from the cache or the provider of `--issuer` |
//! | `GET /sessions/{user}` | how many sessions are linked to a user: `{"sessions": n}`; needs no key |
//! | `DELETE /sessions/{user}` | signs all of them out: 204, or 202 as above; needs no key |
//! | `GET /status` | what the cache has done, as JSON; needs no key |
//!
//! Header `x-cache-level` of a `GET` is `l1` or `l2`, and of a 404 `none` or `unavailable`; with
//! `x-cache-miss: unopenable` there is an entry, which cannot be read.
//!
//! An acquisition is the refresh-token grant if the partition has a refresh token, else the one for
//! client credentials; [`Demand`] says what else it can ask for. Its answer:
//!
//! | member | is |
//! |---|---|
//! | `access_token` | the token |
//! | `token_source` | `cache` or `identity_provider` |
//! | `cache_level` | `l1`, `l2`, `none` or `unavailable` |
//! | `cache_refresh_reason` | why the provider was asked; `not_applicable` if it was not |
//! | `duration_total_ms`, `duration_in_cache_ms`, `duration_in_http_ms` | milliseconds, with fractions |
//! | `exclusive` | whether L2 kept other instances from asking the provider meanwhile |
//!
//! Without a token the answer is `{"error": …}`: 401 `reauthentication_required`; 503
//! `retry_later` with `Retry-After` in seconds; 502 `timed_out`, `panicked` or `failed`; 501
//! `no_issuer` when there is no `--issuer`.
//!
//! The partition is named by header `x-session`, else by cookie `sid`, else it is the application's
//! that header `x-application` names; without one: 401. With
//! `--store cookie` it is in the cookies `ttc.0`, `ttc.1` and so on (`--prefix` names them), a request
//! without them begins a new one, and a token that is too large for them is answered 413. Headers
//! `x-failure-policy` (`degrade`, `strict`, `bypass`) and `x-write-mode` (`after`, `before`)
//! override the options for one request; other values are ignored. A `PUT` with header `x-user`
//! links its session to this user first.
//!
//! `GET /status` has a member for each field of [`Stats`], and these:
//!
//! | member | is |
//! |---|---|
//! | `l2_state` | `closed`, `open` or `half_open` |
//! | `feed_alive` | `true` or `false`; `null` where the store does not tell what changes |
//! | `staleness_bound_ms` | how long a change elsewhere can go unnoticed now; `null` is without bound |
//!
//! SIGTERM or Ctrl-C ends it: open requests have [`DEADLINE`] to end, then what waits has it to
//! reach the store, and the last line of the output is `drained flushed=… abandoned=…`. A second
//! signal ends it at once, with code 143 or 130, and what waits is lost.

mod acquire;
mod options;
mod put;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::Write;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::HeaderName;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tower_token_cache::key::{self, KeyExtractor};
use tower_token_cache::{
    BreakerState, CacheLevel, Durability, Error, KeyError, Lookup, PartitionKey, RequestHead,
    Stats, Timestamp, TokenCache, TokenCacheLayer, Tokens,
};

pub(crate) use self::acquire::{Demand, Provider, acquire};
pub(crate) use self::options::{Options, complain};
pub(crate) use self::put::{Trial, put};

/// How long open requests may take to end at shutdown, and the drain after them.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// What every handler may need.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) cache: TokenCache,
    /// The layer of the token routes.
    pub(crate) layer: TokenCacheLayer,
    pub(crate) providers: Providers,
}

/// By client; that of the default client has an empty name.
pub(crate) type Providers = Arc<HashMap<String, Arc<Provider>>>;

/// A response, for either framework.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Empty,
    Json(Value),
    Stream(BoxStream<'static, Result<Bytes, Error>>),
}

impl Answer {
    fn new(status: u16, content: Content) -> Self {
        let headers = Vec::new();
        Self {
            status,
            headers,
            content,
        }
    }

    fn empty(status: u16) -> Self {
        Self::new(status, Content::Empty)
    }

    fn json(body: Value) -> Self {
        Self::new(200, Content::Json(body))
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, Content::Json(json!({"error": code})))
    }

    fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }
}

/// The tokens of this client, or of the default one.
fn of_client(tokens: Tokens, client: &str) -> Result<Tokens, Error> {
    match client {
        "" => Ok(tokens),
        name => tokens.client(name),
    }
}

/// `GET /tokens/{name}`
pub(crate) async fn get(tokens: &Tokens, name: &str) -> Result<Answer, Error> {
    let miss = |level| Answer::empty(404).with("x-cache-level", level);
    let token = match tokens.get(name).await? {
        Lookup::Hit(token) => token,
        Lookup::Absent => return Ok(miss("none")),
        Lookup::Unavailable => return Ok(miss("unavailable")),
        Lookup::Unopenable => return Ok(miss("none").with("x-cache-miss", "unopenable")),
    };
    let level = match tokens.last_read() {
        CacheLevel::L1 => "l1",
        _ => "l2",
    };
    let refresh_token = tokens.refresh_token().await?.hit();
    let id_token = tokens.id_token().await?.hit();
    let seconds_left = |end: Timestamp| end.since(Timestamp::now()).as_secs();
    let members = [
        ("name", Some(name.into())),
        ("access_token", Some(token.access_token().into())),
        ("token_type", token.token_type().map(Value::from)),
        ("scope", token.scope().map(Value::from)),
        (
            "expires_in",
            token.expires_at().map(|end| seconds_left(end).into()),
        ),
        (
            "refresh_token",
            refresh_token.map(|token| token.expose().into()),
        ),
        ("id_token", id_token.map(|token| token.expose().into())),
    ];
    let present = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.into(), value?)));
    let body = Value::Object(present.collect::<Map<_, _>>());
    Ok(Answer::json(body).with("x-cache-level", level))
}

/// `GET /tokens`
pub(crate) async fn list(tokens: &Tokens) -> Result<Answer, Error> {
    let keys = tokens.keys().await?;
    Ok(Answer::json(keys.iter().map(ToString::to_string).collect()))
}

/// `DELETE /tokens/{name}`
pub(crate) async fn remove(tokens: &Tokens, name: &str) -> Result<Answer, Error> {
    tokens.remove(name).await?;
    Ok(Answer::empty(204))
}

/// `DELETE /tokens`
pub(crate) async fn sign_out(tokens: &Tokens) -> Result<Answer, Error> {
    Ok(signed_out(tokens.sign_out().await?))
}

/// `GET /sessions/{user}`
pub(crate) async fn sessions(cache: &TokenCache, user: &str) -> Result<Answer, Error> {
    let sessions = cache.sessions_of(user).await?;
    Ok(Answer::json(json!({"sessions": sessions.len()})))
}

/// `DELETE /sessions/{user}`
pub(crate) async fn sign_out_user(cache: &TokenCache, user: &str) -> Result<Answer, Error> {
    Ok(signed_out(cache.sign_out_user(user).await?))
}

/// 204, or 202 while other instances may not have heard of it.
fn signed_out(durability: Durability) -> Answer {
    match durability {
        Durability::Stored => Answer::empty(204),
        Durability::Pending => {
            let body = json!({"signed_out": "here, and elsewhere once the store can be told"});
            Answer::new(202, Content::Json(body))
        }
    }
}

/// `GET /status`
pub(crate) fn status(cache: &TokenCache) -> Answer {
    let stats: Stats = cache.stats();
    let reasons = stats.unopenable_reasons;
    let l2_state = match stats.l2_state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    };
    Answer::json(json!({
        "l1_entries": stats.l1_entries,
        "l1_bytes": stats.l1_bytes,
        "l1_hits": stats.l1_hits,
        "l1_misses": stats.l1_misses,
        "l2_reads": stats.l2_reads,
        "l2_commits": stats.l2_commits,
        "l2_errors": stats.l2_errors,
        "pending_changes": stats.pending_changes,
        "pending_sign_outs": stats.pending_sign_outs,
        "flushed_changes": stats.flushed_changes,
        "unopenable": stats.unopenable,
        "unopenable_reasons": {
            "foreign": reasons.foreign,
            "unknown_version": reasons.unknown_version,
            "damaged": reasons.damaged,
            "too_large": reasons.too_large,
            "misplaced": reasons.misplaced,
            "unknown_key": reasons.unknown_key,
            "revoked_key": reasons.revoked_key,
            "tampered": reasons.tampered,
            "plaintext": reasons.plaintext,
        },
        "accepted_plaintext": stats.accepted_plaintext,
        "signed_out_changes": stats.signed_out_changes,
        "superseded_changes": stats.superseded_changes,
        "recovered_changes": stats.recovered_changes,
        "abandoned_changes": stats.abandoned_changes,
        "abandoned_sign_outs": stats.abandoned_sign_outs,
        "invalid_keys": stats.invalid_keys,
        "acquisitions": stats.acquisitions,
        "failed_acquisitions": stats.failed_acquisitions,
        "l2_state": l2_state,
        "feed_alive": stats.feed_alive,
        "staleness_bound_ms": stats.staleness_bound.map(|bound| bound.as_millis() as u64),
    }))
}

/// The header that names the user of a session.
pub(crate) const USER: &str = "x-user";

/// Where a request says whose tokens it is about.
fn session() -> impl KeyExtractor {
    let session = key::header("x-session");
    session.or(key::cookie("sid")).or(key::from_fn(application))
}

fn application(head: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
    let name = HeaderName::from_static("x-application");
    let name = head.headers(&name).next();
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    name.map(|name| PartitionKey::application(name, ""))
        .transpose()
}

/// What a request can choose.
fn with_choices(layer: TokenCacheLayer) -> TokenCacheLayer {
    let policy = HeaderName::from_static("x-failure-policy");
    let mode = HeaderName::from_static("x-write-mode");
    layer
        .failure_policy_for(move |head| options::failure_policy(text(head, &policy)?))
        .write_mode_for(move |head| options::write_mode(text(head, &mode)?))
}

fn text<'a>(head: &RequestHead<'a>, name: &HeaderName) -> Option<&'a str> {
    std::str::from_utf8(head.headers(name).next()?).ok()
}

/// Resolves on SIGTERM or Ctrl-C. The next one ends the process at once.
pub(crate) fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let mut signals = [(terminate, 143), (interrupt, 130)];
    Ok(async move {
        received(&mut signals).await;
        // From here on somebody always listens: the process stays as long as it is not told twice.
        tokio::spawn(async move {
            let code = received(&mut signals).await;
            std::process::exit(code);
        });
    })
}

/// The exit code that stands for the next signal.
async fn received(signals: &mut [(Signal, i32)]) -> i32 {
    poll_fn(|context| {
        let mut ready = signals.iter_mut().filter_map(|(signal, code)| {
            let received = signal.poll_recv(context).is_ready();
            received.then_some(*code)
        });
        ready.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// The first line of the output.
pub(crate) fn announce(address: std::net::SocketAddr) {
    say(format_args!("listening on http://{address}"));
}

/// Writes what is left to the store, and then the last line of the output.
pub(crate) async fn drain(cache: &TokenCache) {
    // Logged once it has begun.
    let begun = async { tracing::info!("draining") };
    let (report, ()) = futures_util::future::join(cache.shutdown(DEADLINE), begun).await;
    if report.sign_outs_abandoned > 0 {
        say(format_args!(
            "sign_outs_abandoned={}",
            report.sign_outs_abandoned
        ));
    }
    say(format_args!(
        "drained flushed={} abandoned={}",
        report.flushed, report.abandoned
    ));
}

/// A line for whoever started this process, and may have gone away.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
