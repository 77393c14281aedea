#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use proptest::prelude::*;

const END: Timestamp = Timestamp::from_millis(1_800_000_000_123);

fn expiring(text: &str) -> Value {
    Value::secret(text.into(), Some(END))
}

fn round_trip(name: &str, value: &Value) -> Result<(TokenKey, Value), Unopenable> {
    decode(&encode(name, value), |stored| stored == name)
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&HEADER[..], &length, payload].concat()
}

fn full_token() -> Token {
    Token::new("access-token")
        .with_token_type("Bearer")
        .with_scope("mail.read profile")
        .with_expires_at(Timestamp::from_millis(1_800_000_000_123))
        .with_refresh_at(Timestamp::from_millis(1_799_999_000_000))
        .with_extra("tenant", &serde_json::json!({"id": 7}))
        .unwrap()
}

#[test]
fn values_come_back_as_they_were() {
    for (name, value) in [
        ("graph", Value::Token(full_token())),
        ("graph", Value::Token(Token::new(""))),
        ("\u{1}refresh_token", Value::Secret("refresh".into())),
        ("\u{1}refresh_token", expiring("refresh")),
        ("\u{1}id_token", Value::Secret("x".repeat(70_000).into())),
        ("\u{1}value\u{1}state", expiring("\"state\"")),
        ("\u{1}value\u{1}state", expiring("")),
    ] {
        let (key, decoded) = round_trip(name, &value).unwrap();
        assert_eq!((key.as_ref(), decoded), (name, value));
    }
}

/// Failure records and links were tokens and secrets under names of their own; instances of that version read
/// what this one writes.
#[test]
fn records_of_the_cache_are_stored_as_before() {
    let text = "retry_later 2 1800000000000 - 2000";
    let record = FailureRecord::parse(text).unwrap();
    let end = Timestamp::from_millis(1_800_000_120_000);
    let token = Value::Token(Token::new(text).with_expires_at(end));
    let secret = Value::Secret(String::from("linked").into());
    for (name, value, before) in [
        (
            "\u{1}setback\u{1}graph",
            Value::FailureRecord(record.into()),
            token,
        ),
        ("\u{1}user\u{1}x\u{1}7", Value::Link, secret),
    ] {
        assert_eq!(encode(name, &value), encode(name, &before));
        assert_eq!(round_trip(name, &before).unwrap().1, value);
    }
    let odd = Value::Token(Token::new("no record"));
    assert_eq!(
        round_trip("\u{1}setback\u{1}graph", &odd),
        Err(Unopenable::Damaged)
    );
}

#[test]
fn the_buffer_never_grows() {
    // A buffer that grew would leave an unwiped copy of the secret behind.
    for value in [
        Value::Token(full_token()),
        Value::Token(Token::new("x".repeat(1 << 20))),
    ] {
        let bytes = encode("graph", &value);
        let Value::Token(token) = value else {
            unreachable!()
        };
        assert!(bytes.len() >= token.access_token().len());
    }
}

#[test]
fn what_is_not_ours_has_a_reason() {
    let good = encode("graph", &Value::Token(full_token()));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        decode(&bytes, |_| true)
    };
    assert_eq!(decode(b"", |_| true), Err(Unopenable::Foreign));
    assert_eq!(decode(b"{\"json\":1}", |_| true), Err(Unopenable::Foreign));
    assert_eq!(with(0, 0), Err(Unopenable::Foreign));
    assert_eq!(with(1, 2), Err(Unopenable::UnknownVersion));
    assert_eq!(with(2, 1), Err(Unopenable::UnknownKey));
    assert_eq!(with(2, 2), Err(Unopenable::UnknownVersion));
    assert_eq!(with(6, 0xff), Err(Unopenable::Damaged));
    assert_eq!(with(7, 0xc0), Err(Unopenable::Damaged));
    assert_eq!(
        decode(&good[..good.len() - 1], |_| true),
        Err(Unopenable::Damaged)
    );
    assert_eq!(
        decode(&[&good[..], b"x"].concat(), |_| true),
        Err(Unopenable::Damaged)
    );
    assert_eq!(decode(&good, |_| false), Err(Unopenable::Misplaced));
    assert_eq!(
        decode(&vec![MARK; MAX_ENVELOPE + 1], |_| true),
        Err(Unopenable::TooLarge)
    );
}

#[test]
fn a_member_added_by_a_later_version_is_passed_over() {
    #[derive(Serialize)]
    struct Later {
        n: &'static str,
        s: &'static str,
        later: Vec<u32>,
    }
    let later = Later {
        n: "graph",
        s: "secret",
        later: vec![1, 2],
    };
    let payload = rmp_serde::to_vec_named(&later).unwrap();
    let (_, value) = decode(&framed(&payload), |_| true).unwrap();
    assert_eq!(value, Value::Token(Token::new("secret")));
}

/// The files of `tests/golden` were written once and must be readable for ever.
#[test]
fn golden_files_are_read_and_still_written_the_same() {
    for (file, name, value) in [
        ("token.v1.bin", "graph", Value::Token(full_token())),
        (
            "bare_token.v1.bin",
            "graph",
            Value::Token(Token::new("access-token")),
        ),
        (
            "refresh_token.v1.bin",
            "\u{1}refresh_token",
            Value::Secret("refresh-token".into()),
        ),
        (
            "id_token.v1.bin",
            "\u{1}id_token",
            Value::Secret("id.to.ken".into()),
        ),
        (
            "expiring_refresh_token.v1.bin",
            "\u{1}refresh_token",
            expiring("refresh-token"),
        ),
        (
            "session_value.v1.bin",
            "\u{1}value\u{1}state",
            expiring(r#"{"nonce":"n"}"#),
        ),
        (
            "taken_session_value.v1.bin",
            "\u{1}value\u{1}state",
            expiring(""),
        ),
    ] {
        let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("WRITE_GOLDEN_FILES").is_some() {
            std::fs::write(&path, encode(name, &value)).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        let (key, decoded) = decode(&bytes, |_| true).unwrap();
        assert_eq!((key.as_ref(), decoded), (name, value.clone()), "{file}");
        assert_eq!(encode(name, &value), bytes, "{file}");
    }
}

proptest! {
    #[test]
    fn any_token_round_trips(
        secret in ".{0,300}",
        name in "[^\u{0}-\u{1f}\u{7f}-\u{9f}]{1,50}",
        token_type in proptest::option::of(".{0,20}"),
        scope in proptest::option::of(".{0,50}"),
        expires in proptest::option::of(any::<u64>()),
        extra in proptest::collection::btree_map(".{0,20}", ".{0,50}", 0..5),
    ) {
        let mut token = Token::new(secret.as_str());
        if let Some(text) = token_type {
            token = token.with_token_type(text);
        }
        if let Some(text) = scope {
            token = token.with_scope(text);
        }
        if let Some(millis) = expires {
            token = token.with_expires_at(Timestamp::from_millis(millis));
        }
        for (name, value) in extra {
            token = token.with_extra(name, &value).unwrap();
        }
        let value = Value::Token(token);
        let (key, decoded) = round_trip(&name, &value).unwrap();
        prop_assert_eq!(key.as_ref(), &name);
        prop_assert_eq!(decoded, value);
    }

    #[test]
    fn any_bytes_are_an_error_or_an_entry(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = decode(&bytes, |_| true);
        let _ = decode(&framed(&bytes), |_| true);
    }

    #[test]
    fn a_damaged_entry_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode("graph", &Value::Token(full_token())).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes, |_| true);
    }
}
