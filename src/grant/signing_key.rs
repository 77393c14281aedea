//! `SigningKey`: a client's private key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::ConfigError;
use crate::secret::Secret;
use crate::wipe::Wiped;

/// A client's private key, whose public half the provider knows: for [`PrivateKeyJwt`](super::PrivateKeyJwt).
///
/// ```no_run
/// use tower_token_cache::grant::SigningKey;
///
/// let key = SigningKey::from_pem(std::fs::read("client.pem")?)?.kid("2026-11");
/// # let _ = key;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SigningKey {
    pair: Pair,
    kid: Option<Box<str>>,
    thumbprint: Option<String>,
}

enum Pair {
    Ec(Box<EcdsaKeyPair>),
    Rsa { pair: Box<RsaKeyPair>, pss: bool },
}

impl SigningKey {
    /// The first private key of a text in PEM: PKCS #8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS #1
    /// (`RSA PRIVATE KEY`).
    ///
    /// A key on the curve P-256 signs by ES256, one of RSA by RS256. It has no `kid`.
    ///
    /// # Errors
    /// [`ConfigError`] for `private_key`: there is none, it is encrypted, or it is neither on P-256 with its public key
    /// beside it nor of RSA with 2048 to 4096 bits. Nothing of the text is in the error.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let wrong = |reason| ConfigError::new("private_key", reason);
        // The parser's error may quote the text.
        let key = PrivateKeyDer::from_pem_slice(pem.as_ref())
            .map_err(|_| wrong("has to be in PEM, and not encrypted: PKCS #8, SEC 1 or PKCS #1"))?;
        let pair = match &key {
            PrivateKeyDer::Pkcs8(der) => ec(der.secret_pkcs8_der())
                .or_else(|| rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?)),
            PrivateKeyDer::Sec1(der) => ec(&pkcs8_of_p256(der.secret_sec1_der())),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .ok()
                .and_then(rsa),
            _ => None,
        };
        let pair = pair.ok_or_else(|| {
            wrong("has to be on P-256, with its public key, or of RSA with 2048 to 4096 bits")
        })?;
        Ok(Self {
            pair,
            kid: None,
            thumbprint: None,
        })
    }

    /// By which name the provider knows the key (`kid`, RFC 7515 §4.1.4): in the client's `jwks` there. Defaults to
    /// none: the provider tries all that it has.
    pub fn kid(mut self, kid: impl Into<Box<str>>) -> Self {
        self.kid = Some(kid.into());
        self
    }

    /// Names the key by its certificate in PEM (`x5t#S256`, RFC 7515 §4.1.8), as Entra ID wants it. Defaults to none.
    ///
    /// # Errors
    /// [`ConfigError`] for `certificate` if there is none in the text.
    pub fn certificate(mut self, pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let der = CertificateDer::from_pem_slice(pem.as_ref())
            .map_err(|_| ConfigError::new("certificate", "has to be in PEM"))?;
        self.thumbprint = Some(URL_SAFE_NO_PAD.encode(Sha256::digest(&der)));
        Ok(self)
    }

    /// Signs by PS256, as Entra ID wants it of certificates. Defaults to RS256, which every provider has to know
    /// (OpenID Connect Core §15.1).
    ///
    /// # Errors
    /// [`ConfigError`] for `ps256` if this is no key of RSA.
    pub fn ps256(mut self) -> Result<Self, ConfigError> {
        match &mut self.pair {
            Pair::Rsa { pss, .. } => *pss = true,
            Pair::Ec(_) => return Err(ConfigError::new("ps256", "is for keys of RSA only")),
        }
        Ok(self)
    }

    /// A JWT with these claims (RFC 7519), in compact form.
    pub(super) fn jwt(&self, claims: &impl Serialize) -> Result<Secret, Unspecified> {
        let header = Header {
            alg: self.algorithm(),
            typ: "JWT",
            kid: self.kid.as_deref(),
            thumbprint: self.thumbprint.as_deref(),
        };
        let mut jwt = part(&header)?;
        jwt.push('.');
        jwt.push_str(&part(claims)?);
        let signature = self.sign(jwt.as_bytes())?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt.into())
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ec(_) => "ES256",
            Pair::Rsa { pss: false, .. } => "RS256",
            Pair::Rsa { pss: true, .. } => "PS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&random, message)?.as_ref().into()),
            Pair::Rsa { pair, pss } => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &'static dyn ring::signature::RsaEncoding = match pss {
                    true => &RSA_PSS_SHA256,
                    false => &RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    thumbprint: Option<&'a str>,
}

fn part(value: &impl Serialize) -> Result<String, Unspecified> {
    let json = serde_json::to_vec(value).map_err(|_| Unspecified)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn ec(pkcs8: &[u8]) -> Option<Pair> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new());
    Some(Pair::Ec(Box::new(pair.ok()?)))
}

fn rsa(pair: RsaKeyPair) -> Option<Pair> {
    let pair = Box::new(pair);
    Some(Pair::Rsa { pair, pss: false })
}

/// A key of SEC 1 as PKCS #8 (RFC 5958), which is all that ring reads of curves.
fn pkcs8_of_p256(sec1: &[u8]) -> Wiped<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    const OCTET_STRING: u8 = 0x04;
    /// Version 0; id-ecPublicKey, prime256v1.
    const HEAD: &[u8] = b"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let key = der(OCTET_STRING, &[sec1]);
    der(SEQUENCE, &[HEAD, &key])
}

/// An element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Wiped<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut element = Wiped::new(Vec::with_capacity(2 + size_of::<usize>() + length));
    let bytes = length.to_be_bytes();
    let leading = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[leading.min(bytes.len() - 1)..];
    element.push(tag);
    if length >= 0x80 {
        element.push(0x80 | digits.len() as u8);
    }
    element.extend_from_slice(digits);
    parts
        .iter()
        .for_each(|part| element.extend_from_slice(part));
    element
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("alg", &self.algorithm())
            .field("kid", &self.kid)
            .field("x5t#S256", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;

    const SEC1: &str = include_str!("../../tests/certificates/old_sec1.pem");
    const PKCS8: &str = include_str!("../../tests/certificates/new.pem");
    const RSA: &str = include_str!("../../tests/certificates/rsa.pem");

    /// The header of a JWT whose signature is right.
    fn header(
        key: &SigningKey,
        algorithm: &'static dyn VerificationAlgorithm,
    ) -> serde_json::Value {
        let public = match &key.pair {
            Pair::Ec(pair) => pair.public_key().as_ref(),
            Pair::Rsa { pair, .. } => pair.public_key().as_ref(),
        };
        let jwt = key.jwt(&[1]).unwrap();
        let (message, signature) = jwt.expose().rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = UnparsedPublicKey::new(algorithm, public);
        public.verify(message.as_bytes(), &signature).unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(claims).unwrap(), b"[1]");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
    }

    #[test]
    fn the_header_says_by_what_it_is_signed() {
        for pem in [SEC1, PKCS8] {
            let key = SigningKey::from_pem(pem).unwrap();
            let expected = serde_json::json!({"alg": "ES256", "typ": "JWT"});
            assert_eq!(header(&key, &ECDSA_P256_SHA256_FIXED), expected);
        }
        let key = SigningKey::from_pem(RSA).unwrap().kid("k1");
        let expected = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "k1"});
        assert_eq!(header(&key, &RSA_PKCS1_2048_8192_SHA256), expected);
        // openssl x509 -in tests/certificates/rsa.pem -outform DER | openssl sha256 -binary | base64
        let key = key.ps256().unwrap().certificate(RSA).unwrap();
        let header = header(&key, &RSA_PSS_2048_8192_SHA256);
        assert_eq!(header["alg"], "PS256");
        assert_eq!(
            header["x5t#S256"],
            "Hy2Tpicln-eAN9h480SNLNDan_oSmU7PUG5TvO01ZdA"
        );
    }

    #[test]
    fn what_is_no_key_is_an_error_that_does_not_quote_it() {
        let broken = PKCS8.replace("PRIVATE KEY-----\nM", "PRIVATE KEY-----\nN");
        let headless = SEC1.replace("EC PRIVATE", "PRIVATE");
        let cut = SEC1.replace("\nAwEH", "\n");
        let encrypted = PKCS8.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for pem in ["", "canary", &broken, &headless, &cut, &encrypted] {
            let error = SigningKey::from_pem(pem).expect_err(pem);
            assert_eq!(error.option(), "private_key");
            let text = format!("{error:?}");
            assert!(
                !text.contains("canary") && !text.contains("source: Some"),
                "{text}"
            );
        }
        let key = || SigningKey::from_pem(SEC1).unwrap();
        assert_eq!(key().ps256().unwrap_err().option(), "ps256");
        assert_eq!(
            key().certificate("canary").unwrap_err().option(),
            "certificate"
        );
        assert_eq!(
            format!("{:?}", key().kid("k")),
            r#"SigningKey { alg: "ES256", kid: Some("k"), x5t#S256: None, .. }"#
        );
    }

    #[test]
    fn lengths_of_der_are_as_short_as_they_can_be() {
        for (length, head) in [
            (0, &[4, 0][..]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 128]),
            (256, &[4, 0x82, 1, 0]),
        ] {
            let content = vec![7; length];
            let element = der(4, &[&content]);
            assert_eq!(element.as_slice(), [head, &content].concat());
        }
    }
}
