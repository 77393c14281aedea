//! The grants against a token endpoint that answers as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http::{HeaderMap, Response, header};
use url::form_urlencoded;

use super::*;
use crate::acquire::{Acquire, AcquireErrorKind, BoxError, Prior, ProviderError, RefreshReason};
use crate::key::TokenKey;
use crate::lookup::Lookup;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::TokenSet;

const TOKENS: &str = r#"{"access_token":"a","token_type":"Bearer","expires_in":60}"#;

type Respond = dyn Fn() -> Response<Body> + Send + Sync;

struct Asked {
    headers: HeaderMap,
    form: Vec<(String, String)>,
}

impl Asked {
    /// All values of a parameter.
    fn all(&self, name: &str) -> Vec<&str> {
        let pairs = self.form.iter().filter(|(n, _)| n == name);
        pairs.map(|(_, value)| value.as_str()).collect()
    }

    /// The form, of which no name is repeated.
    fn form(&self) -> BTreeMap<&str, &str> {
        let pairs = self.form.iter();
        let form: BTreeMap<_, _> = pairs.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(form.len(), self.form.len(), "a parameter is repeated");
        form
    }
}

/// A token endpoint.
struct Endpoint {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    async fn start(respond: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Self {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let respond: Arc<Respond> = Arc::new(respond);
        let log = asked.clone();
        let handler = async move |headers: HeaderMap, body: Bytes| {
            let form = form_urlencoded::parse(&body).into_owned().collect();
            log.lock().unwrap().push(Asked { headers, form });
            respond()
        };
        let app = Router::new().fallback(axum::routing::post(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, asked }
    }

    async fn answering(status: u16, body: &'static str) -> Self {
        Self::start(move || answer(status, &[], body)).await
    }

    fn client(&self) -> Client {
        Client::new(&self.url, "app").unwrap()
    }

    /// The only request so far.
    fn asked(&self) -> Asked {
        let mut asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1);
        asked.pop().unwrap()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

fn prior() -> Prior {
    prior_of("graph".try_into().unwrap(), Lookup::Hit("spent".into()))
}

fn prior_of(key: TokenKey, refresh_token: Lookup<Secret>) -> Prior {
    Prior {
        client: None,
        key,
        reason: RefreshReason::Expired,
        token: None,
        refresh_token,
        id_token: Lookup::Absent,
        claims: None,
    }
}

async fn ask(source: impl Acquire) -> Result<TokenSet, BoxError> {
    source.acquire(prior()).await
}

/// The error of a client-credentials request to this endpoint.
async fn refusal(endpoint: &Endpoint) -> BoxError {
    ask(ClientCredentials::new(endpoint.client()))
        .await
        .expect_err("no token")
}

fn classify(error: &(dyn std::error::Error + 'static)) -> (AcquireErrorKind, Option<Duration>) {
    let meaning = crate::classify::classify(error, Timestamp::now());
    (meaning.kind, meaning.retry_after)
}

fn provider_error(error: &BoxError) -> &ProviderError {
    error.downcast_ref().expect("a ProviderError")
}

/// Everything that an error says, its sources included.
fn text(error: &BoxError) -> String {
    let mut text = format!("{error}{error:?}{error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!("{error}{error:?}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn client_credentials_are_in_the_header_and_the_form_is_whole() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let client = endpoint.client().secret("s:cr t").scopes(["b", "a"]);
    let client = client.param("audience", "orders");
    let set = ask(ClientCredentials::new(client)).await.unwrap();
    assert_eq!(set.access().access_token(), "a");
    assert!(set.refresh_token().is_none());
    assert!(set.access().expires_at().unwrap() > Timestamp::now());
    let asked = endpoint.asked();
    let expected = [
        ("audience", "orders"),
        ("grant_type", "client_credentials"),
        ("scope", "b a"),
    ];
    assert_eq!(asked.form(), BTreeMap::from(expected));
    // `app:s%3Acr+t`: both parts are form-encoded first (RFC 6749 §2.3.1).
    assert_eq!(
        asked.headers[header::AUTHORIZATION],
        "Basic YXBwOnMlM0Fjcit0"
    );
    assert_eq!(asked.headers[header::ACCEPT], "application/json");
    let form = "application/x-www-form-urlencoded";
    assert_eq!(asked.headers[header::CONTENT_TYPE], form);
}

#[tokio::test]
async fn credentials_go_into_the_body_if_asked_for() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let client = endpoint.client().secret("hush").auth_style(AuthStyle::Body);
    ask(ClientCredentials::new(client)).await.unwrap();
    let asked = endpoint.asked();
    assert_eq!(asked.form()["client_id"], "app");
    assert_eq!(asked.form()["client_secret"], "hush");
    assert!(!asked.headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn a_public_client_is_named_in_the_form() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    ask(RefreshToken::new(endpoint.client())).await.unwrap();
    let asked = endpoint.asked();
    let expected = [
        ("client_id", "app"),
        ("grant_type", "refresh_token"),
        ("refresh_token", "spent"),
    ];
    assert_eq!(asked.form(), BTreeMap::from(expected));
    assert!(!asked.headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn an_assertion_takes_the_place_of_the_secret() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let client = endpoint.client().secret("hush");
    let client = client.assertion(async || Ok::<_, BoxError>("a.b.c"));
    ask(RefreshToken::new(client)).await.unwrap();
    let asked = endpoint.asked();
    let jwt_bearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let expected = [
        ("client_assertion", "a.b.c"),
        ("client_assertion_type", jwt_bearer),
        ("client_id", "app"),
        ("grant_type", "refresh_token"),
        ("refresh_token", "spent"),
    ];
    assert_eq!(asked.form(), BTreeMap::from(expected));
    assert!(!asked.headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn without_an_assertion_nothing_is_sent() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let refuses = async || Err::<Secret, _>("the platform has none");
    let client = endpoint.client().assertion(refuses);
    let error = ask(RefreshToken::new(client)).await.unwrap_err();
    assert_eq!(provider_error(&error).code(), "no_client_assertion");
    assert_eq!(classify(&*error).0, AcquireErrorKind::Failed);
    assert!(text(&error).contains("the platform has none"));

    let hangs = || std::future::pending::<Result<Secret, BoxError>>();
    let client = endpoint.client().timeout(Duration::from_millis(50));
    let asked = ask(RefreshToken::new(client.assertion(hangs)));
    let ended = tokio::time::timeout(Duration::from_secs(10), asked).await;
    let error = ended.expect("given up").unwrap_err();
    assert_eq!(provider_error(&error).code(), "unreachable");
    assert!(endpoint.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_key_decides_on_scopes_and_the_caller_on_claims() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let client = endpoint.client().scopes(["own"]).resource("urn:own");
    let key = TokenKey::scoped("https://graph.example", ["mail", "cal"]).unwrap();
    let mut prior = prior_of(key, Lookup::Hit("spent".into()));
    prior.claims = Some(r#"{"access_token":{}}"#.into());
    let source = RefreshToken::new(client.clone().resource_of_key());
    source.acquire(prior.clone()).await.unwrap();
    let asked = endpoint.asked();
    assert_eq!(asked.form()["scope"], "cal mail");
    assert_eq!(asked.form()["claims"], r#"{"access_token":{}}"#);
    assert_eq!(asked.form()["resource"], "https://graph.example");

    RefreshToken::new(client.clone())
        .acquire(prior)
        .await
        .unwrap();
    assert_eq!(endpoint.asked().form()["resource"], "urn:own");

    // A name is neither a resource nor does it have scopes.
    ask(RefreshToken::new(client.resource_of_key()))
        .await
        .unwrap();
    let asked = endpoint.asked();
    assert_eq!(asked.form()["resource"], "urn:own");
    assert_eq!(asked.form()["scope"], "own");
}

#[tokio::test]
async fn a_client_with_a_name_asks_for_no_other_clients_tokens() {
    let endpoint = Endpoint::answering(200, r#"{"access_token":"a"}"#).await;
    let source = RefreshToken::new(endpoint.client().named("google"));
    for client in [None, Some("github".into())] {
        let refused = source.acquire(Prior { client, ..prior() }).await;
        assert!(refused.is_err());
    }
    assert!(endpoint.asked.lock().unwrap().is_empty(), "nothing is sent");
    let client = Some("google".into());
    assert!(source.acquire(Prior { client, ..prior() }).await.is_ok());
}

#[tokio::test]
async fn without_a_refresh_token_the_user_signs_in_only_if_that_is_known() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let source = RefreshToken::new(endpoint.client());
    let without = |lookup| prior_of("graph".try_into().unwrap(), lookup);
    let absent = source.acquire(without(Lookup::Absent)).await.unwrap_err();
    assert_eq!(provider_error(&absent).code(), "login_required");
    let (kind, _) = classify(&*absent);
    assert_eq!(kind, AcquireErrorKind::ReauthenticationRequired);
    let unknown = source.acquire(without(Lookup::Unavailable)).await;
    let (kind, _) = classify(&*unknown.unwrap_err());
    assert_eq!(kind, AcquireErrorKind::Failed);
    assert!(endpoint.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_assertion_is_sent_on_behalf_of_its_user() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let client = endpoint.client().secret("hush").scopes(["api"]);
    let source = JwtBearer::on_behalf_of(client.clone(), "a.b+c");
    assert!(!format!("{source:?}").contains("a.b+c"));
    ask(source).await.unwrap();
    let asked = endpoint.asked();
    let expected = [
        ("assertion", "a.b+c"),
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "api"),
    ];
    assert_eq!(asked.form(), BTreeMap::from(expected));
    assert!(asked.headers.contains_key(header::AUTHORIZATION));

    ask(JwtBearer::new(client, "a.b+c")).await.unwrap();
    assert!(endpoint.asked().all("requested_token_use").is_empty());
}

#[tokio::test]
async fn a_token_is_exchanged_with_all_parameters() {
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let client = endpoint.client().resource("urn:r");
    let source = TokenExchange::new(client.clone(), "subject", TokenExchange::JWT)
        .requested_token_type(TokenExchange::ACCESS_TOKEN)
        .audience("orders")
        .audience("stock")
        .actor("actor", TokenExchange::ID_TOKEN);
    assert!(!format!("{source:?}").contains("\"subject\""));
    ask(source).await.unwrap();
    let asked = endpoint.asked();
    assert_eq!(asked.all("audience"), ["orders", "stock"]);
    let grant = "urn:ietf:params:oauth:grant-type:token-exchange";
    for (name, value) in [
        ("grant_type", grant),
        ("subject_token", "subject"),
        ("subject_token_type", TokenExchange::JWT),
        ("requested_token_type", TokenExchange::ACCESS_TOKEN),
        ("actor_token", "actor"),
        ("actor_token_type", TokenExchange::ID_TOKEN),
        ("resource", "urn:r"),
        ("client_id", "app"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }

    let plain = TokenExchange::new(client, "subject", TokenExchange::JWT);
    ask(plain).await.unwrap();
    let asked = endpoint.asked();
    for name in ["actor_token", "requested_token_type", "audience"] {
        assert!(asked.all(name).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn odd_lifetimes_and_types_are_accepted() {
    for body in [
        r#"{"access_token":"a","expires_in":-5}"#,
        r#"{"access_token":"a","expires_in":"3600"}"#,
        r#"{"access_token":"a","expires_in":1e300,"token_type":"N_A"}"#,
    ] {
        let endpoint = Endpoint::answering(200, body).await;
        ask(ClientCredentials::new(endpoint.client()))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_token_without_a_lifetime_gets_the_clients_default() {
    let hour = Duration::from_secs(3600);
    for (body, default, expected) in [
        (r#"{"access_token":"a"}"#, Some(hour), Some(3600)),
        (
            r#"{"access_token":"a","expires_in":null}"#,
            Some(hour),
            Some(3600),
        ),
        (
            r#"{"access_token":"a","expires_in":60}"#,
            Some(hour),
            Some(60),
        ),
        (
            r#"{"access_token":"a","expires_in":"?"}"#,
            Some(hour),
            Some(300),
        ),
        (r#"{"access_token":"a"}"#, None, None),
    ] {
        let endpoint = Endpoint::answering(200, body).await;
        let mut client = endpoint.client();
        if let Some(lifetime) = default {
            client = client.default_lifetime(lifetime);
        }
        let set = ask(ClientCredentials::new(client)).await.unwrap();
        let end = set.access().expires_at();
        let life = end.map(|end| end.since(Timestamp::now()).as_secs());
        let is_near = |(life, expected)| expected - 10 <= life && life <= expected;
        assert_eq!(life.is_some(), expected.is_some(), "{body}");
        assert!(life.zip(expected).is_none_or(is_near), "{body}: {life:?}");
    }
}

#[tokio::test]
async fn a_refreshed_id_token_of_another_user_is_refused_with_all_that_came_with_it() {
    // {"iss":"i","sub":"ada"} and {"iss":"i","sub":"bob"}.
    let [ada, bob] = [
        "eyJpc3MiOiJpIiwic3ViIjoiYWRhIn0",
        "eyJpc3MiOiJpIiwic3ViIjoiYm9iIn0",
    ];
    let id_token = |claims: &str| format!("e30.{claims}.c2ln");
    let body = format!(
        r#"{{"access_token":"canary","id_token":"{}"}}"#,
        id_token(bob)
    );
    let endpoint = Endpoint::start(move || answer(200, &[], body.clone())).await;
    let refresh = async |before: &str| {
        let mut prior = prior();
        prior.id_token = Lookup::Hit(id_token(before).into());
        RefreshToken::new(endpoint.client()).acquire(prior).await
    };
    let error = refresh(ada).await.unwrap_err();
    assert_eq!(provider_error(&error).code(), "id_token_mismatch");
    let (kind, _) = classify(&*error);
    assert_eq!(kind, AcquireErrorKind::ReauthenticationRequired);
    assert!(!text(&error).contains("canary"));
    assert!(refresh(bob).await.is_ok());
}

#[tokio::test]
async fn invalid_grant_means_sign_in_again() {
    let body = r#"{"error":"invalid_grant","error_description":"canary spent"}"#;
    // Also from the providers that refuse with status 200.
    for status in [400, 401, 200] {
        let error = refusal(&Endpoint::answering(status, body).await).await;
        assert_eq!(provider_error(&error).code(), "invalid_grant");
        let (kind, pause) = classify(&*error);
        assert_eq!(kind, AcquireErrorKind::ReauthenticationRequired);
        assert_eq!(pause, None);
        assert!(!text(&error).contains("canary"));
    }
}

#[tokio::test]
async fn a_provider_that_asks_for_time_gets_it() {
    let busy = |status, after: String| {
        Endpoint::start(move || {
            let body = r#"{"error":"too_many"}"#;
            answer(status, &[("retry-after", &after)], body)
        })
    };
    for status in [429, 503] {
        let error = refusal(&busy(status, "7".into()).await).await;
        let expected = (AcquireErrorKind::RetryLater, Some(Duration::from_secs(7)));
        assert_eq!(classify(&*error), expected);
    }
    let date = std::time::SystemTime::now() + Duration::from_secs(300);
    let error = refusal(&busy(429, httpdate::fmt_http_date(date)).await).await;
    let (kind, pause) = classify(&*error);
    assert_eq!(kind, AcquireErrorKind::RetryLater);
    let pause = pause.expect("a date is a pause").as_secs();
    assert!((200..=300).contains(&pause), "{pause}");

    let (kind, pause) = classify(&*refusal(&busy(400, "3".into()).await).await);
    assert_eq!(kind, AcquireErrorKind::Failed);
    assert_eq!(pause, Some(Duration::from_secs(3)));
    let (kind, pause) = classify(&*refusal(&Endpoint::answering(429, "").await).await);
    assert_eq!((kind, pause), (AcquireErrorKind::RetryLater, None));
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure_that_shows_nothing() {
    for (status, body, code) in [
        (500, "<html>canary</html>", "500"),
        (200, "<html>canary</html>", "unreachable"),
        (200, r#"{"access_token":"canary"#, "unreachable"),
        (200, r#"{"access_token":["canary"]}"#, "unreachable"),
        (200, r#"{"access_token":""}"#, "unreachable"),
        (200, r#""canary""#, "unreachable"),
        (200, "", "unreachable"),
        (400, r#"{"error":"canary with spaces"}"#, "400"),
        (400, r#"{"error":{"message":"canary"}}"#, "400"),
        (
            401,
            r#"{"error":"invalid_client","hint":"canary"}"#,
            "invalid_client",
        ),
    ] {
        let error = refusal(&Endpoint::answering(status, body).await).await;
        assert_eq!(provider_error(&error).code(), code, "{status} {body}");
        assert_eq!(classify(&*error).0, AcquireErrorKind::Failed);
        assert!(!text(&error).contains("canary"), "{}", text(&error));
    }
}

#[tokio::test]
async fn errors_show_neither_the_url_nor_what_was_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/canary", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(url, "app").unwrap();
    let client = client.secret("canary").param("x", "canary");
    assert!(!format!("{client:?}").contains("canary"));
    for client in [
        client.clone(),
        client.clone().http_client(::reqwest::Client::new()),
        client.http_client(reqwest_0_13::Client::new()),
    ] {
        let error = ask(JwtBearer::new(client, "canary")).await.unwrap_err();
        assert_eq!(provider_error(&error).code(), "unreachable");
        assert!(!text(&error).contains("canary"), "{}", text(&error));
    }
}

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    let valid = |padding: usize| {
        let body = format!(r#"{{"access_token":"a","p":"{}"}}"#, "x".repeat(padding));
        Endpoint::start(move || answer(200, &[], body.clone()))
    };
    let endpoint = valid(1 << 20).await;
    let error = refusal(&endpoint).await;
    assert!(text(&error).contains("larger than 1048576 bytes"));
    let endpoint = valid((1 << 20) - 64).await;
    ask(ClientCredentials::new(endpoint.client()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_redirect_is_an_error_and_nothing_goes_to_its_target() {
    let target = Endpoint::answering(200, TOKENS).await;
    for status in [301, 302, 307, 308] {
        let location = target.url.clone();
        let endpoint = Endpoint::start(move || answer(status, &[("location", &location)], ""));
        let error = refusal(&endpoint.await).await;
        assert_eq!(provider_error(&error).code(), status.to_string());
    }
    assert!(target.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_end_is_given_up() {
    /// Fails loudly where a missing timeout would hang.
    async fn given_up(client: Client) {
        let client = client.timeout(Duration::from_millis(200));
        let asked = ask(ClientCredentials::new(client));
        let ended = tokio::time::timeout(Duration::from_secs(10), asked).await;
        let error = ended.expect("given up").expect_err("no token");
        assert_eq!(provider_error(&error).code(), "unreachable");
    }
    // The head comes, and then nothing.
    let endpoint = Endpoint::start(|| {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        answer(200, &[], Body::from_stream(never))
    });
    let endpoint = endpoint.await;
    given_up(endpoint.client()).await;
    endpoint.asked();

    // The connection is there, and then nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    given_up(Client::new(url, "app").unwrap()).await;
}

#[test]
fn token_urls_that_would_leak_are_refused() {
    for url in [
        "http://login.example/token",
        "http://10.0.0.1/token",
        "http://localhost.example/token",
        "https://user:pass@login.example/token",
        "https://login.example/token#part",
        "ftp://login.example/token",
        "/token",
        "",
    ] {
        let error = Client::new(url, "app").expect_err(url);
        assert_eq!(error.option(), "token_url");
    }
    for url in [
        "http://localhost:1/t",
        "http://[::1]:1/t",
        "https://login.example/t",
    ] {
        assert!(Client::new(url, "app").is_ok(), "{url}");
    }
    assert!(Client::insecure("http://login.example/token", "app").is_ok());
    assert!(Client::insecure("ftp://login.example/token", "app").is_err());
}

#[tokio::test]
async fn tls_is_there_with_one_provider() {
    // A server that does not speak TLS: the handshake fails, and nothing panics.
    let endpoint = Endpoint::answering(200, TOKENS).await;
    let url = endpoint.url.replace("http:", "https:");
    let client = Client::new(url, "app").unwrap();
    let error = ask(ClientCredentials::new(client)).await.unwrap_err();
    assert_eq!(provider_error(&error).code(), "unreachable");
    let debug = text(&error);
    assert!(debug.contains("InvalidContentType"), "{debug}");
}

#[tokio::test]
async fn the_error_of_an_own_call_of_oauth2_is_understood() {
    let body = r#"{"error":"invalid_grant"}"#;
    let endpoint = Endpoint::answering(400, body).await;
    let url = oauth2::TokenUrl::new(endpoint.url.clone()).unwrap();
    let client = oauth2::basic::BasicClient::new(oauth2::ClientId::new("app".into()));
    let http = oauth2::reqwest::Client::new();
    let answered = client
        .set_token_uri(url)
        .exchange_client_credentials()
        .request_async(&http)
        .await;
    let error: BoxError = answered.expect_err("refused").into();
    let (kind, _) = classify(&*error);
    assert_eq!(kind, AcquireErrorKind::ReauthenticationRequired);
}

const ENDPOINT: &str = "TEST_TOKEN_ENDPOINT";

/// The process that is started with a proxy in its environment.
#[tokio::test]
#[ignore = "started by the test below"]
async fn asks_with_the_environment_of_this_process() {
    let url = std::env::var(ENDPOINT).unwrap();
    let client = Client::new(url, "app").unwrap().secret("s");
    let tokens = ask(ClientCredentials::new(client)).await.unwrap();
    assert_eq!(tokens.access().access_token(), "ours");
}

/// A proxy would see the client's secret, and could answer with a token of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_of_the_environment_is_not_used() {
    let endpoint = Endpoint::answering(200, r#"{"access_token":"ours"}"#).await;
    let proxy = Endpoint::answering(200, r#"{"access_token":"theirs"}"#).await;
    let proxy_url = proxy.url.trim_end_matches("/token");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, proxy_url);
    }
    child
        .env_remove("REQUEST_METHOD")
        .env(ENDPOINT, &endpoint.url);
    let name = "grant::tests::asks_with_the_environment_of_this_process";
    child.args(["--exact", name, "--ignored"]);
    let child = tokio::task::spawn_blocking(move || child.output().unwrap());
    let output = child.await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(proxy.asked.lock().unwrap().is_empty());
    assert!(endpoint.asked().headers.contains_key("authorization"));
}
