//! What stands for encryption where there is none: without feature `seal` these types have no values.

use bytes::Bytes;

use crate::codec::{Unopenable, Value};
use crate::key::TokenKey;
use crate::store::{EntryId, Loaded, Names, PartitionId, StoredEntry};

pub(crate) enum Sealing {}

impl Sealing {
    pub(crate) fn is_in_force(&self) -> bool {
        match *self {}
    }

    pub(crate) fn names(&self) -> Names {
        match *self {}
    }

    pub(crate) fn accepts_plaintext(&self) -> bool {
        match *self {}
    }

    pub(crate) fn lacks_a_key(&self, _: &Loaded) -> bool {
        match *self {}
    }

    pub(crate) async fn learn_keys(&self, _: &Loaded) {
        match *self {}
    }

    pub(crate) fn sealer(&self, _: &PartitionId) -> Sealer {
        match *self {}
    }

    pub(crate) fn opener<'a>(&'a self, _: &'a PartitionId) -> Opener<'a> {
        match *self {}
    }
}

pub(crate) enum Sealer {}

impl Sealer {
    pub(crate) fn seal(&self, _: (&PartitionId, u64, EntryId), _: &str, _: &Value) -> Bytes {
        match *self {}
    }
}

pub(crate) struct Opener<'a>(&'a Sealing);

impl Opener<'_> {
    pub(crate) fn open(
        &mut self,
        _: &StoredEntry,
        _: u64,
        _: impl FnOnce(&str) -> bool,
    ) -> Option<Result<(TokenKey, Value), Unopenable>> {
        match *self.0 {}
    }

    pub(crate) fn accepts_plaintext(&self) -> bool {
        match *self.0 {}
    }
}
