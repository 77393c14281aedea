//! The body of an answer as members: a JSON object, or a form.

use url::form_urlencoded;

use crate::answer::Members;
use crate::secret::Secret;
use crate::wipe::Wiped;

/// The members of a body; none if it is neither. What cannot be read is passed over.
///
/// Content types are not looked at: providers send forms as plain text, and JSON as HTML.
pub(super) fn members(body: &mut [u8]) -> Members {
    make_utf8(body);
    let text = std::str::from_utf8(body).unwrap_or_default();
    let text = text.trim_start_matches('\u{feff}').trim();
    match text.strip_prefix('{') {
        Some(rest) => object(rest),
        None => form(text),
    }
}

/// Replaces bytes that are no UTF-8: names of people in another encoding, of which no token has any.
fn make_utf8(bytes: &mut [u8]) {
    let mut from = 0;
    while let Err(error) = std::str::from_utf8(&bytes[from..]) {
        from += error.valid_up_to();
        bytes[from] = b'?';
    }
}

/// The members of a JSON object after its opening brace.
///
/// Not by `serde_json`: for it a number out of range, a control character in a description, deep nesting or a
/// missing end make the whole object unreadable. Here they concern one value. This is a loop and no recursion.
fn object(mut rest: &str) -> Members {
    let mut members = Members::default();
    while let Some((name, value, tail)) = next_member(rest) {
        if let Ok(name) = serde_json::from_str(name) {
            members.push(name, value.into());
        }
        rest = tail;
    }
    members
}

/// The next member's name and value as they stand, and what follows.
fn next_member(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_start_matches(|char: char| char == ',' || char.is_whitespace());
    let (name, rest) = text.split_at_checked(string_end(text)?)?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let (value, rest) = rest.split_at_checked(value_end(rest)?)?;
    let value = value.trim_end();
    // At the end of the text, only a string is known to be whole.
    let is_whole = !rest.is_empty() || value.starts_with('"');
    Some((name, if is_whole { value } else { "" }, rest))
}

/// The length of the string that the text begins with.
fn string_end(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(end + 2)
}

/// The length of the value that the text begins with: up to a comma or an end that are not inside of it.
/// `None` if it is cut off inside.
fn value_end(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += string_end(&text[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => break,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    (depth == 0).then_some(at)
}

/// The members of a form: all values are strings.
fn form(text: &str) -> Members {
    let mut members = Members::default();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        if let Ok(json) = Secret::json(&value) {
            members.push(name.into(), json);
        }
        drop(Wiped::new(value.into_owned().into_bytes()));
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_found_whatever_stands_beside_it() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for odd in [
            "1e999",
            "NaN",
            "-Infinity",
            "\"line\nbreak\"",
            r#""\ud800""#,
            r#""a \"quoted\" \\""#,
            r#"{"a":"}","b":[1,{"c":"]"}]}"#,
            "'single'",
            "",
            deep.as_str(),
        ] {
            for body in [
                format!(r#"{{"odd":{odd},"access_token":"a"}}"#),
                format!(" {{ \"access_token\" : \"a\" ,\n\"odd\" : {odd} , }} and more"),
            ] {
                let read = members(&mut body.clone().into_bytes());
                assert_eq!(
                    read.text("access_token").unwrap().expose(),
                    "a",
                    "{odd:.20}"
                );
                assert_eq!(read.all("odd").next(), Some(odd), "{odd:.20}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_not_taken_for_whole() {
        let read = |body: &str| members(&mut body.as_bytes().to_vec());
        let cut = read(r#"{"access_token":"a","refresh_token":"r"#);
        assert_eq!(cut.text("access_token").unwrap().expose(), "a");
        assert_eq!(cut.text("refresh_token"), None);
        let cut = read(r#"{"refresh_token":"r","expires_in":36"#);
        assert_eq!(cut.all("expires_in").next(), Some(""));
        let cut = read(r#"{"expires_in":60,"access_token":"a""#);
        assert_eq!(cut.text("access_token").unwrap().expose(), "a");
        assert_eq!(cut.all("expires_in").next(), Some("60"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_invented_makes_it_panic(
            mut body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            text in r#"[{}\[\],:"\\ea0-9._=&%]{0,60}"#,
        ) {
            let now = crate::Timestamp::now();
            members(&mut body).tokens(now);
            let members = members(&mut format!("{{{text}").into_bytes());
            members.tokens(now);
            crate::grant::refusal::of(&members);
        }
    }

    #[test]
    fn bytes_of_another_encoding_cost_one_character() {
        let mut body = b"{\"name\":\"Andr\xe9\",\"access_token\":\"a\"}".to_vec();
        let read = members(&mut body);
        assert_eq!(read.text("name").unwrap().expose(), "Andr?");
        assert_eq!(read.text("access_token").unwrap().expose(), "a");
    }
}
