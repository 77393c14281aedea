//! A browser without pages.

use std::collections::HashMap;

use oauth2::url::Url;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// Keeps cookies, follows redirects.
#[derive(Clone)]
pub struct Browser {
    http: reqwest::Client,
    cookies: HashMap<(String, String), String>,
}

#[derive(Debug)]
pub struct Answer {
    pub at: Url,
    pub status: StatusCode,
    pub body: Value,
    /// The last cookie line on the way.
    pub cookie_line: String,
    /// What it asks for: `WWW-Authenticate`.
    pub challenge: Option<HeaderValue>,
}

impl Browser {
    pub fn new() -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            http: http.build().unwrap(),
            cookies: HashMap::new(),
        }
    }

    pub async fn go(&mut self, method: Method, url: Url) -> Answer {
        let mut answer = self.step(method, url).await;
        while let Some(next) = answer.1 {
            let line = answer.0.cookie_line;
            answer = self.step(Method::GET, next).await;
            if answer.0.cookie_line.is_empty() {
                answer.0.cookie_line = line;
            }
        }
        answer.0
    }

    /// One request, and where its answer redirects to.
    pub async fn step(&mut self, method: Method, url: Url) -> (Answer, Option<Url>) {
        let request = self.http.request(method, url.clone());
        self.send(request, url).await
    }

    /// Posts a form, and where its answer redirects to.
    pub async fn post(&mut self, url: Url, form: &[(&str, &str)]) -> (Answer, Option<Url>) {
        let request = self.http.post(url.clone()).form(form);
        self.send(request, url).await
    }

    /// Posts a form, and follows redirects.
    pub async fn submit(&mut self, url: Url, form: &[(&str, &str)]) -> Answer {
        match self.post(url, form).await {
            (answer, None) => answer,
            (_, Some(next)) => self.go(Method::GET, next).await,
        }
    }

    async fn send(&mut self, request: RequestBuilder, url: Url) -> (Answer, Option<Url>) {
        let authority = url.authority().to_owned();
        let ours = self.cookies.iter().filter(|((at, _), _)| *at == authority);
        let pairs: Vec<String> = ours
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let response = request
            .header("cookie", pairs.join("; "))
            .send()
            .await
            .unwrap();
        let mut cookie_line = String::new();
        for line in response.headers().get_all("set-cookie") {
            cookie_line = line.to_str().unwrap().to_owned();
            let (name, rest) = cookie_line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            let key = (authority.clone(), name.to_owned());
            match value {
                "" => self.cookies.remove(&key),
                _ => self.cookies.insert(key, value.to_owned()),
            };
        }
        let next = response.headers().get("location");
        let next = next.map(|to| url.join(to.to_str().unwrap()).unwrap());
        let status = response.status();
        let challenge = response.headers().get("www-authenticate").cloned();
        let body = response.bytes().await.unwrap();
        let answer = Answer {
            at: url,
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            cookie_line,
            challenge,
        };
        (answer, next)
    }

    /// The cookie of this name at a server.
    pub fn cookie(&self, at: &Url, name: &str) -> Option<String> {
        let key = (at.authority().to_owned(), name.to_owned());
        self.cookies.get(&key).cloned()
    }

    /// Sends the server a cookie that it has not set.
    pub fn set_cookie(&mut self, at: &Url, name: &str, value: String) {
        let key = (at.authority().to_owned(), name.to_owned());
        self.cookies.insert(key, value);
    }
}
