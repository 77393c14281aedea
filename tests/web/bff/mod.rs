//! The examples `bff` and `bff_actix` in a real browser, against a real OpenID provider: `tests/browser/bff.mjs` has the steps.
//! And what nobody's browser does, before an API that is no friend: `attacks`.

mod attacks;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::free_port;
use common::oidc::{OidcProvider, installed};
use common::playground::binary;
use common::process::Process;
use common::redis::RedisServer;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The browser, where `CHROMIUM` names no other.
fn chromium() -> PathBuf {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
    let found = named.or_else(|| found.find(|file| file.exists()));
    found.expect("chromium is missing: run ./scripts/test, or `apt-get install chromium`")
}

/// An example as a process, with its provider and its store.
struct Example {
    base: String,
    provider: OidcProvider,
    _redis: RedisServer,
    _server: Process,
}

impl Example {
    /// In front of this API, or of the provider's own.
    fn start(example: &str, api: Option<&str>) -> Self {
        let redis = RedisServer::start();
        let port = free_port();
        let base = format!("http://127.0.0.1:{port}");
        let provider = OidcProvider::start(&format!("{base}/callback"), 3600);
        let mut server = Command::new(binary(example));
        server
            .env("ISSUER", provider.issuer())
            .env("CLIENT_ID", "app")
            .env("CLIENT_SECRET", "the app's secret")
            .env("API", api.unwrap_or(provider.issuer()))
            .env("BASE_URL", &base)
            .env("REDIS_URL", redis.url())
            .env("KEYS", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
            .env("LISTEN", format!("127.0.0.1:{port}"));
        let server = Process::spawn(&mut server, "the example is built");
        Self {
            base,
            provider,
            _redis: redis,
            _server: server,
        }
    }
}

fn browse(example: &str) {
    let chromium = chromium();
    let site = Example::start(example, None);
    let steps = Command::new("node")
        .arg(Path::new(ROOT).join("tests/browser/bff.mjs"))
        .env("MODULES", installed())
        .env("CHROMIUM", chromium)
        .env("BASE", &site.base)
        .env("ISSUER", site.provider.issuer())
        .output()
        .unwrap();
    let [steps_taken, failure] =
        [&steps.stdout, &steps.stderr].map(|it| String::from_utf8_lossy(it));
    print!("{steps_taken}");
    assert!(steps.status.success(), "{example}:\n{steps_taken}{failure}");
}

#[test]
fn a_browser_meets_the_example_for_axum() {
    browse("bff");
}

#[test]
fn a_browser_meets_the_example_for_actix() {
    browse("bff_actix");
}

#[test]
fn both_examples_have_the_same_page() {
    for file in ["page.html", "page.js"] {
        let [axum, actix] = ["bff", "bff_actix"].map(|example| {
            let file = Path::new(ROOT)
                .join("examples")
                .join(example)
                .join("src")
                .join(file);
            std::fs::read_to_string(file).unwrap()
        });
        assert_eq!(axum, actix, "{file}: copy it from one example to the other");
    }
}
