//! `KeyProtector`: what wraps the ring's keys at rest.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use zeroize::Zeroizing;

use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::{KeyId, RingKey};

const PURPOSE: &[u8] = b"tower-token-cache wrap v1\0";

/// Wraps the ring's keys before they go into the repository, and unwraps them when an instance
/// reads them: once at start and once per new key, never on the path of a request.
///
/// Ours are [`RingKey`] (a key that wraps keys, from a secret store), and with their features
/// `CertificateProtector` and `PassphraseProtector`. The trait also fits a key service, whose keys
/// never leave it:
///
/// | service | `protect` | `unprotect` | `id` |
/// |---|---|---|---|
/// | Azure Key Vault | `wrapKey` (`RSA-OAEP-256`); keep the `kid` of the answer beside `value` | `unwrapKey` at that `kid` | the key's URL with its version |
/// | AWS KMS | `Encrypt`, and keep `CiphertextBlob` | `Decrypt` | the key's ARN |
/// | Vault transit | `encrypt/:name`, and keep the `vault:v1:…` text | `decrypt/:name` | the key's name and version |
///
/// The methods are written as `async fn`. The key is 32 bytes: short enough for RSA-OAEP with 2048 bits.
/// Whatever is needed to unwrap it, such as the version of the service's key, belongs into the wrapped
/// bytes.
pub trait KeyProtector: Send + Sync + 'static {
    /// Names what [`protect`](Self::protect) wraps with now, the version included. Not secret. When
    /// it changes, the ring adds copies of its keys that are wrapped with the new one, so that the
    /// old one can be retired once every instance has the new one.
    fn id(&self) -> String;

    /// Wraps a key. At most 8 KiB.
    fn protect(&self, key: &[u8; 32])
    -> impl Future<Output = Result<Vec<u8>, KeyRingError>> + Send;

    /// Unwraps what this or any accepted older certificate, passphrase or key has wrapped.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Protector`] when it cannot.
    fn unprotect(
        &self,
        wrapped: &[u8],
    ) -> impl Future<Output = Result<Zeroizing<Vec<u8>>, KeyRingError>> + Send;
}

/// A key that wraps keys, from an environment variable or a secret store.
impl KeyProtector for RingKey {
    fn id(&self) -> String {
        format!("key:{}", KeyId::of(self))
    }

    async fn protect(&self, key: &[u8; 32]) -> Result<Vec<u8>, KeyRingError> {
        wrap(&self.derive(PURPOSE), &[], key)
    }

    async fn unprotect(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
        unwrap(&self.derive(PURPOSE), &[], wrapped)
    }
}

/// Nonce, key encrypted with AES-256-GCM-SIV, tag.
pub(super) fn wrap(by: &RingKey, data: &[u8], key: &[u8]) -> Result<Vec<u8>, KeyRingError> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).map_err(|error| KeyRingErrorKind::Randomness.because(error))?;
    let mut wrapped = Vec::with_capacity(nonce.len() + key.len() + 16);
    wrapped.extend_from_slice(&nonce);
    wrapped.extend_from_slice(key);
    let tag = Aes256GcmSiv::new(by.expose().into())
        .encrypt_inout_detached(&nonce, data, wrapped[nonce.len()..].as_mut().into())
        .map_err(|_| KeyRingErrorKind::Protector)?;
    wrapped.extend_from_slice(&tag);
    Ok(wrapped)
}

/// What [`wrap`] has wrapped.
pub(super) fn unwrap(
    by: &RingKey,
    data: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
    let open = || {
        let (nonce, rest) = wrapped.split_at_checked(12)?;
        let (key, tag) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
        let (nonce, tag) = (Nonce::try_from(nonce).ok()?, Tag::try_from(tag).ok()?);
        let mut key = Zeroizing::new(key.to_vec());
        Aes256GcmSiv::new(by.expose().into())
            .decrypt_inout_detached(&nonce, data, key.as_mut_slice().into(), &tag)
            .ok()?;
        Some(key)
    };
    open().ok_or_else(|| KeyRingErrorKind::Protector.into())
}
