//! What a recorder sees of a cache that has done everything, compared with the table in the documentation of
//! `Stats` and, field by field, with `Stats` itself.

use std::collections::{BTreeMap, BTreeSet};

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_token_cache::{Lookup, ProviderError, Stats, Token, TokenCache, TokenSet};

use common::support::{TestStore, session, token};

const PREFIX: &str = "tower_token_cache_";

/// What a recorder has: kind and value of each series, by its name and labels.
type Scrape = BTreeMap<(String, String), (MetricKind, DebugValue)>;

/// Everything that is counted or timed happens, and each kind of hit ten times.
async fn live(cache: &TokenCache, store: &TestStore) {
    let tokens = cache.tokens(session("ada"));
    tokens.insert("graph", token("t")).await.expect("room");
    let _ = tokens.commit().await.expect("stored");
    for _ in 0..10 {
        assert!(tokens.get("graph").await.expect("a hit").is_hit());
        let never = async |_| Err::<TokenSet, _>(ProviderError::refused("server_error"));
        tokens.get_or_acquire("graph", never).await.expect("a hit");
    }
    let (lookup, _) = tokens.get_with_metadata("graph").await.expect("a hit");
    assert!(lookup.is_hit());
    let acquire = async |_| Ok::<_, ProviderError>(TokenSet::from(Token::new("new")));
    tokens.get_or_acquire("mail", acquire).await.expect("new");
    let refuse = async |_| Err::<TokenSet, _>(ProviderError::refused("invalid_grant"));
    let refused = tokens.get_or_acquire("calendar", refuse).await;
    refused.expect_err("is refused");
    store.set_down(true);
    let other = cache.tokens(session("bob"));
    let answer = other.get("graph").await.expect("degrades");
    assert_eq!(answer, Lookup::Unavailable);
    let _ = tokens.sign_out().await.expect("here");
}

fn scrape() -> (Scrape, Stats) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        let store = TestStore::telling();
        let builder = TokenCache::builder(store.clone())
            .namespace("app")
            .plaintext();
        // A recorder is known to one thread.
        let builder = builder.runtime(runtime.handle().clone());
        let cache = builder.build().expect("the defaults");
        runtime.block_on(live(&cache, &store));
        let stats = cache.stats();
        let series = snapshotter.snapshot().into_vec().into_iter();
        let series = series.map(|(key, _, _, value)| {
            let (kind, key) = key.into_parts();
            let labels = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()));
            let labels = labels.collect::<Vec<_>>().join(",");
            ((key.name().to_owned(), labels), (kind, value))
        });
        (series.collect(), stats)
    })
}

/// Name, kind and labels of each metric in the table.
fn documented() -> BTreeSet<(String, String, String)> {
    let source = include_str!("../../src/telemetry.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `tower_token_cache_"));
    let row = |row: &str| {
        let mut cells = row.split('|').map(str::trim);
        let mut cell = || cells.next().expect("a cell");
        let (name, kind, labels) = (cell(), cell(), cell());
        let name = name.strip_suffix('`').expect("a name");
        // Labels stand before their values.
        let labels = match labels.split_once(':') {
            Some((label, _)) => label,
            None => labels,
        };
        let labels = labels.replace(['`', '—', ' '], "");
        (format!("{PREFIX}{name}"), kind.to_owned(), labels)
    };
    rows.map(row).collect()
}

fn kind_of(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

#[test]
fn the_table_is_what_a_recorder_sees() {
    let (scrape, _) = scrape();
    let seen = scrape.iter().map(|((name, labels), (kind, _))| {
        let labels = labels
            .split(',')
            .filter_map(|label| label.split('=').next());
        let labels = labels.collect::<Vec<_>>().join(",");
        (name.clone(), kind_of(*kind).to_owned(), labels)
    });
    let (seen, documented) = (seen.collect::<BTreeSet<_>>(), documented());
    let difference: Vec<_> = seen.symmetric_difference(&documented).collect();
    assert!(
        difference.is_empty(),
        "in one of both only: {difference:#?}"
    );
    for (name, kind, _) in &seen {
        let is_counter = kind == "counter";
        assert_eq!(name.ends_with("_total"), is_counter, "{name} is a {kind}");
    }
}

#[test]
fn each_field_of_stats_is_exported() {
    let (scrape, stats) = scrape();
    assert_eq!(stats.l1_hits, 21, "each hit counts");
    assert_eq!((stats.acquisitions, stats.failed_acquisitions), (1, 1));
    let value = |name: &str, labels: &str| {
        let (_, value) = scrape.get(&(format!("{PREFIX}{name}"), labels.to_owned()))?;
        Some(match value {
            DebugValue::Counter(count) => *count as f64,
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        })
    };
    let has_state = |name: &str, state: &str| value(name, &format!("state={state}")) == Some(1.0);
    let serde_json::Value::Object(fields) = serde_json::to_value(&stats).expect("JSON") else {
        panic!("no object");
    };
    for (field, expected) in fields {
        let number = expected.as_f64();
        let is_exported = match field.as_str() {
            "l2_state" => has_state("l2_state", expected.as_str().expect("a word")),
            "engine_alive" => has_state("engine_state", "alive") && expected == true,
            "feed_alive" if expected == true => has_state("feed_state", "alive"),
            "feed_alive" => has_state("feed_state", "lost") && expected == false,
            "staleness_bound_seconds" => {
                value(&field, "namespace=app") == Some(number.unwrap_or(f64::INFINITY))
            }
            "unopenable_reasons" => {
                let reasons = expected.as_object().expect("reasons").iter();
                let mut reasons = reasons.map(|(reason, count)| {
                    value("unopenable_total", &format!("reason={reason}")) == count.as_f64()
                });
                reasons.all(|is_exported| is_exported)
            }
            // The sum of the reasons.
            "unopenable" => number == Some(0.0),
            _ => value(&field, "").or(value(&format!("{field}_total"), "")) == number,
        };
        assert!(is_exported, "{field} is {expected}");
    }
    let sampled = |labels| value("l2_duration_seconds", labels).is_some_and(|count| count > 0.0);
    assert!(sampled("operation=load,outcome=ok") && sampled("operation=lease,outcome=ok"));
    assert!(sampled("operation=load,outcome=unreachable"));
    assert_eq!(
        value(
            "acquire_failures_total",
            "outcome=reauthentication_required"
        ),
        Some(1.0)
    );
}

/// `l1_misses` are reads that had to ask L2, `flushed_changes` are changes that L2 has taken; however they are made.
#[tokio::test]
async fn keys_and_takes_are_counted() {
    let store = TestStore::default();
    let cache = common::support::cache(store.clone());
    let tokens = cache.tokens(session("s"));
    tokens
        .put("v", "x", std::time::Duration::from_secs(3600))
        .await
        .unwrap();
    common::assert_stored(tokens.commit().await.unwrap());
    let before = cache.stats();
    assert!(tokens.take::<String>("v").await.unwrap().is_hit());
    let flushed = cache.stats().flushed_changes - before.flushed_changes;
    let other = common::support::cache(store.clone());
    let tokens = other.tokens(session("s"));
    let _ = tokens.keys().await.unwrap();
    let stats: Stats = other.stats();
    assert!(stats.l2_reads > 0);
    assert_eq!((flushed, stats.l1_misses), (1, 1), "by `take`, by `keys`");
}
