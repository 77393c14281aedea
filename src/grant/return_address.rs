//! Where a browser goes after a login: to a page of this site.

use url::Url;

/// The longest return address, in bytes: what browsers and servers take for a URL.
const MAX_LEN: usize = 2048;

/// Whether it is a path of this site, with a query perhaps, that no browser takes for another site's.
///
/// Browsers read a backslash as a slash, pass over tabs and line breaks, and go to another host after two slashes. They
/// take `/..` and `/.` away first: a page at the path that is left may well link or redirect to that path.
pub(super) fn is_path_of_this_site(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= MAX_LEN
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && Url::parse(&format!("https://localhost{text}"))
            .is_ok_and(|url| !url.path().starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_site_are_accepted() {
        for path in [
            "/",
            "/a",
            "/a/b?c=d&e=%2F%2Fevil.example#f",
            "/@evil.example",
            "/a//b",
            "/:80",
        ] {
            assert!(is_path_of_this_site(path), "{path}");
        }
        let long = format!("/{}", "a".repeat(2048));
        for other in [
            "",
            "a",
            "//evil.example",
            "///evil.example",
            "/..//evil.example",
            "/.//evil.example",
            "/a/../%2e%2e//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "\t//evil.example",
            " //evil.example",
            "/a b",
            "/a\0",
            "/\u{7f}",
            "/a\r\nset-cookie: a=b",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "/é",
            "/\u{ff0f}evil.example",
            "?a",
            "#a",
            "@evil.example",
            &long,
        ] {
            assert!(!is_path_of_this_site(other), "{other:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_stays_on_this_site(text in r"[/\\.@:?#\t a-c]{0,12}|\PC{0,12}") {
            let text = format!("/{text}");
            if is_path_of_this_site(&text) {
                let here = Url::parse("https://app.example/callback").unwrap();
                let there = here.join(&text).unwrap();
                assert_eq!(there.origin(), here.origin(), "{text:?}");
                let again = there.join(there.path()).unwrap();
                assert_eq!(again.origin(), here.origin(), "{text:?}");
            }
        }
    }
}
