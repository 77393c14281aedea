//! `PassphraseProtector`: the ring's keys wrapped under a passphrase.

use std::fmt;
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::{KeyId, RingKey};
use super::protector::{KeyProtector, unwrap, wrap};
use super::repository::KeyFuture;
use crate::secret::Secret;

const VERSION: u8 = 1;
const SALT: usize = 16;
/// Memory in KiB, passes, lanes: the second recommendation of RFC 9106, § 4. A tenth of a second at
/// start.
const COST: (u32, u32, u32) = (64 << 10, 3, 4);
const MIN_LEN: usize = 12;
/// Keys that are remembered, so that each salt is worked out once.
const REMEMBERED: usize = 32;

/// Wraps the ring's keys under a passphrase, with Argon2id (64 MiB, 3 passes, 4 lanes: the second
/// recommendation of RFC 9106). What it yields is as strong as the passphrase: take one that a
/// machine has made, or rather a [`RingKey`] from a secret store.
///
/// # Format
///
/// Version 1 (one byte), salt (16 bytes), then nonce (12), the key encrypted with AES-256-GCM-SIV
/// (32) and tag (16), which covers version and salt too. The parameters belong to the version.
pub struct PassphraseProtector {
    /// The first one wraps.
    passphrases: Arc<[Secret]>,
    /// Salt and key of what this process wraps.
    own: ([u8; SALT], RingKey),
    id: String,
    remembered: Arc<Mutex<Vec<Remembered>>>,
}

struct Remembered {
    salt: [u8; SALT],
    passphrase: usize,
    key: RingKey,
}

impl PassphraseProtector {
    /// The passphrase: at least 12 bytes. Takes some tenths of a second, by design: call it before
    /// you serve.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Malformed`] for a shorter one, [`KeyRingErrorKind::Randomness`].
    pub fn new(passphrase: impl Into<Secret>) -> Result<Self, KeyRingError> {
        let passphrase = checked(passphrase.into())?;
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|error| KeyRingErrorKind::Randomness.because(error))?;
        let own = (salt, derive(&passphrase, &salt)?);
        // Worked out as slowly as any key of it, so that it gives an attacker nothing.
        let id = derive(&passphrase, b"tower-token-cache passphrase id")?;
        Ok(Self {
            passphrases: [passphrase].into(),
            own,
            id: format!("passphrase:{}", KeyId::of(&id)),
            remembered: Arc::default(),
        })
    }

    /// Also unwraps what was wrapped under this older passphrase.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn accept(mut self, passphrase: impl Into<Secret>) -> Result<Self, KeyRingError> {
        let accepted = checked(passphrase.into())?;
        let passphrases = self.passphrases.iter().cloned();
        self.passphrases = passphrases.chain([accepted]).collect();
        Ok(self)
    }

    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, KeyRingError> {
        let (salt, by) = &self.own;
        let mut wrapped = Vec::with_capacity(1 + SALT + 12 + 32 + 16);
        wrapped.push(VERSION);
        wrapped.extend_from_slice(salt);
        let inner = wrap(by, &wrapped, key)?;
        wrapped.extend_from_slice(&inner);
        Ok(wrapped)
    }
}

fn checked(passphrase: Secret) -> Result<Secret, KeyRingError> {
    match passphrase.len() < MIN_LEN {
        true => Err(KeyRingErrorKind::Malformed.into()),
        false => Ok(passphrase),
    }
}

fn derive(passphrase: &Secret, salt: &[u8]) -> Result<RingKey, KeyRingError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, Some(32));
    let mut key = Zeroizing::new([0; 32]);
    params
        .and_then(|params| {
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                passphrase.expose().as_bytes(),
                salt,
                &mut key[..],
            )
        })
        .map_err(|error| KeyRingErrorKind::Protector.because(error))?;
    Ok(RingKey::from_bytes(*key))
}

fn opened(
    passphrases: &[Secret],
    remembered: &Mutex<Vec<Remembered>>,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
    let refused = || KeyRingError::new(KeyRingErrorKind::Protector);
    let (head, inner) = wrapped.split_at_checked(1 + SALT).ok_or_else(refused)?;
    let salt = <[u8; SALT]>::try_from(&head[1..]).map_err(|_| refused())?;
    if head[0] != VERSION {
        return Err(refused());
    }
    // Held while a key is worked out, so that it is worked out once.
    let mut remembered = remembered.lock();
    for (number, passphrase) in passphrases.iter().enumerate() {
        let known = remembered
            .iter()
            .find(|known| known.salt == salt && known.passphrase == number);
        let key = match known {
            Some(known) => known.key.clone(),
            None => {
                let key = derive(passphrase, &salt)?;
                if remembered.len() == REMEMBERED {
                    remembered.remove(0);
                }
                remembered.push(Remembered {
                    salt,
                    passphrase: number,
                    key: key.clone(),
                });
                key
            }
        };
        if let Ok(key) = unwrap(&key, head, inner) {
            return Ok(key);
        }
    }
    Err(refused())
}

impl KeyProtector for PassphraseProtector {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn protect<'a>(&'a self, key: &'a [u8; 32]) -> KeyFuture<'a, Vec<u8>> {
        Box::pin(async { self.wrap(key) })
    }

    fn unprotect<'a>(&'a self, wrapped: &'a [u8]) -> KeyFuture<'a, Zeroizing<Vec<u8>>> {
        let (passphrases, remembered) = (self.passphrases.clone(), self.remembered.clone());
        let wrapped = wrapped.to_vec();
        Box::pin(super::dir::blocking(move || {
            opened(&passphrases, &remembered, &wrapped)
        }))
    }
}

impl fmt::Debug for PassphraseProtector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassphraseProtector")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "passphrase_tests.rs"]
mod tests;
