//! Looking for secrets where they must not be, in any encoding that we know of.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::redis::RedisServer;

/// A secret in all its forms.
pub struct Canary {
    name: String,
    forms: Vec<Vec<u8>>,
}

impl Canary {
    pub fn new(name: impl Into<String>, secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut forms = vec![
            secret.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
        ];
        for offset in 0..3 {
            // Base64 of the middle, which does not depend on what is around it.
            let middle = &secret[offset..];
            let whole = &middle[..middle.len() / 3 * 3];
            forms.push(STANDARD_NO_PAD.encode(whole).into_bytes());
            forms.push(URL_SAFE_NO_PAD.encode(whole).into_bytes());
        }
        Self {
            name: name.into(),
            forms,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether bytes hold the secret, wherever it begins.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let contains = |form: &Vec<u8>| bytes.windows(form.len()).any(|window| window == form);
        self.forms.iter().any(contains)
    }

    pub fn assert_not_in(&self, what: &str, bytes: &[u8]) {
        assert!(!self.is_in(bytes), "{what} shows {}", self.name);
    }
}

/// Several secrets, which are looked for at once: a log is long.
#[derive(Default)]
pub struct Canaries {
    all: Vec<Canary>,
    /// Where the forms that begin with these bytes are: secret and form.
    beginnings: HashMap<[u8; BEGINNING], Vec<(usize, usize)>>,
    first: First,
}

/// The first bytes of all forms.
struct First([bool; 256]);

/// No form is shorter.
const BEGINNING: usize = 8;

impl Default for First {
    fn default() -> Self {
        Self([false; 256])
    }
}

impl Canaries {
    pub fn push(&mut self, canary: Canary) {
        for (form, bytes) in canary.forms.iter().enumerate() {
            let (beginning, _) = bytes.split_first_chunk().expect("a long form");
            self.first.0[usize::from(beginning[0])] = true;
            let place = (self.all.len(), form);
            self.beginnings.entry(*beginning).or_default().push(place);
        }
        self.all.push(canary);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Canary> {
        self.all.iter()
    }

    /// The first secret that bytes hold, wherever it begins.
    pub fn first_in(&self, bytes: &[u8]) -> Option<&Canary> {
        let windows = bytes.windows(BEGINNING).enumerate();
        for (at, window) in windows {
            if !self.first.0[usize::from(window[0])] {
                continue;
            }
            let known = self.beginnings.get(window).into_iter().flatten();
            for (canary, form) in known {
                let canary = &self.all[*canary];
                if bytes[at..].starts_with(&canary.forms[*form]) {
                    return Some(canary);
                }
            }
        }
        None
    }
}

/// Whether bytes hold a secret, wherever it begins.
pub fn shows(bytes: &[u8], secret: &[u8]) -> bool {
    Canary::new("a secret", secret).is_in(bytes)
}

/// Everything in a Redis: keys, fields, values, and what `DUMP` shows.
pub fn redis_contents(server: &RedisServer) -> Vec<u8> {
    let mut contents = Vec::new();
    for key in server.query::<Vec<String>>("KEYS *") {
        contents.extend_from_slice(key.as_bytes());
        if server.query::<String>(&format!("TYPE {key}")) == "hash" {
            let hash = server.command(&[b"HGETALL", key.as_bytes()]);
            let hash: Vec<(Vec<u8>, Vec<u8>)> = redis::from_redis_value(hash).unwrap();
            contents.extend(
                hash.into_iter()
                    .flat_map(|(name, value)| [name, value].concat()),
            );
        }
        // A key that has run out since is none any more.
        let dump = server.command(&[b"DUMP", key.as_bytes()]);
        let dump: Option<Vec<u8>> = redis::from_redis_value(dump).unwrap();
        contents.extend(dump.unwrap_or_default());
    }
    contents
}

/// The bytes of all files in a folder whose names begin so.
pub fn file_contents(folder: &Path, name: &str) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap();
    let ours = files.map(|file| file.unwrap());
    let ours = ours.filter(|file| file.file_name().to_string_lossy().starts_with(name));
    // A side file may go meanwhile.
    ours.flat_map(|file| std::fs::read(file.path()).unwrap_or_default())
        .collect()
}
