//! A sign-in that fails signs no user in, here as with session ids.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use common::support::{assert_stored, token};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::session::SignIn;
use tower_token_cache::store::{PartitionId, Raise};
use tower_token_cache::{
    Error, Lookup, MemoryStore, StoreError, StoreErrorKind, TokenCacheLayer, TokenSet, TokenStore,
    Tokens,
};

use super::server::builder;

/// A store that takes sign-outs of sessions, and knows no user.
struct WithoutUsers(MemoryStore);

impl TokenStore for WithoutUsers {
    common::passes_on!(load, commit, touch, clear, leases);

    async fn raise(
        &self,
        epoch: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        match keep {
            // Of the namespace.
            None => self.0.raise(epoch, raise, keep).await,
            Some(_) => Err(StoreError::new(StoreErrorKind::Unreachable)),
        }
    }
}

/// One request with these cookies; what the handler has returned, and the cookies of the answer.
async fn visit<R>(
    layer: &TokenCacheLayer,
    cookies: &str,
    handler: impl AsyncFn(Tokens) -> R,
) -> (R, String) {
    let returned = Mutex::new(None);
    let inner = service_fn(async |request: Request<()>| {
        let tokens = request.extensions().get::<Tokens>().unwrap().clone();
        let value = handler(tokens).await;
        *returned.lock().unwrap() = Some(value);
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let request = Request::get("/").header(COOKIE, cookies).body(()).unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let lines = response.headers().get_all(SET_COOKIE).iter();
    let pairs = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap());
    let cookies = Vec::from_iter(pairs).join("; ");
    (returned.into_inner().unwrap().unwrap(), cookies)
}

#[tokio::test]
async fn a_user_who_cannot_be_linked_is_not_signed_in() {
    let store = builder().sign_outs_in(WithoutUsers(MemoryStore::new()));
    let layer = store.build().unwrap().layer().unwrap();
    let sign_in = |user: &str| {
        let set = TokenSet::from(token(user)).with_refresh_token("r");
        SignIn::new("api", set)
    };
    let without_link = async |tokens: Tokens| tokens.sign_in(sign_in("bob")).await;
    let (signed_in, before) = visit(&layer, "a=b", without_link).await;
    assert_stored(signed_in.unwrap());
    let linked = async |tokens: Tokens| tokens.sign_in(sign_in("ada").user("ada")).await;
    for cookies in ["a=b", &*before] {
        let (refused, after) = visit(&layer, cookies, linked).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        let api = async |tokens: Tokens| tokens.get("api").await.unwrap();
        let (found, _) = visit(&layer, &after, api).await;
        assert_eq!(found, Lookup::Absent, "nor is bob any more");
    }
}
