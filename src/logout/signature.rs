//! Signatures of JWTs (RFC 7515), and the public keys that they are checked with (RFC 7517, RFC 7518 §6).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

/// An algorithm by a public key. An HMAC is none: its secret could be the text of a public key.
#[derive(Clone, Copy)]
pub(super) struct Algorithm {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Rsa(&'static RsaParameters),
    Curve {
        name: &'static str,
        algorithm: &'static dyn VerificationAlgorithm,
    },
}

const fn rsa(name: &'static str, parameters: &'static RsaParameters) -> Algorithm {
    let kind = Kind::Rsa(parameters);
    Algorithm { name, kind }
}

const fn on_curve(
    name: &'static str,
    curve: &'static str,
    algorithm: &'static dyn VerificationAlgorithm,
) -> Algorithm {
    let kind = Kind::Curve {
        name: curve,
        algorithm,
    };
    Algorithm { name, kind }
}

/// All that are accepted. RSA keys have at least 2048 bits.
const ACCEPTED: [Algorithm; 9] = [
    rsa("RS256", &RSA_PKCS1_2048_8192_SHA256),
    rsa("RS384", &RSA_PKCS1_2048_8192_SHA384),
    rsa("RS512", &RSA_PKCS1_2048_8192_SHA512),
    rsa("PS256", &RSA_PSS_2048_8192_SHA256),
    rsa("PS384", &RSA_PSS_2048_8192_SHA384),
    rsa("PS512", &RSA_PSS_2048_8192_SHA512),
    on_curve("ES256", "P-256", &ECDSA_P256_SHA256_FIXED),
    on_curve("ES384", "P-384", &ECDSA_P384_SHA384_FIXED),
    on_curve("EdDSA", "Ed25519", &ED25519),
];

impl Algorithm {
    /// The accepted algorithm of this `alg`.
    pub(super) fn of(alg: &str) -> Option<Self> {
        ACCEPTED.into_iter().find(|it| it.name == alg)
    }
}

/// A public key of the issuer's.
pub(super) struct PublicKey {
    kid: Option<String>,
    /// The one algorithm that it is for, where it says so.
    alg: Option<String>,
    material: Material,
}

enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Curve { name: String, point: Vec<u8> },
}

impl PublicKey {
    /// Reads a JWK; `None` for one of another use or kind.
    pub(super) fn read(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let material = match text("kty")? {
            "RSA" => Material::Rsa {
                modulus: without_zeros(bytes("n")?),
                exponent: without_zeros(bytes("e")?),
            },
            "EC" => Material::Curve {
                name: text("crv")?.to_owned(),
                // Uncompressed (SEC 1 §2.3.3).
                point: [&[4][..], &bytes("x")?, &bytes("y")?].concat(),
            },
            "OKP" => Material::Curve {
                name: text("crv")?.to_owned(),
                point: bytes("x")?,
            },
            _ => return None,
        };
        Some(Self {
            kid: text("kid").map(str::to_owned),
            alg: text("alg").map(str::to_owned),
            material,
        })
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether it may sign by this algorithm (RFC 8725 §3.1).
    pub(super) fn is_for(&self, algorithm: &Algorithm) -> bool {
        let fits = match (&self.material, algorithm.kind) {
            (Material::Rsa { .. }, Kind::Rsa(_)) => true,
            (Material::Curve { name: curve, .. }, Kind::Curve { name, .. }) => curve == name,
            _ => false,
        };
        fits && self.alg.as_ref().is_none_or(|alg| alg == algorithm.name)
    }

    /// Whether this key has signed the message by this algorithm.
    pub(super) fn has_signed(
        &self,
        algorithm: &Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let verified = match (&self.material, algorithm.kind) {
            (Material::Rsa { modulus, exponent }, Kind::Rsa(parameters)) => {
                let (n, e) = (modulus, exponent);
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Material::Curve { point, .. }, Kind::Curve { algorithm, .. }) => {
                UnparsedPublicKey::new(algorithm, point).verify(message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

fn without_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key, the algorithm and the signature of each case.
    fn cases() -> Vec<(Value, Algorithm, Vec<u8>)> {
        let file: Value = serde_json::from_str(include_str!("signatures.json")).unwrap();
        let cases = file["signatures"].as_array().unwrap().iter();
        cases.map(case).collect()
    }

    fn case(case: &Value) -> (Value, Algorithm, Vec<u8>) {
        let signature = URL_SAFE_NO_PAD.decode(case["signature"].as_str().unwrap());
        let algorithm = Algorithm::of(case["alg"].as_str().unwrap()).unwrap();
        (case["jwk"].clone(), algorithm, signature.unwrap())
    }

    const MESSAGE: &[u8] = b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ";

    #[test]
    fn each_algorithm_is_verified_with_its_key_and_no_other() {
        let cases = cases();
        assert_eq!(cases.len(), ACCEPTED.len());
        for (i, (jwk, algorithm, signature)) in cases.iter().enumerate() {
            let key = PublicKey::read(jwk).unwrap();
            assert!(key.is_for(algorithm), "{}", algorithm.name);
            assert!(
                key.has_signed(algorithm, MESSAGE, signature),
                "{}",
                algorithm.name
            );
            assert!(!key.has_signed(algorithm, b"another", signature));
            assert!(!key.has_signed(algorithm, MESSAGE, &signature[1..]));
            for (j, (_, other, _)) in cases.iter().enumerate() {
                let is_signed = key.has_signed(other, MESSAGE, signature);
                assert_eq!(is_signed, i == j, "{} by {}", algorithm.name, other.name);
            }
        }
    }

    #[test]
    fn a_key_is_used_for_what_it_says_only() {
        let (mut jwk, algorithm, _) = cases().swap_remove(0);
        let other = Algorithm::of("PS256").unwrap();
        assert!(PublicKey::read(&jwk).unwrap().is_for(&other));
        jwk["alg"] = "RS256".into();
        assert!(PublicKey::read(&jwk).unwrap().is_for(&algorithm));
        assert!(!PublicKey::read(&jwk).unwrap().is_for(&other));
        jwk["use"] = "enc".into();
        assert!(PublicKey::read(&jwk).is_none());
        jwk["use"] = "sig".into();
        assert!(PublicKey::read(&jwk).is_some());
        jwk["kty"] = "oct".into();
        assert!(PublicKey::read(&jwk).is_none(), "a secret");
    }

    #[test]
    fn a_short_rsa_key_proves_nothing_and_a_leading_zero_does_no_harm() {
        let file: Value = serde_json::from_str(include_str!("signatures.json")).unwrap();
        let (jwk, algorithm, signature) = case(&file["too_short"]);
        let key = PublicKey::read(&jwk).unwrap();
        assert!(!key.has_signed(&algorithm, MESSAGE, &signature));
        let (mut jwk, algorithm, signature) = cases().swap_remove(0);
        let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        let padded = [&[0][..], &modulus].concat();
        jwk["n"] = URL_SAFE_NO_PAD.encode(padded).into();
        let key = PublicKey::read(&jwk).unwrap();
        assert!(key.has_signed(&algorithm, MESSAGE, &signature));
    }
}
