//! A browser's cookies.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use reqwest::{Method, StatusCode};

/// The cookies of one browser. Clones are copies, as of somebody who has stolen them.
#[derive(Clone, Debug, Default)]
pub struct Jar(pub BTreeMap<String, String>);

/// What a server has answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: String,
    pub lines: Vec<String>,
    /// All lines of it.
    pub cache_control: Option<String>,
    pub headers: reqwest::header::HeaderMap,
}

impl Jar {
    /// Sends a request with the cookies, and keeps those of the answer.
    pub async fn send(&mut self, at: SocketAddr, method: Method, path: &str) -> Answer {
        self.send_body(at, method, path, "").await
    }

    pub async fn get(&mut self, at: SocketAddr, path: &str) -> Answer {
        self.send(at, Method::GET, path).await
    }

    pub async fn post(&mut self, at: SocketAddr, path: &str, body: &str) -> Answer {
        self.send_body(at, Method::POST, path, body).await
    }

    pub async fn send_body(
        &mut self,
        at: SocketAddr,
        method: Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let answer = self.clone().request(at, method, path, body).await;
        self.take(&answer.lines);
        answer
    }

    /// Sends a request whose answer the browser does not get to see.
    pub async fn request(self, at: SocketAddr, method: Method, path: &str, body: &str) -> Answer {
        let url = format!("http://{at}{path}");
        let mut request = reqwest::Client::new().request(method, url);
        if !self.0.is_empty() {
            let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
            request = request.header("cookie", pairs.collect::<Vec<_>>().join("; "));
        }
        let response = request.body(body.to_owned()).send().await.unwrap();
        let header = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
        let headers = response.headers().clone();
        let said: Vec<_> = headers
            .get_all("cache-control")
            .iter()
            .map(header)
            .collect();
        Answer {
            status: response.status(),
            lines: response
                .headers()
                .get_all("set-cookie")
                .iter()
                .map(header)
                .collect(),
            cache_control: (!said.is_empty()).then(|| said.join(", ")),
            headers,
            body: response.text().await.unwrap(),
        }
    }

    pub fn take(&mut self, lines: &[String]) {
        for line in lines {
            assert!(line.len() < 4096, "a line of {} bytes", line.len());
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            match line.contains("; Max-Age=0") {
                true => self.0.remove(name),
                false => self.0.insert(name.into(), value.into()),
            };
        }
    }
}
