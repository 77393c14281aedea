//! `Cookie` as a `KeyExtractor`.

use super::Cookie;
use crate::key::{KeyError, KeyExtractor, PartitionKey, RequestHead};

impl KeyExtractor for Cookie {
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        let found = self.find(request)?;
        Ok(found.map(|found| found.session))
    }

    fn issues(&self) -> Option<&Cookie> {
        Some(self)
    }
}
