//! Answers with tokens, shaped as providers send them: a row for each oddity.

use http::StatusCode;

use super::answer::parse;
use crate::time::Timestamp;

/// 2026-11-30T00:53:20Z.
const NOW: u64 = 1_796_000_000;
/// What a token lives whose lifetime cannot be read.
const SHORT: u64 = 300;
const TEN_YEARS: u64 = 315_360_000;

/// An answer whose access token is `at`, and what is read from it.
struct Row {
    name: &'static str,
    body: &'static str,
    refresh: Option<&'static str>,
    id: Option<&'static str>,
    scope: Option<&'static str>,
    /// In seconds from `NOW`.
    life: Option<u64>,
    /// Of the refresh token, likewise.
    refresh_life: Option<u64>,
    /// An extra field, and its JSON.
    extra: Option<(&'static str, &'static str)>,
}

const fn row(name: &'static str, body: &'static str) -> Row {
    Row {
        name,
        body,
        refresh: None,
        id: None,
        scope: None,
        life: None,
        refresh_life: None,
        extra: None,
    }
}

impl Row {
    const fn refresh(self, refresh: &'static str) -> Self {
        Self {
            refresh: Some(refresh),
            ..self
        }
    }
    const fn id(self, id: &'static str) -> Self {
        Self {
            id: Some(id),
            ..self
        }
    }
    const fn scope(self, scope: &'static str) -> Self {
        Self {
            scope: Some(scope),
            ..self
        }
    }
    const fn life(self, seconds: u64) -> Self {
        Self {
            life: Some(seconds),
            ..self
        }
    }
    const fn refresh_life(self, seconds: u64) -> Self {
        Self {
            refresh_life: Some(seconds),
            ..self
        }
    }
    const fn extra(self, name: &'static str, json: &'static str) -> Self {
        Self {
            extra: Some((name, json)),
            ..self
        }
    }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Whole answers.
    row("RFC 6749 §5.1: the example", r#"{"access_token":"at","token_type":"example","expires_in":3600,"refresh_token":"rt","example_parameter":"example_value"}"#)
        .refresh("rt").life(3600).extra("example_parameter", r#""example_value""#),
    row("OpenID Connect Core §3.1.3.3: the example", r#"{"access_token": "at", "token_type": "Bearer", "refresh_token": "rt", "expires_in": 3600, "id_token": "e.f.g"}"#)
        .refresh("rt").id("e.f.g").life(3600),
    row("GitHub app: JSON", r#"{"access_token":"at","expires_in":28800,"refresh_token":"rt","refresh_token_expires_in":15811200,"token_type":"bearer","scope":""}"#)
        .refresh("rt").life(28800).refresh_life(15811200).extra("refresh_token_expires_in", "15811200"),
    row("GitHub app: form", "access_token=at&expires_in=28800&refresh_token=rt&refresh_token_expires_in=15811200&scope=&token_type=bearer")
        .refresh("rt").life(28800).refresh_life(15811200).extra("refresh_token_expires_in", r#""15811200""#),
    row("GitHub OAuth app: never expires", r#"{"access_token":"at","scope":"repo,gist","token_type":"bearer"}"#)
        .scope("repo,gist"),
    row("GitHub OAuth app: form", "access_token=at&scope=repo%2Cgist&token_type=bearer")
        .scope("repo,gist"),
    row("Slack: rotation", r#"{"ok":true,"app_id":"A1","access_token":"at","expires_in":43200,"refresh_token":"rt","token_type":"bot","scope":"commands,chat:write","bot_user_id":"U1","team":{"name":"T","id":"T1"},"enterprise":null,"is_enterprise_install":false}"#)
        .refresh("rt").scope("commands,chat:write").life(43200).extra("team", r#"{"name":"T","id":"T1"}"#),
    row("Slack: no rotation, no lifetime", r#"{"ok":true,"access_token":"at","token_type":"bot","scope":"chat:write","enterprise":null}"#)
        .scope("chat:write").extra("enterprise", "null"),
    row("Salesforce: no lifetime, issued_at in milliseconds", r#"{"access_token":"at","signature":"c2ln","scope":"refresh_token api","instance_url":"https://x.my.salesforce.com","id":"https://login.salesforce.com/id/1/2","token_type":"Bearer","issued_at":"1796000000000"}"#)
        .scope("refresh_token api").extra("issued_at", r#""1796000000000""#),
    row("Google: refreshed, no refresh token", "{\n  \"access_token\": \"at\",\n  \"expires_in\": 3599,\n  \"scope\": \"openid https://www.googleapis.com/auth/userinfo.email\",\n  \"token_type\": \"Bearer\",\n  \"id_token\": \"e.f.g\"\n}")
        .id("e.f.g").scope("openid https://www.googleapis.com/auth/userinfo.email").life(3599),
    row("Google: an application in test", r#"{"access_token":"at","expires_in":3599,"refresh_token":"rt","refresh_token_expires_in":604799,"scope":"openid","token_type":"Bearer"}"#)
        .refresh("rt").scope("openid").life(3599).refresh_life(604799).extra("refresh_token_expires_in", "604799"),
    row("Entra ID v2: ext_expires_in", r#"{"token_type":"Bearer","scope":"User.Read profile","expires_in":3599,"ext_expires_in":7199,"access_token":"at","refresh_token":"rt"}"#)
        .refresh("rt").scope("User.Read profile").life(3599).extra("ext_expires_in", "7199"),
    row("Entra ID v1: all numbers are strings", r#"{"token_type":"Bearer","expires_in":"3599","ext_expires_in":"3599","expires_on":"1796003599","not_before":"1795999700","resource":"https://graph.windows.net","access_token":"at"}"#)
        .life(3599).extra("ext_expires_in", r#""3599""#),
    row("Entra ID: managed identity, expires_on only", r#"{"access_token":"at","expires_on":"1796086400","resource":"https://vault.azure.net","token_type":"Bearer","client_id":"c"}"#)
        .life(86400),
    row("Entra ID: managed identity, empty expires_in", r#"{"access_token":"at","expires_in":"","expires_on":1796086400,"token_type":"Bearer"}"#)
        .life(86400),
    row("App Service 2017: expires_on as an American date", r#"{"access_token":"at","expires_on":"11/30/2026 01:53:20 +00:00","resource":"r","token_type":"Bearer"}"#)
        .life(SHORT),
    row("Keycloak: refresh_expires_in", r#"{"access_token":"at","expires_in":300,"refresh_expires_in":1800,"refresh_token":"rt","token_type":"Bearer","id_token":"e.f.g","not-before-policy":0,"session_state":"s","scope":"openid email"}"#)
        .refresh("rt").id("e.f.g").scope("openid email").life(300).refresh_life(1800).extra("refresh_expires_in", "1800"),
    row("Keycloak: offline, refresh_expires_in 0", r#"{"access_token":"at","expires_in":60,"refresh_expires_in":0,"refresh_token":"rt","token_type":"Bearer"}"#)
        .refresh("rt").life(60).extra("refresh_expires_in", "0"),
    row("TikTok: refresh_expires_in", r#"{"access_token":"at","expires_in":86400,"open_id":"o","refresh_expires_in":31536000,"refresh_token":"rt","scope":"user.info.basic,video.list","token_type":"Bearer"}"#)
        .refresh("rt").scope("user.info.basic,video.list").life(86400).refresh_life(31536000).extra("refresh_expires_in", "31536000"),
    row("LinkedIn: refresh_token_expires_in", r#"{"access_token":"at","expires_in":5184000,"refresh_token":"rt","refresh_token_expires_in":31536059,"scope":"r_basicprofile"}"#)
        .refresh("rt").scope("r_basicprofile").life(5184000).refresh_life(31536059).extra("refresh_token_expires_in", "31536059"),
    row("Intuit: x_refresh_token_expires_in", r#"{"x_refresh_token_expires_in":8726400,"refresh_token":"rt","access_token":"at","token_type":"bearer","expires_in":3600}"#)
        .refresh("rt").life(3600).refresh_life(8726400).extra("x_refresh_token_expires_in", "8726400"),
    row("Shopify: a nested user", r#"{"access_token":"at","scope":"write_orders","expires_in":86399,"associated_user_scope":"write_orders","associated_user":{"id":902541635,"email_verified":true}}"#)
        .scope("write_orders").life(86399).extra("associated_user", r#"{"id":902541635,"email_verified":true}"#),
    row("Bitbucket: scopes, and no scope", r#"{"access_token":"at","scopes":"account","expires_in":7200,"refresh_token":"rt","token_type":"bearer","state":"refresh_token"}"#)
        .refresh("rt").life(7200).extra("scopes", r#""account""#),
    row("Mailchimp: no scope, expires_in 0", r#"{"access_token":"at","expires_in":0,"scope":null}"#)
        .life(0),

    // Scopes.
    row("Twitch: scope is an array", r#"{"access_token":"at","expires_in":14124,"refresh_token":"rt","scope":["channel:moderate","chat:edit"],"token_type":"bearer"}"#)
        .refresh("rt").scope("channel:moderate chat:edit").life(14124),
    row("Twitch: an empty array", r#"{"access_token":"at","scope":[]}"#),
    row("scope: an array with a number", r#"{"access_token":"at","scope":["a",1,null,"b"]}"#)
        .scope("a b"),
    row("scope: an object", r#"{"access_token":"at","scope":{"a":true},"refresh_token":"rt"}"#)
        .refresh("rt"),
    row("scope: a number", r#"{"access_token":"at","scope":7}"#),

    // Tokens that are not there.
    row("Spotify: an empty refresh token", r#"{"access_token":"at","refresh_token":"","expires_in":3600}"#)
        .life(3600),
    row("refresh token: null", r#"{"access_token":"at","refresh_token":null}"#),
    row("refresh token: blank", r#"{"access_token":"at","refresh_token":"  "}"#),
    row("refresh token: false", r#"{"access_token":"at","refresh_token":false,"id_token":"e.f.g"}"#)
        .id("e.f.g"),
    row("refresh token: an object", r#"{"access_token":"at","refresh_token":{"value":"rt"}}"#),
    row("refresh token: empty in a form", "access_token=at&refresh_token=&expires_in=60")
        .life(60),
    row("id token: empty", r#"{"access_token":"at","id_token":"","refresh_token":"rt"}"#)
        .refresh("rt"),
    row("id token: null", r#"{"access_token":"at","id_token":null,"refresh_token":"rt"}"#)
        .refresh("rt"),
    row("id token: an array", r#"{"access_token":"at","id_token":["e.f.g"],"refresh_token":"rt"}"#)
        .refresh("rt"),

    // Lifetimes.
    row("refresh token's lifetime: a string", r#"{"access_token":"at","refresh_token":"rt","refresh_token_expires_in":"86400"}"#)
        .refresh("rt").refresh_life(86400),
    row("refresh token's lifetime: an exponent", r#"{"access_token":"at","refresh_token":"rt","refresh_expires_in":8.64e4}"#)
        .refresh("rt").refresh_life(86400),
    row("refresh token's lifetime: a word", r#"{"access_token":"at","refresh_token":"rt","refresh_token_expires_in":"never"}"#)
        .refresh("rt"),
    row("refresh token's lifetime: of no refresh token", r#"{"access_token":"at","refresh_token":"","refresh_expires_in":1800}"#),
    row("lifetime: a string", r#"{"access_token":"at","expires_in":"3600"}"#).life(3600),
    row("lifetime: a string with spaces", r#"{"access_token":"at","expires_in":" 3600 "}"#).life(3600),
    row("lifetime: a float", r#"{"access_token":"at","expires_in":3600.0}"#).life(3600),
    row("lifetime: a float in a string", r#"{"access_token":"at","expires_in":"3600.0"}"#).life(3600),
    row("lifetime: an exponent", r#"{"access_token":"at","expires_in":3.6e3}"#).life(3600),
    row("lifetime: an exponent in a string", r#"{"access_token":"at","expires_in":"36E2"}"#).life(3600),
    row("lifetime: negative", r#"{"access_token":"at","expires_in":-5}"#).life(0),
    row("lifetime: absurd", r#"{"access_token":"at","expires_in":1e300}"#).life(TEN_YEARS),
    row("lifetime: more than a float holds", r#"{"access_token":"at","expires_in":1e999,"refresh_token":"rt"}"#)
        .refresh("rt").life(TEN_YEARS),
    row("lifetime: none", r#"{"access_token":"at"}"#),
    row("lifetime: null", r#"{"access_token":"at","expires_in":null}"#),
    row("lifetime: a word", r#"{"access_token":"at","expires_in":"never"}"#).life(SHORT),
    row("lifetime: empty", r#"{"access_token":"at","expires_in":""}"#).life(SHORT),
    row("lifetime: a boolean", r#"{"access_token":"at","expires_in":true}"#).life(SHORT),
    row("lifetime: an object", r#"{"access_token":"at","expires_in":{"seconds":60}}"#).life(SHORT),
    row("lifetime: thousands separated", r#"{"access_token":"at","expires_in":"3,600"}"#).life(SHORT),
    row("lifetime: infinite", r#"{"access_token":"at","expires_in":"Infinity"}"#).life(SHORT),
    row("lifetime: not a number", r#"{"access_token":"at","expires_in":NaN,"refresh_token":"rt"}"#)
        .refresh("rt").life(SHORT),
    row("lifetime: a word, and expires_at beside it", r#"{"access_token":"at","expires_in":"soon","expires_at":1796000060}"#)
        .life(60),
    row("Strava: expires_at and expires_in", r#"{"token_type":"Bearer","access_token":"at","expires_at":1796020566,"expires_in":20566,"refresh_token":"rt"}"#)
        .refresh("rt").life(20566),
    row("expires_at: seconds", r#"{"access_token":"at","expires_at":1796020566}"#).life(20566),
    row("expires_at: a float", r#"{"access_token":"at","expires_at":1796000060.25}"#).life(60),
    row("expires_at: milliseconds", r#"{"access_token":"at","expires_at":1796000060000}"#).life(60),
    row("expires_at: RFC 3339", r#"{"access_token":"at","expires_at":"2026-11-30T01:53:20Z"}"#).life(3600),
    row("expires_at: RFC 3339 with an offset", r#"{"access_token":"at","expires_at":"2026-11-30T02:53:20.123+01:00"}"#).life(3600),
    row("expires_at: past", r#"{"access_token":"at","expires_at":"2020-01-01T00:00:00Z"}"#).life(0),
    row("expires_at: no zone", r#"{"access_token":"at","expires_at":"2026-11-30T01:53:20"}"#).life(SHORT),
    row("expires_on: RFC 3339", r#"{"access_token":"at","expires_on":"2026-11-30T01:53:20+00:00"}"#).life(3600),
    row("expires_at: the year 9999", r#"{"access_token":"at","expires_at":"9999-12-31T23:59:59Z"}"#).life(TEN_YEARS),
    row("Zoho: milliseconds in expires_in", r#"{"access_token":"at","expires_in_sec":3600,"api_domain":"https://www.zohoapis.com","token_type":"Bearer","expires_in":3600000}"#)
        .life(3600),
    row("Facebook: form, with expires", "access_token=at&expires=5183999").life(5183999),
    row("Stack Exchange: form, with expires", "access_token=at&expires=86400\n").life(86400),
    row("QQ: form", "access_token=at&expires_in=7776000&refresh_token=rt").refresh("rt").life(7776000),
    row("expires: a time", r#"{"access_token":"at","expires":1796003600}"#).life(3600),
    row("expires: a word says nothing", r#"{"access_token":"at","expires":"never"}"#),

    // Repeated members.
    row("repeated: the last access token", r#"{"access_token":"old","access_token":"at"}"#),
    row("repeated: a later null", r#"{"access_token":"at","access_token":null}"#),
    row("repeated: a later empty refresh token", r#"{"access_token":"at","refresh_token":"rt","refresh_token":""}"#)
        .refresh("rt"),
    row("repeated: lifetimes", r#"{"access_token":"at","expires_in":60,"expires_in":3600,"expires_in":"soon"}"#).life(3600),
    row("repeated: scope", r#"{"access_token":"at","scope":"a","scope":["b"],"refresh_token":"rt"}"#)
        .refresh("rt").scope("b"),
    row("repeated: an extra field", r#"{"access_token":"at","x":1,"x":2}"#).extra("x", "2"),
    row("repeated: in a form", "access_token=&access_token=at&scope=a&scope=b").scope("b"),

    // What stands beside the tokens.
    row("type: a number", r#"{"access_token":"at","token_type":7,"refresh_token":"rt"}"#).refresh("rt"),
    row("type: null", r#"{"access_token":"at","token_type":null}"#),
    row("an error that is null", r#"{"error":null,"access_token":"at"}"#).extra("error", "null"),
    row("an error that is empty", r#"{"error":"","error_description":"","access_token":"at","refresh_token":"rt"}"#).refresh("rt"),
    row("a number of thirty digits", r#"{"access_token":"at","user":123456789012345678901234567890}"#)
        .extra("user", "123456789012345678901234567890"),
    row("a float that keeps its digits", r#"{"access_token":"at","score":1.10}"#).extra("score", "1.10"),
    row("a name with half a surrogate", r#"{"name":"\ud83d","access_token":"at","refresh_token":"rt"}"#).refresh("rt"),
    row("a line break in a string", "{\"welcome\":\"hello\nworld\",\"access_token\":\"at\",\"refresh_token\":\"rt\"}").refresh("rt"),
    row("a member's name with an escape", r#"{"access\u005ftoken":"at","refresh_token":"rt"}"#).refresh("rt"),
    row("a token with escapes", r#"{"access_token":"\u0061t","refresh_token":"r\/t"}"#).refresh("r/t"),
    row("a byte order mark", "\u{feff}{\"access_token\":\"at\"}"),
    row("a comma at the end", r#"{"access_token":"at","refresh_token":"rt",}"#).refresh("rt"),
    row("a comma too many", r#"{"access_token":"at",,"refresh_token":"rt"}"#).refresh("rt"),
    row("a page after it", "{\"access_token\":\"at\",\"refresh_token\":\"rt\"}\n<!-- cached -->").refresh("rt"),
    row("cut off after the tokens", r#"{"access_token":"at","refresh_token":"rt","expires_in":36"#).refresh("rt").life(SHORT),
];

#[test]
fn answers_with_tokens_are_read_as_they_are_meant() {
    assert!(ROWS.len() >= 60);
    let mut wrong = Vec::new();
    for row in ROWS {
        let now = Timestamp::from_millis(NOW * 1000);
        let set = match parse(StatusCode::OK, &mut row.body.as_bytes().to_vec(), now) {
            Ok(set) => set,
            Err(error) => {
                wrong.push(format!("{}: {error}", row.name));
                continue;
            }
        };
        let access = set.access();
        let from_now = |end: Timestamp| end.since(now).as_secs();
        let extra = row.extra.map(|(name, _)| access.extras()[name].expose());
        let read = (
            access.access_token(),
            set.refresh_token().map(|token| token.expose()),
            set.id_token().map(|token| token.expose()),
            access.scope(),
            access.expires_at().map(from_now),
            set.refresh_token_expires_at().map(from_now),
            extra,
        );
        let expected = (
            "at",
            row.refresh,
            row.id,
            row.scope,
            row.life,
            row.refresh_life,
            row.extra.map(|(_, json)| json),
        );
        if read != expected {
            wrong.push(format!("{}: {read:?} instead of {expected:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
