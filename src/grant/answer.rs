//! What a token endpoint answers.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use super::http_client::Answer;
use super::{body, refusal};
use crate::acquire::ProviderError;
use crate::answer::Members;
use crate::time::Timestamp;
use crate::token::TokenSet;

/// The longest pause that a provider can ask for: a day. A longer one is a mistake.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// The tokens of an answer.
pub(super) fn tokens(answer: Answer) -> Result<TokenSet, ProviderError> {
    let (head, mut body) = answer.into_parts();
    let tokens = parse(head.status, &mut body, Timestamp::now());
    tokens.map_err(|error| delayed(error, &head.headers))
}

/// The members of an answer, if the endpoint has done what it was asked for.
pub(super) fn members(answer: Answer) -> Result<Members, ProviderError> {
    let (head, mut body) = answer.into_parts();
    let members = body::members(&mut body);
    let refusal = match head.status.is_success() {
        true => refusal::by_code(&members),
        false => refusal::of(&members),
    };
    match refused(head.status, refusal) {
        Some(error) => Err(delayed(error, &head.headers)),
        None => Ok(members),
    }
}

fn delayed(error: ProviderError, headers: &HeaderMap<HeaderValue>) -> ProviderError {
    match retry_after(headers, SystemTime::now()) {
        Some(pause) => error.with_retry_after(pause),
        None => error,
    }
}

/// The tokens of a body. Its bytes may be repaired.
pub(super) fn parse(
    status: StatusCode,
    body: &mut [u8],
    now: Timestamp,
) -> Result<TokenSet, ProviderError> {
    let members = body::members(body);
    if status.is_success()
        && let Some(tokens) = members.tokens(now)
    {
        return Ok(tokens);
    }
    let no_token = || ProviderError::unreachable(NoToken);
    Err(refused(status, refusal::of(&members)).unwrap_or_else(no_token))
}

/// What the provider has refused with, if it has. Some do with status 200.
fn refused(status: StatusCode, refusal: Option<ProviderError>) -> Option<ProviderError> {
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        return Some(ProviderError::status(status));
    }
    match (refusal, status.is_success()) {
        (Some(error), _) => Some(error),
        (None, false) => Some(ProviderError::status(status)),
        (None, true) => None,
    }
}

/// The pause that the headers ask for, in seconds or until a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap<HeaderValue>, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(pause.min(MAX_PAUSE))
}

/// An answer without a token. A parser's error would quote it.
#[derive(Debug)]
struct NoToken;

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer holds no token")
    }
}

impl std::error::Error for NoToken {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(text: &str, now: SystemTime) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_a_day() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pause("120", now), seconds(120));
        assert_eq!(pause(" 0 ", now), seconds(0));
        assert_eq!(pause("Wed, 21 Oct 2026 07:29:30 GMT", now), seconds(90));
        assert_eq!(pause("Wed, 21 Oct 2026 07:00:00 GMT", now), seconds(0));
        assert_eq!(pause("18446744073709551615", now), Some(MAX_PAUSE));
        assert_eq!(pause("Wed, 21 Oct 2099 07:00:00 GMT", now), Some(MAX_PAUSE));
        for odd in ["-5", "1.5", "soon", "", "99999999999999999999"] {
            assert_eq!(pause(odd, now), None, "{odd}");
        }
    }

    #[test]
    fn what_the_next_login_has_to_ask_for_is_kept() {
        let claims = |more: &str| {
            let body = format!(r#"{{"error":"interaction_required"{more}}}"#);
            let (status, now) = (StatusCode::BAD_REQUEST, Timestamp::now());
            let refused = parse(status, &mut body.into_bytes(), now).unwrap_err();
            refused.claims().map(str::to_owned)
        };
        let demand = r#","claims":"{\"access_token\":{\"capolids\":{}}}""#;
        let expected = r#"{"access_token":{"capolids":{}}}"#;
        assert_eq!(claims(demand).as_deref(), Some(expected));
        for other in ["", r#","claims":"""#, r#","claims":{"a":{}}"#] {
            assert_eq!(claims(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_error_code_is_not_repeated() {
        let code = |text: &str| {
            let mut body = format!(r#"{{"error":{text}}}"#).into_bytes();
            refusal::of(&body::members(&mut body)).map(|error| error.code().to_owned())
        };
        assert_eq!(code(r#""invalid_grant""#).as_deref(), Some("invalid_grant"));
        let long = format!("{:?}", "x".repeat(65));
        for odd in [r#""a b""#, r#""""#, r#"{"code":1}"#, "7", long.as_str()] {
            assert_eq!(code(odd), None, "{odd}");
        }
        let page = refusal::of(&body::members(&mut b"<html>".to_vec()));
        assert!(page.is_none());
    }
}
