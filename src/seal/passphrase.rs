//! `PassphraseProtector`: the ring's keys wrapped under a passphrase.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::{KeyId, RingKey};
use super::protector::{KeyProtector, unwrap, wrap};
use crate::secret::Secret;

const VERSION: u8 = 1;
const SALT: usize = 16;
/// Memory in KiB, passes, lanes: the second recommendation of RFC 9106, § 4. A tenth of a second at
/// start.
const COST: (u32, u32, u32) = (64 << 10, 3, 4);
const MIN_LEN: usize = 12;
/// Keys that are remembered, so that each salt is worked out once.
const REMEMBERED: usize = 32;
/// Texts that did not unwrap and are remembered, so that each costs its work once. More than a
/// repository holds records.
const REFUSED: usize = 1024;

/// Wraps the ring's keys under a passphrase, with Argon2id (64 MiB, 3 passes, 4 lanes: the second
/// recommendation of RFC 9106). What it yields is as strong as the passphrase: take one that a
/// machine has made, or rather a [`RingKey`] from a secret store.
///
/// # Format
///
/// Version 1 (one byte), salt (16 bytes), then nonce (12), the key encrypted with AES-256-GCM-SIV
/// (32) and tag (16), which covers version and salt too. The parameters belong to the version.
///
/// The salt is random, one for each repository: that of the first record that unwraps. The
/// [`id`](KeyProtector::id) is a digest of the key that the passphrase and this salt give: it tells
/// a guess no sooner than a wrapped key does.
pub struct PassphraseProtector {
    /// The first one wraps.
    passphrases: Arc<[Secret]>,
    own: Arc<RwLock<Own>>,
    known: Arc<Mutex<Known>>,
}

/// What this process wraps with.
struct Own {
    salt: [u8; SALT],
    key: RingKey,
    /// Whether the salt is that of a repository.
    settled: bool,
}

/// What was worked out.
#[derive(Default)]
struct Known {
    keys: Vec<Remembered>,
    /// Digests of what did not unwrap.
    refused: HashSet<[u8; 32]>,
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
        let own = Own {
            salt,
            key: derive(&passphrase, &salt)?,
            settled: false,
        };
        Ok(Self {
            passphrases: [passphrase].into(),
            own: Arc::new(RwLock::new(own)),
            known: Arc::default(),
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
        self.known.lock().refused.clear();
        Ok(self)
    }

    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, KeyRingError> {
        let own = self.own.read();
        let mut wrapped = Vec::with_capacity(1 + SALT + 12 + 32 + 16);
        wrapped.push(VERSION);
        wrapped.extend_from_slice(&own.salt);
        let inner = wrap(&own.key, &wrapped, key)?;
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
    own: &RwLock<Own>,
    known: &Mutex<Known>,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
    let refused = || KeyRingError::new(KeyRingErrorKind::Protector);
    let (head, inner) = wrapped.split_at_checked(1 + SALT).ok_or_else(refused)?;
    let salt = <[u8; SALT]>::try_from(&head[1..]).map_err(|_| refused())?;
    let digest = Sha256::digest(wrapped).into();
    // Held while a key is worked out, so that it is worked out once.
    let mut known = known.lock();
    if head[0] != VERSION || known.refused.contains(&digest) {
        return Err(refused());
    }
    let mut derived = Vec::with_capacity(passphrases.len());
    for (number, passphrase) in passphrases.iter().enumerate() {
        let found = known.find(salt, number);
        let by = match found {
            Some(by) => by,
            None => derive(passphrase, &salt)?,
        };
        derived.push(by);
        if let Ok(key) = unwrap(&derived[number], head, inner) {
            known.remember(salt, &derived);
            own.write().settle(salt, &derived[0]);
            return Ok(key);
        }
    }
    // Salts are cheap to invent: those that open nothing push out none that do.
    if known.refused.len() == REFUSED {
        known.refused.clear();
    }
    known.refused.insert(digest);
    Err(refused())
}

impl Known {
    fn find(&self, salt: [u8; SALT], passphrase: usize) -> Option<RingKey> {
        let mut keys = self.keys.iter();
        let found = keys.find(|known| known.salt == salt && known.passphrase == passphrase);
        found.map(|known| known.key.clone())
    }

    fn remember(&mut self, salt: [u8; SALT], derived: &[RingKey]) {
        for (passphrase, key) in derived.iter().enumerate() {
            if self.find(salt, passphrase).is_some() {
                continue;
            }
            if self.keys.len() == REMEMBERED {
                self.keys.remove(0);
            }
            self.keys.push(Remembered {
                salt,
                passphrase,
                key: key.clone(),
            });
        }
    }
}

impl Own {
    /// Takes the salt of a repository over, once: all instances that read the same first record wrap
    /// with the same key, and are called the same.
    fn settle(&mut self, salt: [u8; SALT], key: &RingKey) {
        if !self.settled {
            *self = Self {
                salt,
                key: key.clone(),
                settled: true,
            };
        }
    }
}

impl KeyProtector for PassphraseProtector {
    fn id(&self) -> String {
        format!("passphrase:{}", KeyId::of(&self.own.read().key))
    }

    async fn protect(&self, key: &[u8; 32]) -> Result<Vec<u8>, KeyRingError> {
        self.wrap(key)
    }

    async fn unprotect(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
        let passphrases = self.passphrases.clone();
        let (own, known) = (self.own.clone(), self.known.clone());
        let wrapped = wrapped.to_vec();
        super::dir::blocking(move || opened(&passphrases, &own, &known, &wrapped)).await
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
