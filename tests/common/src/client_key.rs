//! Private keys of clients, made by Node.js.

use std::process::Command;

use serde_json::Value;

const GENERATE: &str = "
const { generateKeyPairSync } = require('node:crypto');
const [type, kid] = process.argv.slice(1);
const options = type === 'ec' ? { namedCurve: 'P-256' } : { modulusLength: 2048 };
const { privateKey, publicKey } = generateKeyPairSync(type, options);
const pem = (type) => privateKey.export({ type, format: 'pem' });
const jwk = { ...publicKey.export({ format: 'jwk' }), kid, use: 'sig' };
console.log(JSON.stringify({ pkcs8: pem('pkcs8'), own: pem(type === 'ec' ? 'sec1' : 'pkcs1'), jwk }));
";

/// A key pair.
pub struct ClientKey {
    /// The private key in PKCS #8.
    pub pkcs8: String,
    /// The private key in the format of its own kind: SEC 1 or PKCS #1.
    pub own: String,
    /// The public key, as a member of a JWK set.
    pub jwk: Value,
}

impl ClientKey {
    /// A new key on P-256.
    pub fn ec(kid: &str) -> Self {
        Self::generate("ec", kid)
    }

    /// A new key of RSA.
    pub fn rsa(kid: &str) -> Self {
        Self::generate("rsa", kid)
    }

    fn generate(kind: &str, kid: &str) -> Self {
        let node = Command::new("node")
            .args(["-e", GENERATE, kind, kid])
            .output();
        let output = node.unwrap_or_else(|error| {
            panic!("node is missing: run ./scripts/test, or `apt-get install nodejs` ({error})")
        });
        let mut made: Value = serde_json::from_slice(&output.stdout).expect("a key");
        let text = |name| made[name].as_str().expect("in PEM").to_owned();
        Self {
            pkcs8: text("pkcs8"),
            own: text("own"),
            jwk: made["jwk"].take(),
        }
    }
}
