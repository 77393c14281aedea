//! Durations, sizes and times as people write them.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

#[cfg(feature = "seal")]
use crate::answer::rfc3339;
#[cfg(feature = "seal")]
use crate::time::Timestamp;

/// How a value is read from text.
pub(super) trait Written: Sized {
    /// What the text should have been.
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Option<Self>;

    /// A number that is none of a duration, as it would have no unit.
    fn from_number(_: u64) -> Option<Self> {
        None
    }
}

/// A value in a configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Human<T>(pub(super) T);

/// A number of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes(pub(super) u64);

/// A number of bytes below 4 GiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct FewBytes(pub(super) u32);

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: [(&str, u64); 4] = [
    ("", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A whole number with one of these units behind it.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let (_, factor) = units
        .iter()
        .find(|(known, _)| *known == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl Written for Duration {
    const EXPECTED: &'static str =
        "a whole number with its unit, such as 250ms, 1s, 5m, 12h or 14d";

    fn parse(text: &str) -> Option<Self> {
        with_unit(text, &TIMES).map(Self::from_millis)
    }
}

impl Written for Bytes {
    const EXPECTED: &'static str = "a whole number of bytes, or one with KiB, MiB or GiB behind it";

    fn parse(text: &str) -> Option<Self> {
        with_unit(text, &SIZES).map(Self)
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(Self(number))
    }
}

impl Written for FewBytes {
    const EXPECTED: &'static str =
        "below 4 GiB: a whole number of bytes, or one with KiB, MiB or GiB behind it";

    fn parse(text: &str) -> Option<Self> {
        let Bytes(bytes) = Bytes::parse(text)?;
        Self::from_number(bytes)
    }

    fn from_number(number: u64) -> Option<Self> {
        u32::try_from(number).ok().map(Self)
    }
}

#[cfg(feature = "seal")]
impl Written for Timestamp {
    const EXPECTED: &'static str = "a time with its zone, such as 2027-01-31T04:00:00Z";

    fn parse(text: &str) -> Option<Self> {
        rfc3339(text).map(Self::from_millis)
    }
}

/// The word for a setting that can be `None`.
impl<T: Written> Written for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(None),
            text => T::parse(text).map(Some),
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        T::from_number(number).map(Some)
    }
}

impl<'de, T: Written> Deserialize<'de> for Human<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader(PhantomData))
    }
}

struct Reader<T>(PhantomData<T>);

impl<T: Written> Visitor<'_> for Reader<T> {
    type Value = Human<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Human<T>, E> {
        let value = T::parse(text).map(Human);
        value.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Human<T>, E> {
        let value = T::from_number(number).map(Human);
        value.ok_or_else(|| E::invalid_type(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Human<T>, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let good = [
            ("250ms", 250),
            ("1s", 1000),
            ("5m", 300_000),
            ("12 h", 43_200_000),
            ("14d", 1_209_600_000),
            ("0s", 0),
        ];
        for (text, millis) in good {
            let time = Duration::parse(text).expect(text);
            assert_eq!(time, Duration::from_millis(millis), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1S",
            "5min",
            "1h30m",
            " 1s",
            "1s ",
            "none",
            "٣s",
            "18446744073709551615d",
            "99999999999999999999s",
        ] {
            assert_eq!(Duration::parse(text), None, "{text}");
        }
        assert_eq!(Option::<Duration>::parse("none"), Some(None));
    }

    #[test]
    fn sizes_need_none() {
        let bytes = |text| Bytes::parse(text).map(|size| size.0);
        assert_eq!(bytes("17"), Some(17));
        assert_eq!(bytes("64MiB"), Some(64 << 20));
        assert_eq!(bytes("2 GiB"), Some(2 << 30));
        assert_eq!(bytes("64MB").or(bytes("")).or(bytes("MiB")), None);
    }
}
