//! The grants of a user, against a real OpenID provider and against documents and answers that are odd.

mod device;
mod discovery;
mod login;
mod sign_out;
mod step_up;

use axum::extract::Query;
use common::browser::Browser;
use common::oidc::OidcProvider;
use oauth2::url::Url;
use reqwest::Method;
use tower_token_cache::Tokens;
use tower_token_cache::grant::{AuthorizationCode, Callback, Client, Login, LoginError, Provider};

/// Where the provider sends browsers back to. No server is there: tests read what they bring.
const CALLBACK: &str = "http://127.0.0.1:1/callback";
/// Where a second flow comes back to.
const OTHER_CALLBACK: &str = "http://127.0.0.1:1/other";
const CLIENT: (&str, &str) = ("app", "the app's secret");

/// A provider, and the application at it.
struct Site {
    provider: OidcProvider,
    client: Client,
    flow: AuthorizationCode,
}

impl Site {
    async fn start() -> Self {
        let provider = OidcProvider::start(&format!("{CALLBACK} {OTHER_CALLBACK}"), 3600);
        let discovered = Provider::discover(provider.issuer()).await.unwrap();
        let client = discovered.client(CLIENT.0).secret(CLIENT.1);
        let client = client.scopes(["openid", "offline_access"]);
        let flow = AuthorizationCode::new(client.clone(), CALLBACK).unwrap();
        let flow = flow.param("prompt", "consent").unwrap();
        Self {
            provider,
            client,
            flow,
        }
    }

    /// A whole login.
    async fn login(&self, tokens: &Tokens, browser: &mut Browser) -> Result<Login, LoginError> {
        let url = self.flow.begin(tokens, "/after?a=b").await?;
        self.flow
            .end(tokens, callback(&visit(browser, &url).await))
            .await
    }
}

/// Goes to the provider, and is where the provider sends the browser back to.
async fn visit(browser: &mut Browser, url: &str) -> Url {
    let mut at = Url::parse(url).unwrap();
    while at.port() != Some(1) {
        let (answer, next) = browser.step(Method::GET, at).await;
        at = next.unwrap_or_else(|| panic!("the provider keeps the browser: {answer:?}"));
    }
    at
}

/// What a handler gets of this request.
fn callback(url: &Url) -> Callback {
    let uri = url.as_str().parse().unwrap();
    Query::try_from_uri(&uri).unwrap().0
}

/// The URL with a parameter that is other, or is not there.
fn with(url: &Url, name: &str, value: Option<&str>) -> Url {
    let mut changed = url.clone();
    let pairs = url.query_pairs().filter(|(own, _)| own != name);
    changed.query_pairs_mut().clear().extend_pairs(pairs);
    if let Some(value) = value {
        changed.query_pairs_mut().append_pair(name, value);
    }
    changed
}

/// A parameter of this URL.
fn param(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    pairs.find_map(|(own, value)| (own == name).then(|| value.into_owned()))
}
