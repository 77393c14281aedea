//! `PUT /tokens/{name}`, and everything that may happen to a request after it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use tower_token_cache::{Error, TokenSet, Tokens};

use super::{Answer, Content, of_client};

/// What a `PUT` does besides keeping the token: the query of its URL.
#[derive(Deserialize)]
pub(crate) struct Trial {
    /// Answers this status after the insert.
    status: Option<u16>,
    /// 1: panics after the insert.
    panic: Option<u8>,
    /// Reads the token, waits this long, and then inserts.
    delay_ms: Option<u64>,
    /// Waits this long between the insert and the answer.
    hold_ms: Option<u64>,
    /// 1: does all of it while the body streams. As a 204 has none, the status is 200, and the
    /// body is the line `changing`, then `changed`. It breaks off when the change fails.
    stream: Option<u8>,
    /// Which client's the token is.
    #[serde(default)]
    client: String,
}

/// `PUT /tokens/{name}`
pub(crate) async fn put(
    tokens: Tokens,
    name: String,
    trial: Trial,
    user: Option<&str>,
    body: Bytes,
) -> Result<Answer, Error> {
    if let Some(user) = user {
        tokens.link_user(user).await?;
    }
    let tokens = of_client(tokens, &trial.client)?;
    let (Ok(set), Some(status)) = (serde_json::from_slice(&body), trial.status()) else {
        return Ok(Answer::empty(400));
    };
    if !trial.streams() {
        trial.run(&tokens, &name, set).await?;
        return Ok(Answer::empty(status));
    }
    let first = stream::iter([Ok(Bytes::from_static(b"changing\n"))]);
    let change = async move {
        trial.run(&tokens, &name, set).await?;
        Ok(Bytes::from_static(b"changed\n"))
    };
    let body = first.chain(stream::once(change)).boxed();
    Ok(Answer::new(status, Content::Stream(body)))
}

impl Trial {
    async fn run(&self, tokens: &Tokens, name: &str, set: TokenSet) -> Result<(), Error> {
        if let Some(delay) = self.delay_ms {
            let _ = tokens.get(name).await?;
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        tokens.insert(name, set).await?;
        assert!(
            self.panic.unwrap_or(0) == 0,
            "the request asked for a panic"
        );
        if let Some(hold) = self.hold_ms {
            tokio::time::sleep(Duration::from_millis(hold)).await;
        }
        Ok(())
    }

    fn streams(&self) -> bool {
        self.stream.unwrap_or(0) != 0
    }

    /// The status of a success; `None` for one that cannot be answered.
    fn status(&self) -> Option<u16> {
        let status = self
            .status
            .unwrap_or(if self.streams() { 200 } else { 204 });
        let bodiless = matches!(status, 204 | 205 | 304);
        ((200..=599).contains(&status) && !(bodiless && self.streams())).then_some(status)
    }
}
