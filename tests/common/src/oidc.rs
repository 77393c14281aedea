//! A real OpenID provider of the test's own: npm's `oidc-provider`, with `tests/oidc/server.mjs`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use oauth2::url::Url;
use oauth2::url::form_urlencoded::byte_serialize;
use reqwest::{Method, Response};
use serde_json::Value;

use crate::browser::Browser;

const FILES: [(&str, &str); 3] = [
    ("package.json", include_str!("../../oidc/package.json")),
    (
        "package-lock.json",
        include_str!("../../oidc/package-lock.json"),
    ),
    ("server.mjs", include_str!("../../oidc/server.mjs")),
];

const MISSING: &str = "is missing: run ./scripts/test, or `apt-get install nodejs npm`";

/// A verifier and its challenge, from RFC 7636 appendix B.
const PKCE: [&str; 2] = [
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
];

/// A server on a free loopback port. Killed on drop.
pub struct OidcProvider {
    child: Child,
    issuer: String,
}

impl OidcProvider {
    /// A provider that sends browsers back to this address, with access tokens that last so many
    /// seconds.
    pub fn start(redirect_uri: &str, lifetime: u64) -> Self {
        let mut child = Command::new("node")
            .arg(installed().join("server.mjs"))
            .env("REDIRECT_URI", redirect_uri)
            .env("AT_TTL", lifetime.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("node {MISSING} ({error})"));
        // Its warnings come on this stream too.
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = |line: String| Some(line.strip_prefix("READY ")?.to_owned());
        let issuer = lines.map_while(Result::ok).find_map(ready);
        Self {
            child,
            issuer: issuer.expect("it starts"),
        }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// How many refresh tokens were redeemed (`refreshed`), how many were refused
    /// (`invalid_grant`), and how many grants ended for it (`revoked`).
    pub async fn count(&self, what: &str) -> u64 {
        let answer = reqwest::get(format!("{}/stats", self.issuer)).await;
        let body = answer.unwrap().bytes().await.unwrap();
        let stats: Value = serde_json::from_slice(&body).unwrap();
        stats[what].as_u64().expect(what)
    }

    /// Whether the provider takes this access token.
    pub async fn is_active(&self, client: (&str, &str), access_token: &str) -> bool {
        let answer = self.introspect(client, access_token).await;
        answer["active"].as_bool().expect("RFC 7662")
    }

    /// The user whose access token this is; `None` if the provider does not take it.
    pub async fn user_of(&self, client: (&str, &str), access_token: &str) -> Option<String> {
        let answer = self.introspect(client, access_token).await;
        answer["sub"].as_str().map(str::to_owned)
    }

    /// What the provider says of this access token: `acr` and `auth_time`, too (RFC 9470 §6.2).
    pub async fn introspect(&self, client: (&str, &str), access_token: &str) -> Value {
        let form = [("token", access_token)];
        let answer = self.ask("/token/introspection", client, &form).await;
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// Redeems a refresh token behind everybody's back; the status.
    pub async fn redeem(&self, client: (&str, &str), refresh_token: &str) -> u16 {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ];
        self.ask("/token", client, &form).await.status().as_u16()
    }

    /// Registers the client of this metadata (RFC 7591 §2), or replaces it.
    pub async fn register(&self, metadata: &Value) {
        self.put("/clients", metadata.to_string()).await;
    }

    /// Access tokens last so many seconds from now on.
    pub async fn set_lifetime(&self, seconds: u64) {
        self.put("/lifetime", seconds.to_string()).await;
    }

    async fn put(&self, path: &str, body: String) {
        let request = reqwest::Client::new().put(format!("{}{path}", self.issuer));
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), 204);
    }

    /// Signs alice in, with a refresh token; the answer of the token endpoint.
    pub async fn sign_in(&self, client: (&str, &str), redirect_uri: &str) -> String {
        self.sign_in_as("alice", client, redirect_uri).await
    }

    /// The same for another user.
    pub async fn sign_in_as(&self, user: &str, client: (&str, &str), redirect_uri: &str) -> String {
        let [verifier, challenge] = PKCE;
        let query = [
            ("client_id", client.0),
            ("response_type", "code"),
            ("redirect_uri", redirect_uri),
            ("scope", "openid offline_access"),
            ("prompt", "consent"),
            ("login_hint", user),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ];
        let at = format!("{}/auth", self.issuer);
        let mut next = Url::parse_with_params(&at, query).unwrap();
        let mut browser = Browser::new();
        while !next.as_str().starts_with(redirect_uri) {
            let (answer, to) = browser.step(Method::GET, next).await;
            next = to.unwrap_or_else(|| panic!("no redirect: {answer:?}"));
        }
        let code = next.query_pairs().find(|(name, _)| name == "code");
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code.expect("a code").1),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let answer = self.ask("/token", client, &form).await;
        answer.text().await.unwrap()
    }

    async fn ask(&self, path: &str, client: (&str, &str), form: &[(&str, &str)]) -> Response {
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let request = reqwest::Client::new().post(format!("{}{path}", self.issuer));
        let request = request.basic_auth(encode(client.0), Some(encode(client.1)));
        request.form(form).send().await.unwrap()
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of the server and what it needs, under `target`, and with it `playwright-core`, which drives browsers. Installed
/// once per content.
pub fn installed() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    // target/debug/deps/login-… → target
    let own = std::env::current_exe().expect("this test's path");
    let target = own.ancestors().nth(3).expect("in target");
    let folder = target.join(format!("oidc-{:016x}", hasher.finish()));
    if !folder.exists() {
        // Whoever is first renames; a test run beside this one finds it, or finds it complete.
        let ours = tempfile::tempdir_in(target).expect("a temporary folder");
        install(ours.path());
        let _ = std::fs::rename(ours.path(), &folder);
        assert!(folder.join("node_modules").exists());
    }
    folder
}

fn install(folder: &Path) {
    for (name, text) in FILES {
        std::fs::write(folder.join(name), text).expect("writable");
    }
    let npm = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .status();
    let status = npm.unwrap_or_else(|error| panic!("npm {MISSING} ({error})"));
    assert!(
        status.success(),
        "npm could not install the OpenID provider"
    );
}
