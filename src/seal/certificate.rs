//! `CertificateProtector`: the ring's keys wrapped for an X.509 certificate.

use std::fmt;

use p256::ecdh::{SharedSecret, diffie_hellman};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::DecodePrivateKey;
use p256::pkcs8::der::{Decode, DecodePem, Encode};
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use zeroize::{Zeroize, Zeroizing};

use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::RingKey;
use super::protector::{KeyProtector, unwrap, wrap};

const VERSION: u8 = 1;
const FINGERPRINT: usize = 32;
/// A point on P-256, compressed.
const POINT: usize = 33;
const BEFORE: usize = 1 + FINGERPRINT + POINT;
const PURPOSE: &[u8] = b"tower-token-cache certificate v1\0";

/// Wraps the ring's keys for the P-256 key of an X.509 certificate, with ECDH: whoever has the
/// certificate's private key can unwrap them.
///
/// The first certificate wraps; it and all that are [accepted](Self::accept_pem) besides unwrap. To
/// replace a certificate: give all instances the new one as accepted, then put it first with the old
/// one accepted; the ring adds copies that are wrapped for it, after which the old one can go.
///
/// A certificate is only the container of a key here: neither its validity nor its issuer is
/// looked at, because keys of an expired certificate have to be unwrapped too.
///
/// # Why no RSA
///
/// Unwrapping with RSA needs an implementation whose time does not depend on the key. The one
/// in Rust has not got that (RUSTSEC-2023-0071), and the others need a C library of their own. A
/// service whose certificates are RSA can unwrap with its key service instead: see
/// [`KeyProtector`].
///
/// # Format
///
/// Version 1 (one byte), SHA-256 of the certificate's public key (its `SubjectPublicKeyInfo`, 32
/// bytes), ephemeral public key (compressed, 33 bytes), then nonce (12), the key encrypted with
/// AES-256-GCM-SIV (32) and tag (16). The encryption key is HKDF-SHA-256 of the shared secret, with
/// everything before the nonce as its info; the tag covers that too.
pub struct CertificateProtector {
    /// The first one wraps.
    identities: Vec<Identity>,
}

struct Identity {
    fingerprint: [u8; FINGERPRINT],
    public: PublicKey,
    secret: SecretKey,
}

impl CertificateProtector {
    /// The certificate and private key in a PEM text: the first `CERTIFICATE` block, and the first
    /// `PRIVATE KEY` (PKCS#8) or `EC PRIVATE KEY` (SEC 1) block, not encrypted.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Malformed`] when one is missing or cannot be read, is for another curve
    /// than P-256, or when they do not belong together.
    pub fn from_pem(pem: &str) -> Result<Self, KeyRingError> {
        Ok(Self {
            identities: vec![Identity::from_pem(pem)?],
        })
    }

    /// The certificate and private key in a PKCS#12 file (`.p12`, `.pfx`) with this password, as
    /// OpenSSL 3 and Windows write it (PBES2; the RC2 and 3DES of older tools are refused).
    ///
    /// # Errors
    /// As for [`from_pem`](Self::from_pem), and for a wrong password.
    pub fn from_pkcs12(file: &[u8], password: &str) -> Result<Self, KeyRingError> {
        Ok(Self {
            identities: vec![Identity::from_pkcs12(file, password)?],
        })
    }

    /// Also unwraps what was wrapped for this certificate.
    ///
    /// # Errors
    /// As for [`from_pem`](Self::from_pem).
    pub fn accept_pem(mut self, pem: &str) -> Result<Self, KeyRingError> {
        self.identities.push(Identity::from_pem(pem)?);
        Ok(self)
    }

    /// Also unwraps what was wrapped for this certificate.
    ///
    /// # Errors
    /// As for [`from_pkcs12`](Self::from_pkcs12).
    pub fn accept_pkcs12(mut self, file: &[u8], password: &str) -> Result<Self, KeyRingError> {
        self.identities.push(Identity::from_pkcs12(file, password)?);
        Ok(self)
    }

    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, KeyRingError> {
        let recipient = &self.identities[0];
        let ephemeral = random_secret()?;
        let mut wrapped = Vec::with_capacity(BEFORE + 12 + 32 + 16);
        wrapped.push(VERSION);
        wrapped.extend_from_slice(&recipient.fingerprint);
        wrapped.extend_from_slice(ephemeral.public_key().to_sec1_point(true).as_bytes());
        let shared = diffie_hellman(ephemeral.to_nonzero_scalar(), recipient.public.as_affine());
        let inner = wrap(&encryption_key(&shared, &wrapped)?, &wrapped, key)?;
        wrapped.extend_from_slice(&inner);
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
        let refused = || KeyRingError::new(KeyRingErrorKind::Protector);
        let (head, inner) = wrapped.split_at_checked(BEFORE).ok_or_else(refused)?;
        let (fingerprint, point) = head[1..].split_at(FINGERPRINT);
        let mut known = self.identities.iter();
        let known =
            known.find(|identity| head[0] == VERSION && identity.fingerprint == fingerprint);
        let identity = known.ok_or_else(refused)?;
        let ephemeral = PublicKey::from_sec1_bytes(point).map_err(|_| refused())?;
        let shared = diffie_hellman(identity.secret.to_nonzero_scalar(), ephemeral.as_affine());
        unwrap(&encryption_key(&shared, head)?, head, inner)
    }
}

fn encryption_key(shared: &SharedSecret, info: &[u8]) -> Result<RingKey, KeyRingError> {
    let mut key = [0; 32];
    shared
        .extract::<Sha256>(None)
        .expand_multi_info(&[PURPOSE, info], &mut key)
        .map_err(|_| KeyRingErrorKind::Protector)?;
    let encryption_key = RingKey::from_bytes(key);
    key.zeroize();
    Ok(encryption_key)
}

/// All but one in 2³² of random numbers are keys.
fn random_secret() -> Result<SecretKey, KeyRingError> {
    for _ in 0..4 {
        let bytes = RingKey::generate()?;
        if let Ok(secret) = SecretKey::from_slice(bytes.expose()) {
            return Ok(secret);
        }
    }
    Err(KeyRingErrorKind::Randomness.into())
}

impl Identity {
    fn from_pem(pem: &str) -> Result<Self, KeyRingError> {
        let certificate = block(pem, |label| label == "CERTIFICATE").ok_or_else(malformed)?;
        let certificate = Certificate::from_pem(certificate).map_err(|_| malformed())?;
        let secret = block(pem, |label| {
            matches!(label, "PRIVATE KEY" | "EC PRIVATE KEY")
        });
        let secret = secret.ok_or_else(malformed)?;
        let secret = match secret.contains("BEGIN EC ") {
            true => SecretKey::from_sec1_pem(secret).map_err(|_| malformed())?,
            false => SecretKey::from_pkcs8_pem(secret).map_err(|_| malformed())?,
        };
        Self::new(&certificate, secret)
    }

    fn from_pkcs12(file: &[u8], password: &str) -> Result<Self, KeyRingError> {
        let policy = p12_keystore::Pkcs12ImportPolicy::Relaxed;
        // Its errors may show what they could not read.
        let store =
            p12_keystore::KeyStore::from_pkcs12(file, password, policy).map_err(|_| malformed())?;
        let (_, chain) = store.private_key_chain().ok_or_else(malformed)?;
        let certificate = chain.certs().first().ok_or_else(malformed)?;
        let certificate = Certificate::from_der(certificate.as_der()).map_err(|_| malformed())?;
        let secret = SecretKey::from_pkcs8_der(chain.key().as_der()).map_err(|_| malformed())?;
        Self::new(&certificate, secret)
    }

    fn new(certificate: &Certificate, secret: SecretKey) -> Result<Self, KeyRingError> {
        let info = certificate.tbs_certificate().subject_public_key_info();
        let point = info.subject_public_key.as_bytes().ok_or_else(malformed)?;
        let public = PublicKey::from_sec1_bytes(point).map_err(|_| malformed())?;
        if public != secret.public_key() {
            return Err(malformed());
        }
        let info = info.to_der().map_err(|_| malformed())?;
        Ok(Self {
            fingerprint: Sha256::digest(info).into(),
            public,
            secret,
        })
    }
}

fn malformed() -> KeyRingError {
    KeyRingErrorKind::Malformed.into()
}

/// The first block of a PEM text with such a label, its markers included.
fn block(pem: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    let mut rest = pem;
    loop {
        let start = rest.find("-----BEGIN ")?;
        rest = &rest[start..];
        let label = rest["-----BEGIN ".len()..].split("-----").next()?;
        let end_mark = format!("-----END {label}-----");
        let end = rest.find(&end_mark)? + end_mark.len();
        if wanted(label) {
            return Some(&rest[..end]);
        }
        rest = &rest[end..];
    }
}

impl KeyProtector for CertificateProtector {
    fn id(&self) -> String {
        use fmt::Write as _;
        let fingerprint = &self.identities[0].fingerprint;
        fingerprint.iter().fold("x509:".into(), |mut id, byte| {
            // Writing to a string does not fail.
            let _ = write!(id, "{byte:02x}");
            id
        })
    }

    async fn protect(&self, key: &[u8; 32]) -> Result<Vec<u8>, KeyRingError> {
        self.wrap(key)
    }

    async fn unprotect(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
        self.unwrap(wrapped)
    }
}

impl fmt::Debug for CertificateProtector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateProtector")
            .field("id", &self.id())
            .field("accepted", &(self.identities.len() - 1))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
