//! A configuration means what the same calls mean.

use serde_json::json;

use super::*;
use crate::cache::TokenCache;
use crate::error::ConfigError;
use crate::store::MemoryStore;

fn read(json: serde_json::Value) -> Result<Config, String> {
    serde_json::from_value(json).map_err(|error| error.to_string())
}

fn builder() -> Builder {
    TokenCache::builder(MemoryStore::new())
}

fn same(config: serde_json::Value, code: Builder) {
    let told = config.to_string();
    let config = builder().config(read(config).expect("a configuration"));
    let difference = config.fingerprint().differs_in(&code.fingerprint());
    assert_eq!(difference, None, "{told}");
}

fn error_of(config: serde_json::Value) -> ConfigError {
    let config = read(config).expect("it can be read");
    let built = builder().config(config).build();
    built.expect_err("it cannot be built")
}

#[test]
fn each_setting_is_that_of_the_builder() {
    const SECOND: Duration = Duration::from_secs(1);
    same(json!({}), builder());
    same(
        json!({"l1": {}, "lifetimes": {}, "timeouts": {}, "acquisitions": {}}),
        builder(),
    );
    same(json!({"namespace": "shop"}), builder().namespace("shop"));
    same(
        json!({"failure_policy": "strict"}),
        builder().failure_policy(FailurePolicy::Strict),
    );
    same(
        json!({"write_mode": "before_response"}),
        builder().write_mode(WriteMode::BeforeResponse),
    );
    same(
        json!({"max_pending_changes": 7, "max_pending_bytes": "3KiB", "journal": "j"}),
        builder()
            .max_pending_changes(7)
            .max_pending_bytes(3072)
            .journal("j"),
    );
    let l1 = L1::new().max_bytes(1 << 20).expiration_ratio(0.5);
    same(
        json!({"l1": {
            "max_bytes": "1MiB", "expiration_ratio": 0.5, "revalidate_every": "none", "max_staleness": "2s",
        }}),
        builder().l1(l1.revalidate_every(None).max_staleness(2 * SECOND)),
    );
    same(
        json!({"l1": {"max_bytes": "none"}}),
        builder().l1(L1::disabled()),
    );
    let lifetimes = Lifetimes::new().after_write(None).sliding(3600 * SECOND);
    same(
        json!({"lifetimes": {
            "after_write": "none", "sliding": "1h", "absolute": "1d", "negative_entry": "250ms",
        }}),
        builder().lifetimes(
            lifetimes
                .absolute(86_400 * SECOND)
                .negative_entry(SECOND / 4),
        ),
    );
    same(
        json!({"timeouts": {"attempt": "1s", "operation": "2s"}}),
        builder().timeouts(Timeouts::new().attempt(SECOND).operation(2 * SECOND)),
    );
    let acquisitions = Acquisitions::new()
        .refresh_before(60 * SECOND)
        .timeout(5 * SECOND);
    same(
        json!({"acquisitions": {
            "refresh_before": "1m", "timeout": "5s", "lease_ttl": "10s", "max": 3,
        }}),
        builder().acquisitions(acquisitions.lease_ttl(10 * SECOND).max(3)),
    );
    // Longer than anything lives.
    let for_ever = Timeouts::new().operation(Duration::MAX);
    same(
        json!({"timeouts": {"operation": "99999999999d"}}),
        builder().timeouts(for_ever),
    );
}

#[test]
fn the_example_of_the_documentation_has_all_names_and_is_the_default() {
    let source = include_str!("config.rs");
    let (_, example) = source.split_once("```toml\n").expect("the example");
    let (example, _) = example.split_once("/// ```").expect("its end");
    let (mut config, mut group) = (json!({}), None);
    for line in example.lines() {
        let line = line
            .trim_start_matches("///")
            .split('#')
            .next()
            .unwrap_or_default()
            .trim();
        if let Some(name) = line.strip_prefix('[') {
            group = Some(name.trim_end_matches(']'));
        } else if let Some((name, value)) = line.split_once(" = ") {
            let value = serde_json::from_str(value).expect("a value of both formats");
            match group {
                Some(group) => config[group][name] = value,
                None => config[name] = value,
            }
        }
    }
    let settings = builder()
        .namespace("shop")
        .journal("/var/lib/shop/sign-outs");
    same(config.clone(), settings);
    let Config {
        namespace: Some(_),
        failure_policy: Some(_),
        write_mode: Some(_),
        max_pending_changes: Some(_),
        max_pending_bytes: Some(_),
        journal: Some(_),
        l1:
            Some(InL1 {
                max_bytes: Some(_),
                expiration_ratio: Some(_),
                revalidate_every: Some(_),
                max_staleness: Some(_),
            }),
        lifetimes:
            Some(InLifetimes {
                after_write: Some(_),
                sliding: Some(_),
                absolute: Some(_),
                negative_entry: Some(_),
            }),
        timeouts:
            Some(InTimeouts {
                attempt: Some(_),
                operation: Some(_),
            }),
        acquisitions:
            Some(InAcquisitions {
                refresh_before: Some(_),
                timeout: Some(_),
                lease_ttl: Some(_),
                max: Some(_),
            }),
    } = read(config).expect("a configuration")
    else {
        panic!("a name is missing");
    };
}

#[test]
fn what_is_wrong_is_said() {
    let unknown = read(json!({"timeouts": {"opration": "1s"}})).expect_err("a typo");
    assert!(unknown.contains("opration"), "{unknown}");
    let unit = read(json!({"timeouts": {"operation": 250}})).expect_err("no unit");
    assert!(
        unit.contains("250") && unit.contains("such as 250ms"),
        "{unit}"
    );
    let none = read(json!({"timeouts": {"operation": "none"}})).expect_err("it has an end");
    assert!(none.contains("none"), "{none}");
    read(json!({"l1": {"max_bytes": -1}})).expect_err("negative");
    read(json!({"max_pending_bytes": "4GiB"})).expect_err("too large");

    assert_eq!(error_of(json!({"namespace": "a b"})).option(), "namespace");
    assert_eq!(
        error_of(json!({"l1": {"max_bytes": 0}})).option(),
        "L1::max_bytes"
    );
    let zero = error_of(json!({"timeouts": {"attempt": "0s"}}));
    assert_eq!(zero.option(), "Timeouts::attempt");
    assert_eq!(
        error_of(json!({"acquisitions": {"max": 0}})).option(),
        "Acquisitions::max"
    );
}

/// Else it would be taken for a setting that is not named.
#[test]
fn null_is_no_value() {
    for json in [
        json!({"namespace": null}),
        json!({"journal": null}),
        json!({"failure_policy": null}),
        json!({"max_pending_bytes": null}),
        json!({"l1": null}),
        json!({"l1": {"max_bytes": null}}),
        json!({"l1": {"max_staleness": null}}),
        json!({"lifetimes": {"after_write": null}}),
        json!({"timeouts": {"operation": null}}),
        json!({"acquisitions": {"max": null}}),
    ] {
        let told = json.to_string();
        assert!(read(json).is_err(), "{told}");
    }
}
