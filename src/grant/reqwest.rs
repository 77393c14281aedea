//! Both versions of `reqwest::Client` as HTTP clients.

use std::sync::Arc;

use super::http_client::{HttpClient, read};

#[cfg(feature = "reqwest-0-12")]
impl From<reqwest::Client> for HttpClient {
    /// It must not follow redirects: `redirect::Policy::none()`.
    fn from(client: reqwest::Client) -> Self {
        Self(Arc::new(move |request, limit| {
            let client = client.clone();
            Box::pin(async move {
                let answered = client.execute(request.try_into()?).await;
                // The URL's query may hold secrets.
                let response = answered.map_err(reqwest::Error::without_url)?;
                read(response.into(), limit).await
            })
        }))
    }
}

#[cfg(feature = "reqwest-0-13")]
impl From<reqwest_0_13::Client> for HttpClient {
    /// It must not follow redirects: `redirect::Policy::none()`.
    fn from(client: reqwest_0_13::Client) -> Self {
        Self(Arc::new(move |request, limit| {
            let client = client.clone();
            Box::pin(async move {
                let answered = client.execute(request.try_into()?).await;
                // The URL's query may hold secrets.
                let response = answered.map_err(reqwest_0_13::Error::without_url)?;
                read(response.into(), limit).await
            })
        }))
    }
}
