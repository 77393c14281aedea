//! The challenges of `WWW-Authenticate` (RFC 9110 §11.6.1).

use std::borrow::Cow;

/// The longest field that is read, in bytes: what servers send takes some hundred.
const MAX_LEN: usize = 16 * 1024;
/// The most parameters of one challenge; registered schemes have up to ten.
const MAX_PARAMS: usize = 64;

/// A challenge as it stands in a field.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed<'a> {
    pub(super) scheme: &'a str,
    /// None where the challenge has a `token68` in their place.
    params: Vec<(&'a str, Cow<'a, [u8]>)>,
}

impl Parsed<'_> {
    /// A parameter. Names are compared without regard to case.
    pub(super) fn param(&self, name: &str) -> Option<&[u8]> {
        let mut params = self.params.iter();
        let found = params.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value)
    }

    /// Whether a name is repeated, which RFC 9110 §11.2 forbids: it is not said which value counts.
    fn is_ambiguous(&self) -> bool {
        let is_repeated = |at: usize| {
            let (name, _) = self.params[at];
            let mut earlier = self.params[..at].iter();
            earlier.any(|(other, _)| other.eq_ignore_ascii_case(name))
        };
        (1..self.params.len()).any(is_repeated)
    }
}

/// The challenges of one field, in their order. From the first error on nothing is read: what follows it may be within
/// a quoted string.
pub(super) fn challenges(field: &[u8]) -> Vec<Parsed<'_>> {
    let mut found = Vec::new();
    if field.len() > MAX_LEN {
        return found;
    }
    let mut reader = Reader(field);
    loop {
        reader.skip(b" \t,");
        let Some(parsed) = reader.challenge() else {
            return found;
        };
        if !parsed.is_ambiguous() {
            found.push(parsed);
        }
    }
}

/// What is left of a field.
#[derive(Clone)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// `auth-scheme [ 1*SP ( token68 / #auth-param ) ]`
    fn challenge(&mut self) -> Option<Parsed<'a>> {
        let scheme = self.token()?;
        let mut params = Vec::new();
        let is_apart = self.skip(b" \t");
        if self.is_at_end() || (is_apart && self.token68()) {
            return Some(Parsed { scheme, params });
        }
        if !is_apart {
            return None;
        }
        while self.is_at_param() {
            if params.len() == MAX_PARAMS {
                return None;
            }
            params.push(self.param()?);
            self.skip(b" \t");
            if !self.is_at_end() {
                return None;
            }
            self.skip(b" \t,");
        }
        (!params.is_empty()).then_some(Parsed { scheme, params })
    }

    /// Passes over a `token68`, if there is one and nothing else in this element of the list.
    fn token68(&mut self) -> bool {
        let mut ahead = self.clone();
        let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
        if ahead.take_while(is_text).is_empty() {
            return false;
        }
        ahead.skip(b"=");
        ahead.skip(b" \t");
        let is_alone = ahead.is_at_end();
        if is_alone {
            *self = ahead;
        }
        is_alone
    }

    /// Whether a parameter follows, and not another challenge.
    fn is_at_param(&self) -> bool {
        let mut ahead = self.clone();
        let has_name = ahead.token().is_some();
        ahead.skip(b" \t");
        has_name && ahead.0.first() == Some(&b'=')
    }

    /// `token BWS "=" BWS ( token / quoted-string )`
    fn param(&mut self) -> Option<(&'a str, Cow<'a, [u8]>)> {
        let name = self.token()?;
        self.skip(b" \t");
        self.0 = self.0.strip_prefix(b"=")?;
        self.skip(b" \t");
        let value = match self.0.strip_prefix(b"\"") {
            Some(rest) => {
                self.0 = rest;
                self.quoted()?
            }
            None => Cow::Borrowed(self.token()?.as_bytes()),
        };
        Some((name, value))
    }

    /// The rest of a quoted string, without its backslashes (RFC 9110 §5.6.4).
    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        let mut value = Cow::Borrowed(&self.0[..0]);
        loop {
            let plain = self.take_while(|byte| !b"\"\\".contains(byte) && is_text(*byte));
            match &mut value {
                Cow::Borrowed([]) => value = Cow::Borrowed(plain),
                value => value.to_mut().extend_from_slice(plain),
            }
            match *self.0 {
                [b'"', ref rest @ ..] => {
                    self.0 = rest;
                    return Some(value);
                }
                [b'\\', escaped, ref rest @ ..] if is_text(escaped) => {
                    self.0 = rest;
                    value.to_mut().push(escaped);
                }
                _ => return None,
            }
        }
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_letter =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let token = self.take_while(is_letter);
        std::str::from_utf8(token).ok().filter(|it| !it.is_empty())
    }

    /// Whether this element of the list has ended.
    fn is_at_end(&self) -> bool {
        matches!(self.0, [] | [b',', ..])
    }

    /// Passes over these bytes. Returns whether there were any.
    fn skip(&mut self, bytes: &[u8]) -> bool {
        !self.take_while(|byte| bytes.contains(byte)).is_empty()
    }

    fn take_while(&mut self, is_one: impl Fn(&u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !is_one(byte));
        let (taken, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// What a quoted string can hold, bytes beyond ASCII included.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The challenges as `scheme name=value …`, with `|` between them.
    fn read(field: &[u8]) -> String {
        let shown = challenges(field).into_iter().map(|parsed| {
            let params = parsed.params.iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value);
                format!(" {name}={value}")
            });
            parsed.scheme.to_owned() + &params.collect::<String>()
        });
        shown.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn challenges_are_told_apart() {
        for (field, expected) in [
            ("", ""),
            (" , ,, ", ""),
            ("Bearer", "Bearer"),
            ("Bearer ", "Bearer"),
            ("Bearer, Basic", "Bearer|Basic"),
            ("Bearer realm=\"a\"", "Bearer realm=a"),
            ("Bearer realm=a", "Bearer realm=a"),
            ("Bearer realm=\"\"", "Bearer realm="),
            ("bearer REALM = \"a\"", "bearer REALM=a"),
            ("Bearer a=1,b=2 , c=3", "Bearer a=1 b=2 c=3"),
            ("Bearer a=1,, ,b=2,", "Bearer a=1 b=2"),
            (",Bearer a=1", "Bearer a=1"),
            ("Bearer\ta=1", "Bearer a=1"),
            // RFC 9110 §11.6.1.
            (
                r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#,
                r#"Basic realm=simple|Newauth realm=apps type=1 title=Login to "apps""#,
            ),
            ("Negotiate abc==, Bearer a=1", "Negotiate|Bearer a=1"),
            ("Negotiate, Bearer a=1", "Negotiate|Bearer a=1"),
            ("NTLM TlRM+/-._~, Negotiate", "NTLM|Negotiate"),
            (
                r#"Digest qop="auth,auth-int", nonce="x", Bearer error="e""#,
                "Digest qop=auth,auth-int nonce=x|Bearer error=e",
            ),
            // A challenge within a quoted string is none.
            (
                r#"Basic realm="x, Bearer error=\"evil\"", Bearer error="e""#,
                r#"Basic realm=x, Bearer error="evil"|Bearer error=e"#,
            ),
            (r#"Bearer a="\b\\\"""#, r#"Bearer a=b\""#),
            (r#"Bearer a="\\x""#, r"Bearer a=\x"),
            (r#"Bearer a="x\\y\z""#, r"Bearer a=x\yz"),
        ] {
            assert_eq!(read(field.as_bytes()), expected, "{field}");
        }
        assert_eq!(read(b"Bearer a=\"\xe4\"").chars().count(), 10);
    }

    #[test]
    fn what_is_malformed_ends_the_reading() {
        for (field, expected) in [
            ("Basic realm=x, Bearer a=\"1", "Basic realm=x"),
            ("Basic realm=x, Bearer a=\"1\\", "Basic realm=x"),
            ("Bearer a=1 b=2", ""),
            ("Bearer a=1, b=", ""),
            ("Bearer a=\"1\"x, Basic", ""),
            ("Bearer a = , Basic", ""),
            ("Bearer=1, Basic", ""),
            ("=1, Basic", ""),
            ("Bearer a==1", ""),
            ("Bearer @", ""),
            ("@", ""),
            ("\"Bearer\" a=1", ""),
            ("Bearer a=\"\u{1}\"", ""),
            ("Bearer a=\"\u{7f}\"", ""),
            ("Bearer a=\"\\\u{1}\"", ""),
            // Twice the same.
            ("Bearer a=1, A=2", ""),
            ("Bearer a=1, a=1, Basic b=1", "Basic b=1"),
        ] {
            assert_eq!(read(field.as_bytes()), expected, "{field:?}");
        }
        let many = |count: usize| {
            let params = (0..count).map(|n| format!("p{n}=1"));
            format!("Bearer {}", params.collect::<Vec<_>>().join(","))
        };
        assert_eq!(challenges(many(64).as_bytes())[0].params.len(), 64);
        assert!(challenges(many(65).as_bytes()).is_empty());
        let long = |len: usize| format!("Bearer a=\"{}\"", "x".repeat(len));
        assert_eq!(challenges(long(16_000).as_bytes()).len(), 1);
        assert!(challenges(long(17_000).as_bytes()).is_empty());
    }

    /// A challenge as a server writes it.
    fn written(scheme: &str, params: &[(String, String)]) -> String {
        let params = params.iter().map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{name}=\"{value}\"")
        });
        format!("{scheme} {}", params.collect::<Vec<_>>().join(", "))
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(field in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::sample::select(br#"Bearer a="\, =;/"#.to_vec()),
                proptest::num::u8::ANY,
            ],
            0..64,
        )) {
            for parsed in challenges(&field) {
                assert!(!parsed.scheme.is_empty());
            }
        }

        #[test]
        fn what_is_written_is_read(all in proptest::collection::vec(
            ("[A-Za-z]{1,8}", proptest::collection::btree_map("[a-z]{1,6}", "[ -~\t]{0,12}", 1..5)),
            1..4,
        )) {
            let all = Vec::from_iter(all.into_iter().map(|(scheme, params)| (scheme, Vec::from_iter(params))));
            let field = all.iter().map(|(scheme, params)| written(scheme, params));
            let field = field.collect::<Vec<_>>().join(", ");
            let read = challenges(field.as_bytes());
            assert_eq!(read.len(), all.len(), "{field}");
            for (parsed, (scheme, params)) in read.iter().zip(&all) {
                assert_eq!(parsed.scheme, scheme);
                for (name, value) in params {
                    assert_eq!(parsed.param(name), Some(value.as_bytes()), "{field}");
                }
            }
        }
    }
}
