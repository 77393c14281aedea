//! The OpenID provider: where a sign-in begins, and what comes back from there.

use std::{error::Error, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use oauth2::{CsrfToken, PkceCodeChallenge, url::Url, url::form_urlencoded::byte_serialize};
use reqwest::{Client, Response, redirect::Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_token_cache::{Timestamp, Token, TokenSet, grant, grant::RefreshToken};

pub struct Provider {
    http: Client,
    issuer: String,
    client: (String, String),
    callback: String,
    endpoints: Endpoints,
    /// Asks with the user's refresh token.
    pub refresh: Arc<RefreshToken>,
}

#[derive(Deserialize)]
struct Endpoints {
    authorization_endpoint: Url,
    token_endpoint: Url,
    userinfo_endpoint: Url,
}

impl Provider {
    /// Asks the issuer for its endpoints (OpenID Connect Discovery §4).
    pub async fn discover(
        issuer: String,
        client: (String, String),
        callback: String,
    ) -> Result<Self, Box<dyn Error>> {
        // No redirects: an answer of the provider must not send secrets elsewhere.
        let http = Client::builder().redirect(Policy::none());
        let http = http.timeout(Duration::from_secs(10)).build()?;
        let place = issuer.trim_end_matches('/');
        let document = http.get(format!("{place}/.well-known/openid-configuration"));
        let document = document.send().await?.error_for_status()?.bytes().await?;
        let endpoints: Endpoints = serde_json::from_slice(&document)?;
        let asks = grant::Client::new(endpoints.token_endpoint.as_str(), &client.0)?;
        let asks = asks.secret(client.1.as_str());
        Ok(Self {
            http,
            issuer,
            client,
            callback,
            endpoints,
            refresh: Arc::new(RefreshToken::new(asks)),
        })
    }

    /// Where the browser goes with this state, and what `redeem` needs within ten minutes: a
    /// "token" that is the verifier of PKCE, with the nonce as its type.
    pub fn authorize(&self, state: &str) -> (Url, Token) {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random_len(32).into_secret();
        let mut url = self.endpoints.authorization_endpoint.clone();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.client.0),
            ("redirect_uri", &self.callback),
            ("scope", "openid offline_access"),
            ("prompt", "consent"), // which offline access needs
            ("state", state),
            ("nonce", &nonce),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ]);
        let begun = Token::new(verifier.into_secret()).with_token_type(nonce);
        (url, begun.with_expires_in(Duration::from_secs(600)))
    }

    /// The tokens for this code and whose they are, if they are for the sign-in that `authorize` began.
    pub async fn redeem(
        &self,
        code: &str,
        begun: &Token,
    ) -> Result<(TokenSet, String), Box<dyn Error>> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.callback),
            ("code_verifier", begun.access_token()),
        ];
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let (id, secret) = (encode(&self.client.0), encode(&self.client.1));
        let request = self.http.post(self.endpoints.token_endpoint.clone());
        let request = request.basic_auth(id, Some(secret)).form(&form);
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let set: TokenSet = serde_json::from_slice(&answer)?;
        let user = self.check_id_token(&set, begun.token_type());
        let user = user.ok_or("the id token is not for this sign-in")?;
        Ok((set, user))
    }

    /// The user (`sub`), by OpenID Connect Core §3.1.3.7. TLS vouches for the provider, so the signature need not.
    fn check_id_token(&self, set: &TokenSet, nonce: Option<&str>) -> Option<String> {
        let payload = set.id_token()?.expose().split('.').nth(1)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Value = serde_json::from_slice(&json).ok()?;
        let (client, now) = (self.client.0.as_str(), Timestamp::now().as_millis() / 1000);
        let ours = claims["iss"] == *self.issuer
            && (claims["aud"] == client || claims["aud"] == json!([client]))
            && claims["exp"].as_u64()? > now
            && claims["nonce"] == nonce?;
        claims["sub"].as_str().filter(|_| ours).map(str::to_owned)
    }

    /// The API of this example: what the provider says of the user.
    pub async fn userinfo(&self, token: &Token) -> reqwest::Result<Response> {
        let request = self.http.get(self.endpoints.userinfo_endpoint.clone());
        request.bearer_auth(token.access_token()).send().await
    }
}
