//! A provider that answers as it is told, without a network, so that time can be paused.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;
use tower::service_fn;

use super::{Client, HttpClient, Provider};

pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) form: BTreeMap<String, String>,
}

/// What is answered in turn; a status of 0 is no answer. The last one is repeated.
type Answers = VecDeque<(u16, String)>;

pub(super) struct Scripted {
    pub(super) provider: Provider,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    pub(super) fn new() -> Self {
        let answers = Arc::<Mutex<Answers>>::default();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (script, log) = (answers.clone(), asked.clone());
        let service = service_fn(move |request: Request<Full<Bytes>>| {
            let (script, log) = (script.clone(), log.clone());
            async move {
                let (head, body) = request.into_parts();
                let Ok(form) = body.collect().await;
                let form = form.to_bytes();
                let form = url::form_urlencoded::parse(&form).into_owned();
                log.lock().unwrap().push(Asked {
                    at: Instant::now(),
                    path: head.uri.path().into(),
                    headers: head.headers,
                    form: form.collect(),
                });
                let mut script = script.lock().unwrap();
                let (status, body) = match script.len() {
                    1 => script[0].clone(),
                    _ => script.pop_front().expect("an answer"),
                };
                if status == 0 {
                    return Err(io::Error::other("no connection"));
                }
                let mut response = Response::builder().status(status);
                if matches!(status, 429 | 503) {
                    response = response.header("retry-after", "20");
                }
                Ok(response.body(body).unwrap())
            }
        });
        let at = |path: &str| format!("https://login.example{path}");
        let provider = Provider::new("https://login.example", at("/token"))
            .and_then(|provider| provider.with_authorization_endpoint(at("/auth")))
            .and_then(|provider| provider.with_revocation_endpoint(at("/revoke")))
            .and_then(|provider| provider.with_device_authorization_endpoint(at("/device")));
        Self {
            provider: provider.unwrap().with_http_client(HttpClient::new(service)),
            answers,
            asked,
        }
    }

    pub(super) fn client(&self) -> Client {
        self.provider.client("app").secret("hush")
    }

    /// Answers the next requests so.
    pub(super) fn answer<B: Into<String>>(&self, answers: impl IntoIterator<Item = (u16, B)>) {
        let answers = answers
            .into_iter()
            .map(|(status, body)| (status, body.into()));
        *self.answers.lock().unwrap() = answers.collect();
    }

    /// The requests since the last look.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}
