//! A real OpenID provider: a user signs out there, and is signed out here.

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Redirect;
use axum::routing::{get, post_service};
use common::browser::Browser;
use common::oidc::OidcProvider;
use common::support::{TestStore, cache};
use oauth2::url::Url;
use reqwest::Method;
use tokio::net::TcpListener;
use tower_token_cache::grant::{AuthorizationCode, Callback, LoginError, Provider};
use tower_token_cache::logout::BackChannelLogout;
use tower_token_cache::session::Cookie;
use tower_token_cache::{Error, TokenCacheLayer, Tokens};

/// As the server of the tests has them.
const CLIENT: (&str, &str) = ("app", "the app's secret");

async fn begin(
    State(flow): State<AuthorizationCode>,
    tokens: Tokens,
) -> Result<Redirect, LoginError> {
    Ok(Redirect::to(&flow.begin(&tokens, "/me").await?))
}

/// Ends the login; answers with the id token.
async fn end(
    State(flow): State<AuthorizationCode>,
    tokens: Tokens,
    Query(callback): Query<Callback>,
) -> Result<String, LoginError> {
    let login = flow.end(&tokens, callback).await?;
    let _ = tokens.sign_in(login.sign_in("api")).await?;
    let id_token = login.tokens.id_token().expect("asked for");
    Ok(format!("{:?}", id_token.expose()))
}

async fn me(tokens: Tokens) -> Result<String, Error> {
    Ok(tokens.get("api").await?.is_hit().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_signs_out_at_the_provider_is_signed_out_here() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let provider = OidcProvider::start(&format!("{base}/callback"), 3600);
    let discovered = Provider::discover(provider.issuer()).await.unwrap();
    let client = discovered.client(CLIENT.0).secret(CLIENT.1);
    let flow = AuthorizationCode::new(client.scopes(["openid"]), format!("{base}/callback"));
    let cache = cache(TestStore::default());
    let logout = BackChannelLogout::of(cache.clone(), &discovered, CLIENT.0).unwrap();
    let router = Router::new()
        .route("/login", get(begin))
        .route("/callback", get(end))
        .route("/me", get(me))
        .layer(TokenCacheLayer::new(cache, Cookie::new("sid").unwrap()))
        .route("/backchannel-logout", post_service(logout))
        .with_state(flow.unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let at = |path: &str| Url::parse(&format!("{base}{path}")).unwrap();
    let mut browsers = [Browser::new(), Browser::new()];
    let mut id_tokens = Vec::new();
    for browser in &mut browsers {
        let answer = browser.go(Method::GET, at("/login")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        id_tokens.push(answer.body.as_str().expect("an id token").to_owned());
        let found = browser.go(Method::GET, at("/me")).await;
        assert_eq!((found.status.as_u16(), found.body), (200, true.into()));
    }

    // Ends the session at the provider: of the first browser.
    let query = [("id_token_hint", &*id_tokens[0]), ("client_id", CLIENT.0)];
    let end = format!("{}/session/end", provider.issuer());
    let end = Url::parse_with_params(&end, query).unwrap();
    let [first, second] = &mut browsers;
    let asked = first.go(Method::GET, end.clone()).await;
    let xsrf = asked.body["xsrf"].as_str().expect("of the form");
    let confirm = end.join("/session/end/confirm").unwrap();
    first
        .post(confirm, &[("xsrf", xsrf), ("logout", "yes")])
        .await;

    common::eventually("the provider has told the application", async || {
        let found = first.clone().go(Method::GET, at("/me")).await;
        found.body != true
    })
    .await;
    let found = second.go(Method::GET, at("/me")).await;
    assert_eq!(found.body, true, "the other browser's session goes on");
}
