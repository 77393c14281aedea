//! What stands for sessions in cookies where there are none: without feature `cookie` these types have no values.

use std::sync::Arc;

use crate::cache::TokenCache;
use crate::key::{PartitionKey, RequestHead};

#[derive(Clone)]
enum Never {}

#[derive(Clone)]
pub(crate) struct CookieStore(Never);

pub(crate) struct Exchange(Never);

pub(crate) struct Pinned(Never);

impl Exchange {
    pub(crate) fn begin(
        store: &CookieStore,
        _: &TokenCache,
        _: &RequestHead<'_>,
    ) -> (Self, PartitionKey) {
        match store.0 {}
    }

    pub(crate) fn pinned(&self) -> &Arc<Pinned> {
        match self.0 {}
    }

    pub(crate) fn limit(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn finish(self) -> Vec<String> {
        match self.0 {}
    }
}

impl Pinned {
    pub(crate) fn refusals(&self) -> (u64, usize) {
        match self.0 {}
    }
}
