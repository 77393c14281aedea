//! What a trace shows, compared with the table in the documentation of `Stats`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};

use tower_token_cache::{ProviderError, Token, TokenCache, TokenSet};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use common::support::{TestStore, session};

/// A span that was seen.
#[derive(Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeSet<&'static str>,
    values: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.values
            .insert(field.name(), format!("{value:?}").replace('"', ""));
    }
}

#[derive(Clone, Default)]
struct Trace(Arc<Mutex<BTreeMap<u64, Seen>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).expect("it is new");
        let fields = attributes.metadata().fields().iter();
        let mut seen = Seen {
            name: span.name(),
            parent: span.parent().map(|parent| parent.name()),
            fields: fields.map(|field| field.name()).collect(),
            ..Seen::default()
        };
        attributes.record(&mut seen);
        // Ids are used again.
        let mut spans = self.0.lock().unwrap();
        if let Some(former) = spans.remove(&id.into_u64()) {
            let number = u64::MAX - spans.len() as u64;
            spans.insert(number, former);
        }
        spans.insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        values.record(spans.get_mut(&id.into_u64()).expect("a span"));
    }
}

/// While there is one subscriber only, `tracing` takes it for that of every thread: a test of another thread that is
/// the first to come to one of our spans would switch it off.
static OTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

/// The spans of one request that acquires a token, at this level.
fn trace(level: Level) -> Vec<Seen> {
    LazyLock::force(&OTHER);
    let trace = Trace::default();
    let levels = tracing_subscriber::filter::LevelFilter::from_level(level);
    let subscriber = tracing_subscriber::registry().with(trace.clone().with_filter(levels));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let builder = TokenCache::builder(TestStore::default());
        // A subscriber is known to one thread.
        let cache = builder.runtime(runtime.handle().clone()).build().unwrap();
        runtime.block_on(async {
            let tokens = cache.tokens(session("ada"));
            let acquire = async |_| {
                let _call = tracing::info_span!("http").entered();
                Ok::<_, ProviderError>(TokenSet::from(Token::new("t")))
            };
            let asking = tokens.get_or_acquire("graph", acquire);
            let request = tracing::info_span!("request");
            tracing::Instrument::instrument(asking, request)
                .await
                .unwrap();
            // A hit.
            tokens.get_or_acquire("graph", acquire).await.unwrap();
            let _ = tokens.sign_out().await.unwrap();
        });
    });
    let spans = trace.0.lock().unwrap();
    spans.values().cloned().collect()
}

#[test]
fn the_table_is_what_a_trace_shows() {
    let source = include_str!("../../src/telemetry.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `token_cache."));
    let documented = rows.map(|row| {
        let mut cells = row.split('|').map(|cell| cell.replace(['`', ' ', '—'], ""));
        let name = format!("token_cache.{}", cells.next().unwrap());
        let fields = cells.next().unwrap();
        let fields = fields
            .split(',')
            .filter(|field| !field.is_empty())
            .map(str::to_owned);
        (name, fields.collect::<BTreeSet<_>>())
    });
    let spans = trace(Level::DEBUG);
    let ours = spans
        .iter()
        .filter(|span| span.name.starts_with("token_cache."));
    let seen = ours.map(|span| {
        let fields = span.fields.iter().map(|field| (*field).to_owned());
        (span.name.to_owned(), fields.collect::<BTreeSet<_>>())
    });
    assert_eq!(
        seen.collect::<BTreeSet<_>>(),
        documented.collect::<BTreeSet<_>>()
    );
}

#[test]
fn an_acquisition_is_within_its_request_and_the_provider_within_the_acquisition() {
    let spans = trace(Level::DEBUG);
    let named = |name: &str| {
        spans
            .iter()
            .filter(|span| span.name == name)
            .collect::<Vec<_>>()
    };
    let [acquire] = named("token_cache.acquire")[..] else {
        panic!("a hit has no span");
    };
    assert_eq!(acquire.parent, Some("request"));
    assert_eq!(acquire.values["outcome"], "ok");
    assert_eq!(acquire.values["token_source"], "identity_provider");
    assert_eq!(acquire.values["cache_level"], "none");
    assert_eq!(
        acquire.values["cache_refresh_reason"],
        "no_cached_access_token"
    );
    let parent = |name: &str| named(name)[0].parent;
    assert_eq!(parent("token_cache.provider"), Some("token_cache.acquire"));
    assert_eq!(parent("http"), Some("token_cache.provider"));
    let l2 = named("token_cache.l2");
    let commit = l2.iter().find(|span| span.values["operation"] == "clear");
    let commit = commit.expect("a sign-out");
    assert_eq!(
        (&*commit.values["partitions"], &*commit.values["outcome"]),
        ("1", "ok")
    );
    assert_eq!(commit.values["attempts"], "1");
}

#[test]
fn without_our_spans_the_provider_is_within_the_request() {
    let spans = trace(Level::INFO);
    let names: Vec<_> = spans.iter().map(|span| (span.name, span.parent)).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&("http", Some("request"))), "{names:?}");
}
