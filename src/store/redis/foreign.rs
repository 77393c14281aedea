//! Keys in the same database that are another crate's.

use std::time::Duration;

use bb8_redis::redis::{Pipeline, Value};
use zeroize::Zeroizing;

use super::RedisStore;
use super::answers::{store_error, unexpected};
use crate::error::StoreError;

/// Keys that one step looks at.
const STEP: usize = 500;

/// A string under a key.
pub(crate) struct Foreign {
    /// Without the prefix.
    pub(crate) key: String,
    pub(crate) value: Zeroizing<Vec<u8>>,
    /// `None` is without end.
    pub(crate) remaining: Option<Duration>,
}

impl RedisStore {
    /// Whether there are several servers, each with keys of its own.
    pub(crate) fn is_cluster(&self) -> bool {
        self.links.is_cluster()
    }

    /// Some strings whose keys begin like this, and where to go on; `None` at the end. A key may come twice.
    pub(crate) async fn foreign(
        &self,
        prefix: &str,
        cursor: &[u8],
    ) -> Result<(Vec<Foreign>, Option<Vec<u8>>), StoreError> {
        let mut scan = Pipeline::with_capacity(1);
        scan.cmd("SCAN").arg(cursor);
        scan.arg("MATCH").arg(format!("{}*", literally(prefix)));
        scan.arg("COUNT").arg(STEP).arg("TYPE").arg("string");
        let mut answers = self.send(&scan).await?.into_iter();
        let answer = answers
            .next()
            .ok_or_else(unexpected)?
            .map_err(store_error)?;
        let (next, keys) = page(answer).ok_or_else(unexpected)?;
        let mut read = Pipeline::with_capacity(2 * keys.len());
        for key in &keys {
            read.cmd("GET").arg(key).cmd("PTTL").arg(key);
        }
        let mut answers = match keys.is_empty() {
            true => Vec::new().into_iter(),
            false => self.send(&read).await?.into_iter(),
        };
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let (value, ttl) = (answers.next(), answers.next());
            let value = value.ok_or_else(unexpected)?.map_err(store_error)?;
            let ttl = ttl.ok_or_else(unexpected)?.map_err(store_error)?;
            // One that has ended since is passed over.
            if let (Value::BulkString(value), Value::Int(ttl)) = (value, ttl) {
                found.push(Foreign {
                    key: key[prefix.len()..].to_owned(),
                    value: value.into(),
                    remaining: u64::try_from(ttl).ok().map(Duration::from_millis),
                });
            }
        }
        Ok((found, Some(next).filter(|next| next != b"0")))
    }
}

fn page(answer: Value) -> Option<(Vec<u8>, Vec<String>)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [Value::BulkString(next), Value::Array(keys)] = <[Value; 2]>::try_from(parts).ok()? else {
        return None;
    };
    let text = |key| match key {
        Value::BulkString(key) => String::from_utf8(key).ok(),
        _ => None,
    };
    Some((next, keys.into_iter().filter_map(text).collect()))
}

/// A pattern that stands for this text alone.
fn literally(text: &str) -> String {
    let escape = |letter| match letter {
        '*' | '?' | '[' | ']' | '\\' | '^' | '-' => vec!['\\', letter],
        other => vec![other],
    };
    text.chars().flat_map(escape).collect()
}
