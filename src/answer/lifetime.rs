//! When the access token of an answer expires.

use std::ops::Range;
use std::time::Duration;

use super::{Members, text};
use crate::time::Timestamp;
use crate::token::MAX_LIFETIME;

/// What a token lives whose lifetime cannot be read: it is not endless, and what is short is soon put right.
const UNREADABLE: Duration = Duration::from_secs(300);

/// From here on a number of seconds is one of milliseconds: the year 5138, and the year 1973.
const MILLISECONDS: f64 = 1e11;
/// From here on a number that can be both is a time and no lifetime: the year 2001, and 31 years.
const TIME: f64 = 1e9;

type Read = fn(&str, Timestamp) -> Option<Timestamp>;

/// Where providers say when a token expires; the first that can be read counts. Zoho once gave `expires_in` in
/// milliseconds, with the seconds beside it.
const MEMBERS: [(&str, Read); 4] = [
    ("expires_in_sec", after),
    ("expires_in", after),
    ("expires_on", at),
    ("expires_at", at),
];

/// When the access token expires; `None` if the answer does not say.
pub(super) fn end(members: &Members, now: Timestamp) -> Option<Timestamp> {
    let all = |name| members.all(name).filter(|json| *json != "null");
    let mut given = MEMBERS
        .iter()
        .flat_map(|(name, read)| all(name).map(move |json| read(json, now)))
        .peekable();
    let is_given = given.peek().is_some();
    let read = given.flatten().next();
    // Many things are called `expires`: one that cannot be read says nothing.
    let read = read.or_else(|| all("expires").find_map(|json| after_or_at(json, now)));
    read.or_else(|| is_given.then(|| now.saturating_add(UNREADABLE)))
}

/// When a new access token should be asked for.
pub(super) fn refresh(members: &Members, now: Timestamp) -> Option<Timestamp> {
    members.all("refresh_in").find_map(|json| after(json, now))
}

/// When the refresh token expires; `None` if the answer does not say. Keycloak says 0 for one that does not.
pub(super) fn refresh_token_end(members: &Members, now: Timestamp) -> Option<Timestamp> {
    const NAMES: [&str; 3] = [
        "refresh_token_expires_in",
        "refresh_expires_in",
        "x_refresh_token_expires_in",
    ];
    let all = NAMES.iter().flat_map(|name| members.all(name));
    let mut ends = all.filter_map(|json| after(json, now));
    ends.find(|end| *end > now)
}

/// The time so many seconds from `now`: not before `now`, at most ten years later.
fn after(json: &str, now: Timestamp) -> Option<Timestamp> {
    Some(now.saturating_add(seconds(json)?))
}

/// A number of seconds: not negative, at most ten years.
pub(super) fn seconds(json: &str) -> Option<Duration> {
    let seconds = number(json)?.clamp(0.0, MAX_LIFETIME.as_secs_f64());
    Some(Duration::from_secs_f64(seconds))
}

/// A time, in seconds or milliseconds since the Unix epoch or by RFC 3339; at most ten years from `now`.
fn at(json: &str, now: Timestamp) -> Option<Timestamp> {
    let time = match number(json) {
        Some(number) if number < MILLISECONDS => (number * 1000.0) as u64,
        Some(number) => number as u64,
        None => rfc3339(text(json)?.expose().trim())?,
    };
    Some(Timestamp::from_millis(time).min(now.saturating_add(MAX_LIFETIME)))
}

fn after_or_at(json: &str, now: Timestamp) -> Option<Timestamp> {
    match number(json)? {
        number if number >= TIME => at(json, now),
        _ => after(json, now),
    }
}

/// A number, also one in a string.
fn number(json: &str) -> Option<f64> {
    let text = text(json);
    let digits = text.as_ref().map_or(json, |text| text.expose()).trim();
    // What is left out are the names `inf` and `nan`.
    let is_number =
        digits.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    digits
        .parse()
        .ok()
        .filter(|_| is_number && !digits.ends_with(char::is_alphabetic))
}

/// A time with its zone, in milliseconds since the Unix epoch.
pub(crate) fn rfc3339(text: &str) -> Option<u64> {
    let number = |text: &str, at: Range<usize>, limit: Range<i64>| {
        let digits = text.get(at)?;
        let number = digits.parse().ok()?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && limit.contains(&number)).then_some(number)
    };
    let (date, rest) = text.split_at_checked(10)?;
    let (time, zone) = rest.split_at_checked(9)?;
    let marks = [
        date.get(4..5)?,
        date.get(7..8)?,
        time.get(3..4)?,
        time.get(6..7)?,
    ];
    if marks != ["-", "-", ":", ":"] || !time.starts_with(['T', 't', ' ']) {
        return None;
    }
    let year = number(date, 0..4, 1970..10_000)?;
    let (month, day) = (number(date, 5..7, 1..13)?, number(date, 8..10, 1..32)?);
    let (hour, minute) = (number(time, 1..3, 0..24)?, number(time, 4..6, 0..60)?);
    let second = number(time, 7..9, 0..61)?;
    let fraction = zone.strip_prefix('.').unwrap_or_default();
    let zone = match fraction.find(|digit: char| !digit.is_ascii_digit()) {
        Some(0) => return None,
        Some(end) => &fraction[end..],
        None => zone,
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let is_whole = zone.len() == 6 && zone.get(3..4) == Some(":");
            let minutes = number(zone, 4..6, 0..60).filter(|_| is_whole)?;
            sign * (number(zone, 1..3, 0..24)? * 60 + minutes)
        }
    };
    // Days since the epoch, of years that begin in March: the day that leap years add is their last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leap + (153 * month + 2) / 5 + day - 1 - 719_468;
    let minutes = (days * 24 + hour) * 60 + minute - offset;
    u64::try_from((minutes * 60 + second) * 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_rfc_3339_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-29T23:40:20z", 1_795_995_620),
            ("2026-11-29 23:40:20Z", 1_795_995_620),
            ("2026-11-29T23:40:20.5129Z", 1_795_995_620),
            ("2026-11-30T01:10:20+01:30", 1_795_995_620),
            ("2026-11-29T15:40:20.1-08:00", 1_795_995_620),
            ("2027-03-01T00:00:00+00:00", 1_803_859_200),
        ] {
            assert_eq!(rfc3339(text), Some(expected * 1000), "{text}");
        }
        for odd in [
            "",
            "tomorrow",
            "2026-11-29",
            "2026-11-29T23:40:20",
            "2026-13-29T23:40:20Z",
            "2026-11-29T24:40:20Z",
            "2026-11-29T23:40:20.Z",
            "2026-11-29T23:40:20.5",
            "2026-11-29T23:40:20+0100",
            "2026-11-29T23:40:20+01:00 or so",
            "+026-11-29T23:40:20Z",
            "06/20/2026 02:57:58 +00:00",
            "２026-11-29T23:40:20Z",
        ] {
            assert_eq!(rfc3339(odd), None, "{odd}");
        }
    }

    #[test]
    fn numbers_are_read_in_each_notation() {
        for json in [
            "3600",
            "3600.0",
            "3.6e3",
            "36E2",
            r#""3600""#,
            r#"" 3600 ""#,
            r#""+3600""#,
        ] {
            assert_eq!(number(json), Some(3600.0), "{json}");
        }
        for odd in [
            "",
            "true",
            "{}",
            "[3600]",
            r#""""#,
            r#""inf""#,
            r#""nan""#,
            r#""-inf""#,
            r#""3,600""#,
        ] {
            assert_eq!(number(odd), None, "{odd}");
        }
    }
}
