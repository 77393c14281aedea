//! The table of error codes that mean more than "it failed".
//!
//! Compared without regard to case. A code means the same from each provider; where a provider has numbers, the
//! name of their kind stands before them. Entra ID's numbers change: they count only where its `error` says nothing.

use super::AcquireErrorKind;

/// The user has to sign in again.
const SIGN_IN: &[&str] = &[
    // RFC 6749 §5.2, RFC 6750 §3.1 and RFC 8628 §3.5, as token endpoints use them.
    "invalid_grant",
    "invalid_token",
    "expired_token",
    // OpenID Connect Core §3.1.2.6, Unmet Authentication Requirements 1.0.
    "login_required",
    // GitHub. The first is also HubSpot's.
    "bad_refresh_token",
    "bad_verification_code",
    // Slack. The first is also Zoho's, for a refresh token.
    "invalid_code",
    "code_already_used",
    "invalid_refresh_token",
    "invalid_auth",
    "not_authed",
    "token_expired",
    "token_revoked",
    "account_inactive",
    // Salesforce.
    "inactive_user",
    "inactive_org",
    // Google: the session control of Workspace.
    "invalid_rapt",
    // HubSpot.
    "bad_auth_code",
    // Atlassian: a sentence, beside `unauthorized_client`.
    "refresh_token_is_invalid",
    // Facebook: the session or the token has ended.
    "OAuthException.102",
    "OAuthException.190",
    // WeChat: the code or the refresh token is wrong or has expired.
    "errcode.40029",
    "errcode.40030",
    "errcode.42002",
    "errcode.42003",
    // Entra ID: the user is gone, or has no session there.
    "AADSTS50055",
    "AADSTS50057",
    "AADSTS50058",
    "AADSTS50089",
    "AADSTS50144",
    // Entra ID: the code, the session or the refresh token has ended.
    "AADSTS50132",
    "AADSTS50133",
    "AADSTS50173",
    "AADSTS54005",
    "AADSTS70000",
    "AADSTS70008",
    "AADSTS70043",
    "AADSTS700081",
    "AADSTS700082",
    "AADSTS700084",
    // This crate: a refreshed id token is of another user.
    ID_TOKEN_MISMATCH,
];

/// The same, for what was asked for: the user has to prove more, or to consent. The refresh token stays good.
const PROVE_MORE: &[&str] = &[
    // OpenID Connect Core §3.1.2.6, Unmet Authentication Requirements 1.0.
    "interaction_required",
    "consent_required",
    "account_selection_required",
    "unmet_authentication_requirements",
    // Auth0.
    "mfa_required",
    // Entra ID.
    "AADSTS50072",
    "AADSTS50074",
    "AADSTS50076",
    "AADSTS50078",
    "AADSTS50079",
    "AADSTS53003",
    "AADSTS65001",
    "AADSTS65004",
];

/// The provider asks for time.
const LATER: &[&str] = &[
    // RFC 6749 §4.1.2.1, RFC 8628 §3.5.
    "temporarily_unavailable",
    "slow_down",
    // Slack, Salesforce, Google and others.
    "ratelimited",
    "rate_limited",
    "rate_limit_exceeded",
    "too_many_requests",
    "service_unavailable",
    // Facebook: the service, the application, the user.
    "OAuthException.2",
    "OAuthException.4",
    "OAuthException.17",
    // WeChat: busy, and two limits.
    "errcode.-1",
    "errcode.45009",
    "errcode.45011",
    // Entra ID: a transient error, throttling, requests in a loop.
    "AADSTS90033",
    "AADSTS90055",
    "AADSTS50196",
];

/// The code of a refreshed id token that is of another user.
pub(crate) const ID_TOKEN_MISMATCH: &str = "id_token_mismatch";

/// What the table says of a code.
pub(crate) fn kind_of(code: &str) -> Option<AcquireErrorKind> {
    if is_in(SIGN_IN, code) || asks_for_proof(code) {
        return Some(AcquireErrorKind::ReauthenticationRequired);
    }
    is_in(LATER, code).then_some(AcquireErrorKind::RetryLater)
}

/// Whether the provider wants the user to prove more, or to consent, and has not refused the refresh token.
pub(crate) fn asks_for_proof(code: &str) -> bool {
    is_in(PROVE_MORE, code)
}

fn is_in(codes: &[&str], code: &str) -> bool {
    codes.iter().any(|known| known.eq_ignore_ascii_case(code))
}
