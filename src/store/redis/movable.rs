//! Partitions that are moved to another store, or from one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bb8_redis::redis::{Pipeline, Value};

use super::answers::{lacks_type, store_error, time, unexpected};
use super::scripts::{self, hash_key};
use super::{RedisStore, record};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{CommitId, Listed, Listing, Movable, Origin, PartitionId, Portable};

/// Keys that one step of a listing looks at: a server answers nothing else meanwhile, for a fraction of a
/// millisecond.
const STEP: usize = 500;

impl Movable for RedisStore {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("HGETALL").arg(hash_key(partition)).cmd("TIME");
        let answers = self.send(&pipeline).await?;
        let [hash, now] = <[_; 2]>::try_from(answers).map_err(|_| unexpected())?;
        let whole = match hash {
            Ok(hash) => record::whole(hash, time(now)?).ok_or_else(unexpected)?,
            Err(error) if lacks_type(&error) => return Ok(None),
            Err(error) => return Err(store_error(error)),
        };
        // A head that was written has the id of a commit, a sign-out or an epoch.
        Ok(Some(whole.portable).filter(|portable| !portable.recent.is_empty()))
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        let command = scripts::adopt(partition, it);
        let answer = self.run_one(&scripts::ADOPT, command).await?;
        yes_or_no(&answer)
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        let command = scripts::leave(from, id);
        let answer = self.run_one(&scripts::LEAVE, command).await?;
        yes_or_no(&answer)
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        let command = scripts::remove(partition, last);
        let answer = self.run_one(&scripts::REMOVE, command).await?;
        yes_or_no(&answer)
    }
}

/// By `SCAN`, which needs the right `+scan`. A cluster is [`Refused`](StoreErrorKind::Refused): a listing is of one
/// server. A cursor holds until the server restarts or another becomes the master.
impl Listed for RedisStore {
    async fn list(&self, namespace: &str, cursor: Option<&[u8]>) -> Result<Listing, StoreError> {
        if self.is_cluster() {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        let mut pipeline = Pipeline::with_capacity(1);
        let scan = pipeline.cmd("SCAN").arg(cursor.unwrap_or(b"0"));
        // The letters of a namespace mean nothing in a pattern.
        scan.arg("MATCH").arg(format!("{namespace}:{{*}}"));
        scan.arg("COUNT").arg(STEP);
        let mut answers = self.send(&pipeline).await?.into_iter();
        let answer = answers
            .next()
            .ok_or_else(unexpected)?
            .map_err(store_error)?;
        listing(namespace, answer).ok_or_else(unexpected)
    }
}

fn listing(namespace: &str, answer: Value) -> Option<Listing> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [Value::BulkString(next), Value::Array(keys)] = <[Value; 2]>::try_from(parts).ok()? else {
        return None;
    };
    let partition = |key: &Value| {
        let Value::BulkString(key) = key else {
            return None;
        };
        let key = std::str::from_utf8(key).ok()?;
        let encoded = key.strip_prefix(namespace)?.strip_prefix(":{")?;
        let digest = URL_SAFE_NO_PAD.decode(encoded.strip_suffix('}')?).ok()?;
        Some(PartitionId::from_digest(namespace, digest.try_into().ok()?))
    };
    Some(Listing {
        partitions: keys.iter().filter_map(partition).collect(),
        next: Some(next).filter(|next| next != b"0"),
    })
}

fn yes_or_no(answer: &Value) -> Result<bool, StoreError> {
    match answer {
        Value::Int(1) => Ok(true),
        Value::Int(0) => Ok(false),
        _ => Err(unexpected()),
    }
}
