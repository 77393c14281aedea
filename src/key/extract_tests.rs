use super::*;
use http::Request;

fn extract(
    extractor: impl KeyExtractor,
    headers: &[(&str, &[u8])],
) -> Result<Option<PartitionKey>, KeyError> {
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    extractor.extract(&RequestHead::from(&request.body(()).unwrap()))
}

fn sid() -> impl KeyExtractor {
    cookie("sid")
}

fn x_session() -> Header {
    header("x-session")
}

fn session(id: &str) -> Result<Option<PartitionKey>, KeyError> {
    PartitionKey::session(id).map(Some)
}

#[test]
fn a_cookie_is_found_among_others() {
    for header in [
        "sid=abc",
        "a=b; sid=abc; c=d",
        "xsid=no; sid=\"abc\"",
        "sid=abc;",
        "\tsid= abc ;a=b",
        "sid=\" abc \"",
    ] {
        assert_eq!(
            extract(sid(), &[("cookie", header.as_bytes())]),
            session("abc")
        );
    }
    for header in [
        "",
        "SID=abc",
        "sid",
        "sid=",
        "sid=; sid=",
        "sid= ; sid=\"\"; sid=\" \"",
        "xsid=abc",
        "asid=1; side=2",
    ] {
        assert_eq!(extract(sid(), &[("cookie", header.as_bytes())]), Ok(None));
    }
    // HTTP/2 may split the header (RFC 9113 §8.2.3).
    let split: [(&str, &[u8]); 2] = [("cookie", b"a=b"), ("cookie", b"sid=abc")];
    assert_eq!(extract(sid(), &split), session("abc"));
}

#[test]
fn a_header_is_found_in_any_case_and_a_name_that_none_can_have_in_no_request() {
    let request: [(&str, &[u8]); 2] = [("x-session", b"abc"), ("cookie", b"sid=c")];
    for name in ["x-session", "X-Session"] {
        assert_eq!(extract(header(name), &request), session("abc"));
    }
    for name in ["", "x session", "x-session:", "x-s\u{e9}ssion"] {
        assert_eq!(extract(header(name), &request), Ok(None));
        assert_eq!(extract(header(name).or(sid()), &request), session("c"));
    }
}

#[test]
fn a_duplicate_key_must_agree() {
    assert_eq!(extract(sid(), &[("cookie", b"sid=a; sid=a")]), session("a"));
    assert_eq!(
        extract(sid(), &[("cookie", b"sid=a; sid=b")]),
        Err(KeyError::Ambiguous)
    );
    let twice: [(&str, &[u8]); 2] = [("x-session", b"a"), ("x-session", b"b")];
    assert_eq!(extract(x_session(), &twice), Err(KeyError::Ambiguous));
    let bearers: [(&str, &[u8]); 2] = [
        ("authorization", b"Bearer a"),
        ("authorization", b"Bearer b"),
    ];
    assert_eq!(
        extract(bearer_assertion(), &bearers),
        Err(KeyError::Ambiguous)
    );
}

#[test]
fn an_over_long_or_non_ascii_key_is_an_error() {
    let long = "x".repeat(PartitionKey::MAX_LEN + 1);
    assert!(matches!(
        extract(x_session(), &[("x-session", long.as_bytes())]),
        Err(KeyError::TooLong { .. })
    ));
    for bytes in ["\u{e9}".as_bytes(), b"\xff\xfe", b"a\tb"] {
        assert_eq!(
            extract(x_session(), &[("x-session", bytes)]),
            Err(KeyError::InvalidCharacter)
        );
    }
}

#[test]
fn no_place_in_a_key_is_overlooked() {
    for length in 1..=50 {
        let good = vec![b'~'; length];
        let key = session(std::str::from_utf8(&good).unwrap());
        assert_eq!(extract(x_session(), &[("x-session", &good)]), key);
        for place in 0..length {
            let mut bad = good.clone();
            bad[place] = 0xe9;
            assert_eq!(
                extract(x_session(), &[("x-session", &bad)]),
                Err(KeyError::InvalidCharacter)
            );
        }
    }
}

#[test]
fn or_asks_the_second_only_when_the_first_finds_nothing() {
    let both = || x_session().or(sid());
    assert_eq!(extract(both(), &[("cookie", b"sid=c")]), session("c"));
    let all: [(&str, &[u8]); 2] = [("x-session", b"h"), ("cookie", b"sid=c")];
    assert_eq!(extract(both(), &all), session("h"));
    let empty: [(&str, &[u8]); 2] = [("x-session", b" "), ("cookie", b"sid=c")];
    assert_eq!(extract(both(), &empty), session("c"));
    let invalid: [(&str, &[u8]); 2] = [("x-session", b"\xff"), ("cookie", b"sid=c")];
    assert_eq!(extract(both(), &invalid), Err(KeyError::InvalidCharacter));
    assert_eq!(extract(both(), &[]), Ok(None));
}

#[test]
fn a_bearer_assertion_is_hashed() {
    let key = Ok(Some(PartitionKey::assertion("abc")));
    assert_eq!(
        extract(bearer_assertion(), &[("authorization", b"bearer  abc ")]),
        key
    );
    for none in ["Basic abc", "Bearer", "Bearer ", "Bear"] {
        assert_eq!(
            extract(bearer_assertion(), &[("authorization", none.as_bytes())]),
            Ok(None)
        );
    }
    assert_eq!(
        extract(bearer_assertion(), &[("authorization", b"Bearer a b")]),
        Err(KeyError::InvalidCharacter)
    );
}

#[test]
fn extensions_closures_and_constants() {
    #[derive(Clone)]
    struct User(&'static str);
    let by_user = || extension(|user: &User| PartitionKey::user(user.0));
    let mut request = Request::new(());
    assert_eq!(by_user().extract(&RequestHead::from(&request)), Ok(None));
    request.extensions_mut().insert(User("ada"));
    let ada = PartitionKey::user("ada").map(Some);
    assert_eq!(by_user().extract(&RequestHead::from(&request)), ada);
    request.extensions_mut().insert(User(""));
    assert_eq!(by_user().extract(&RequestHead::from(&request)), Ok(None));

    let by_path = from_fn(|head| PartitionKey::user(head.path()).map(Some));
    assert_eq!(extract(by_path, &[]), PartitionKey::user("/").map(Some));
    let app = PartitionKey::application("client", "tenant").unwrap();
    assert_eq!(extract(constant(app.clone()), &[]), Ok(Some(app)));
    assert_eq!(
        extract(x_session().user(), &[("x-session", b"ada")]),
        PartitionKey::user("ada").map(Some)
    );
}
