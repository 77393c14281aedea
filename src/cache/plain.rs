//! What stands for the settings of encryption where there is none: without feature `seal`.

use tokio::runtime::Handle;

use crate::engine::l2::sealing::Sealing;
use crate::error::ConfigError;
use crate::time::Clock;

pub(crate) struct Encryption;

impl Encryption {
    pub(crate) fn none() -> Self {
        Self
    }

    pub(crate) fn is_on(&self) -> bool {
        false
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    pub(crate) fn fingerprint(&self) -> String {
        String::new()
    }

    pub(crate) fn start(self, _: &Clock, _: &Handle) -> Option<Sealing> {
        None
    }
}
