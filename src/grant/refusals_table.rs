//! Answers without tokens, shaped as providers send them: a row for each code and form.

use http::StatusCode;

use super::answer::parse;
use crate::acquire::AcquireErrorKind::{
    self, Failed, ReauthenticationRequired as SignIn, RetryLater as Later,
};
use crate::time::Timestamp;

type Row = (
    &'static str,
    u16,
    &'static str,
    &'static str,
    AcquireErrorKind,
);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("RFC 6749 §5.2: the grant", 400, r#"{"error":"invalid_grant"}"#, "invalid_grant", SignIn),
    ("RFC 6749 §5.2: the client", 401, r#"{"error":"invalid_client","error_description":"canary"}"#, "invalid_client", Failed),
    ("RFC 6749: with status 200", 200, r#"{"error":"invalid_grant"}"#, "invalid_grant", SignIn),
    ("RFC 6749: twice", 400, r#"{"error":"x","error":"invalid_grant"}"#, "invalid_grant", SignIn),
    ("OpenID Connect", 400, r#"{"error":"login_required"}"#, "login_required", SignIn),
    ("OpenID Connect: accounts", 400, r#"{"error":"account_selection_required"}"#, "account_selection_required", SignIn),

    ("GitHub: the refresh token, status 200", 200, r#"{"error":"bad_refresh_token","error_description":"canary","error_uri":"https://docs.github.com"}"#, "bad_refresh_token", SignIn),
    ("GitHub: the same as a form", 200, "error=bad_refresh_token&error_description=canary+is+incorrect&error_uri=https%3A%2F%2Fdocs.github.com", "bad_refresh_token", SignIn),
    ("GitHub: the code, as a form", 200, "error=bad_verification_code&error_description=canary", "bad_verification_code", SignIn),
    ("GitHub: the client", 200, r#"{"error":"incorrect_client_credentials"}"#, "incorrect_client_credentials", Failed),

    ("Slack: the refresh token", 200, r#"{"ok":false,"error":"invalid_refresh_token"}"#, "invalid_refresh_token", SignIn),
    ("Slack: revoked", 200, r#"{"ok":false,"error":"token_revoked","needed":"canary"}"#, "token_revoked", SignIn),
    ("Slack: expired", 200, r#"{"ok":false,"error":"token_expired"}"#, "token_expired", SignIn),
    ("Slack: the account", 200, r#"{"ok":false,"error":"account_inactive"}"#, "account_inactive", SignIn),
    ("Slack: too many", 200, r#"{"ok":false,"error":"ratelimited"}"#, "ratelimited", Later),
    ("Slack: the client", 200, r#"{"ok":false,"error":"invalid_client_id"}"#, "invalid_client_id", Failed),
    ("Slack: no more than no", 200, r#"{"ok":false}"#, "unreachable", Failed),

    ("Salesforce: the refresh token", 400, r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#, "invalid_grant", SignIn),
    ("Salesforce: the user", 400, r#"{"error":"inactive_user","error_description":"user is inactive"}"#, "inactive_user", SignIn),
    ("Salesforce: the organisation", 400, r#"{"error":"inactive_org","error_description":"organization is inactive"}"#, "inactive_org", SignIn),
    ("Salesforce: too many", 400, r#"{"error":"rate_limit_exceeded"}"#, "rate_limit_exceeded", Later),
    ("Salesforce: the client", 400, r#"{"error":"invalid_client_id","error_description":"client identifier invalid"}"#, "invalid_client_id", Failed),

    ("Google: revoked", 400, "{\n  \"error\": \"invalid_grant\",\n  \"error_description\": \"Token has been expired or revoked.\"\n}", "invalid_grant", SignIn),
    ("Google Workspace: session control", 400, r#"{"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)","error_subtype":"invalid_rapt"}"#, "invalid_grant", SignIn),
    ("Google Workspace: the subtype only", 400, r#"{"error":"rapt_required","error_subtype":"invalid_rapt"}"#, "invalid_rapt", SignIn),
    ("Google: the client", 401, r#"{"error":"deleted_client","error_description":"The OAuth client was deleted."}"#, "deleted_client", Failed),
    ("Google: an API's error", 403, r#"{"error":{"code":403,"message":"canary","status":"PERMISSION_DENIED"}}"#, "PERMISSION_DENIED", Failed),

    ("Entra ID: the refresh token", 400, r#"{"error":"invalid_grant","error_description":"AADSTS700082: canary","error_codes":[700082],"timestamp":"2026-11-30 00:53:20Z","trace_id":"t","correlation_id":"c","suberror":"bad_token"}"#, "invalid_grant", SignIn),
    ("Entra ID: more proof", 400, r#"{"error":"interaction_required","error_codes":[50076],"suberror":"basic_action","claims":"{\"access_token\":{}}"}"#, "interaction_required", SignIn),
    ("Entra ID: consent", 400, r#"{"error":"invalid_grant","error_codes":[65001],"suberror":"consent_required"}"#, "invalid_grant", SignIn),
    ("Entra ID: consent, in suberror only", 400, r#"{"error":"invalid_request","error_codes":[1],"suberror":"consent_required"}"#, "consent_required", SignIn),
    ("Entra ID: no session, by number only", 400, r#"{"error":"invalid_request","error_codes":[50058]}"#, "AADSTS50058", SignIn),
    ("Entra ID: numbers in strings", 400, r#"{"error":"invalid_request","error_codes":["700084"]}"#, "AADSTS700084", SignIn),
    ("Entra ID: the secret", 401, r#"{"error":"invalid_client","error_description":"AADSTS7000215: canary","error_codes":[7000215]}"#, "invalid_client", Failed),
    ("Entra ID: a transient error", 400, r#"{"error":"temporarily_unavailable","error_codes":[90033]}"#, "temporarily_unavailable", Later),
    ("Entra ID: throttled, by number only", 400, r#"{"error":"invalid_request","error_codes":[90055]}"#, "AADSTS90055", Later),

    ("Facebook: the token", 400, r#"{"error":{"message":"Error validating access token: canary","type":"OAuthException","code":190,"error_subcode":463,"fbtrace_id":"f"}}"#, "OAuthException.190", SignIn),
    ("Facebook: the session", 400, r#"{"error":{"message":"canary","type":"OAuthException","code":102}}"#, "OAuthException.102", SignIn),
    ("Facebook: too many", 400, r#"{"error":{"message":"canary","type":"OAuthException","code":4,"is_transient":true}}"#, "OAuthException.4", Later),
    ("Facebook: the client", 400, r#"{"error":{"message":"canary","type":"OAuthException","code":101}}"#, "OAuthException.101", Failed),
    ("Instagram", 400, r#"{"error_type":"OAuthException","code":400,"error_message":"canary"}"#, "OAuthException", Failed),

    ("HubSpot: category", 400, r#"{"status":"error","message":"canary","correlationId":"c","category":"BAD_REFRESH_TOKEN"}"#, "bad_refresh_token", SignIn),
    ("HubSpot: status", 400, r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token"}"#, "bad_refresh_token", SignIn),
    ("Fitbit: a list", 400, r#"{"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid: canary"}],"success":false}"#, "invalid_grant", SignIn),
    ("WeChat: the refresh token", 200, r#"{"errcode":40030,"errmsg":"invalid refresh_token, canary"}"#, "errcode.40030", SignIn),
    ("WeChat: expired", 200, r#"{"errcode":42002,"errmsg":"refresh_token expired"}"#, "errcode.42002", SignIn),
    ("WeChat: busy", 200, r#"{"errcode":-1,"errmsg":"system error"}"#, "errcode.-1", Later),
    ("WeChat: the client", 200, r#"{"errcode":40013,"errmsg":"invalid appid"}"#, "errcode.40013", Failed),
    ("Zoho: the refresh token, status 200", 200, r#"{"error":"invalid_code"}"#, "invalid_code", SignIn),
    ("TikTok: status 200", 200, r#"{"error":"invalid_grant","error_description":"canary","log_id":"l"}"#, "invalid_grant", SignIn),
    ("Twitch: a sentence", 400, r#"{"error":"Bad Request","status":400,"message":"Invalid refresh token"}"#, "invalid_refresh_token", SignIn),
    ("Zoom: a reason", 401, r#"{"reason":"Invalid Token!","error":"invalid_request"}"#, "invalid_token", SignIn),
    ("Atlassian: a description", 403, r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#, "refresh_token_is_invalid", SignIn),
    ("Auth0: a second factor", 403, r#"{"error":"mfa_required","error_description":"canary","mfa_token":"canary"}"#, "mfa_required", SignIn),
    ("Cloud Foundry UAA", 401, r#"{"error":"invalid_token","error_description":"The token expired, was revoked: canary"}"#, "invalid_token", SignIn),
    ("Okta: its API's error", 401, r#"{"errorCode":"E0000011","errorSummary":"canary","errorCauses":[]}"#, "E0000011", Failed),
    ("Reddit: a number", 400, r#"{"message":"Bad Request","error":400}"#, "400", Failed),

    ("busy: 429, whatever it says", 429, r#"{"error":"invalid_grant"}"#, "429", Later),
    ("busy: 503 with a page", 503, "<html>canary</html>", "503", Later),
    ("busy: slow_down", 400, r#"{"error":"slow_down"}"#, "slow_down", Later),
    ("a page with 500", 500, "<html>canary</html>", "500", Failed),
    ("a page with 200", 200, "<html><a href=\"?access_token=canary&error=canary\">", "unreachable", Failed),
    ("nothing with 200", 200, "", "unreachable", Failed),
    ("null with 200", 200, "null", "unreachable", Failed),
    ("a string with 200", 200, r#""canary""#, "unreachable", Failed),
    ("an array with 200", 200, r#"[{"access_token":"canary"}]"#, "unreachable", Failed),
    ("an empty token", 200, r#"{"access_token":"","refresh_token":"canary"}"#, "unreachable", Failed),
    ("an empty token, and why", 200, r#"{"access_token":"","error":"invalid_grant"}"#, "invalid_grant", SignIn),
    ("a token that is none", 200, r#"{"access_token":["canary"]}"#, "unreachable", Failed),
    ("a token that is cut off", 200, r#"{"access_token":"canary"#, "unreachable", Failed),
    ("a token that comes with 400", 400, r#"{"access_token":"canary"}"#, "400", Failed),
    ("a code that is a sentence", 400, r#"{"error":"canary with spaces"}"#, "400", Failed),
    ("a code beside that is not known", 400, r#"{"code":"canary","status":"canary","reason":"canary"}"#, "400", Failed),
    ("an error without a code", 400, r#"{"error":{"message":"canary"}}"#, "400", Failed),
    ("an error that is deep", 400, r#"{"error":[[[[[[{"error":"canary"}]]]]]]}"#, "400", Failed),
];

#[test]
fn answers_without_tokens_have_their_code_and_kind_and_show_nothing_else() {
    assert!(ROWS.len() >= 60);
    let mut wrong = Vec::new();
    for (name, status, body, code, kind) in ROWS {
        let status = StatusCode::from_u16(*status).unwrap();
        let answer = parse(status, &mut body.as_bytes().to_vec(), Timestamp::now());
        match answer {
            Err(error) if (error.code(), error.kind()) == (code, *kind) => {
                let text = format!("{error}{error:?}{error:#?}");
                assert!(!text.contains("canary"), "{name}: {text}");
            }
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
