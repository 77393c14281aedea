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
    same(
        json!({"refused_refresh_token": "sign_out"}),
        builder().refused_refresh_token(RefusedRefreshToken::SignOut),
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
        .journal("/var/lib/shop/sign-outs")
        .seal_from(Timestamp::from_millis(1_801_368_000_000))
        .accept_plaintext_until(Timestamp::from_millis(1_803_787_200_000));
    same(config.clone(), settings);
    let has = |name: &str| {
        let groups = ["l1", "lifetimes", "timeouts", "acquisitions"];
        let mut places = groups.iter().map(|group| &config[group]).chain([&config]);
        places.any(|place| place.get(name).is_some())
    };
    for name in settings_that_are_values() {
        assert!(has(name), "`Config` has no `{name}`");
    }
    let Config {
        namespace: Some(_),
        failure_policy: Some(_),
        write_mode: Some(_),
        max_pending_changes: Some(_),
        max_pending_bytes: Some(_),
        journal: Some(_),
        refused_refresh_token: Some(_),
        plaintext: Some(_),
        require_encryption: Some(_),
        seal_from: Some(_),
        accept_plaintext_until: Some(_),
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

/// The names of all methods of the builder and of its groups that set a value.
fn settings_that_are_values() -> Vec<&'static str> {
    const SET_IN_CODE: [&str; 7] = [
        "on_l2_failure",
        "on_event",
        "revoke_with",
        "clock",
        "runtime",
        "key_ring",
        // In a configuration it is the value of `max_bytes`.
        "disabled",
    ];
    let sources = [
        include_str!("builder.rs"),
        include_str!("l1.rs"),
        include_str!("lifetimes.rs"),
        include_str!("timeouts.rs"),
        include_str!("acquisitions.rs"),
    ];
    let lines = sources.iter().flat_map(|source| source.lines());
    let names = lines.filter_map(|line| {
        let signature = line.trim_start().strip_prefix("pub fn ")?;
        signature.split(['(', '<']).next()
    });
    let names = names.filter(|name| *name != "new" && !SET_IN_CODE.contains(name));
    let names = Vec::from_iter(names);
    assert!(names.contains(&"namespace") && names.contains(&"lease_ttl"));
    names
}

#[test]
fn what_is_said_of_encryption_is_that_of_the_builder() {
    let of = |json| {
        builder()
            .plaintext()
            .require_encryption()
            .config(read(json).unwrap())
    };
    let built = of(json!({}));
    assert!(built.plaintext && built.encryption.required);
    let built = of(json!({"plaintext": false, "require_encryption": false}));
    assert!(!(built.plaintext || built.encryption.required));
    for option in ["require_encryption", "seal_from", "accept_plaintext_until"] {
        let value = match option {
            "require_encryption" => json!(true),
            _ => json!("2027-01-31T05:00:00+01:00"),
        };
        assert_eq!(error_of(json!({ option: value })).option(), option);
    }
    for odd in [
        "2027-01-31",
        "tomorrow",
        "1801368000000",
        "2027-01-31T04:00:00",
    ] {
        let error = read(json!({ "seal_from": odd })).expect_err(odd);
        assert!(error.contains("such as 2027"), "{error}");
    }
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
        json!({"refused_refresh_token": null}),
        json!({"plaintext": null}),
        json!({"seal_from": null}),
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
