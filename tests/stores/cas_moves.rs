//! Moves over compare-and-set, while other instances change the session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::cas::Cells;
use common::support::*;
use tokio::sync::Notify;
use tower_token_cache::store::{CasAdapter, CasStore};
use tower_token_cache::{Lookup, StoreError, Tokens};

/// Stops before the n-th `put`, until it is let go on.
#[derive(Clone, Default)]
struct Gated {
    cells: Cells,
    gate: Arc<std::sync::Mutex<Option<u32>>>,
    reached: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gated {
    async fn pass(&self) {
        let stops = {
            let mut gate = self.gate.lock().unwrap();
            let stops = *gate == Some(0);
            *gate = gate.and_then(|left| left.checked_sub(1));
            stops
        };
        if stops {
            self.reached.notify_one();
            self.opened.notified().await;
        }
    }
}

impl CasStore for Gated {
    type Revision = u64;
    async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, StoreError> {
        self.cells.get(key).await
    }
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&u64>,
        keep: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.pass().await;
        self.cells.put(key, value, expected, keep).await
    }
    async fn delete(&self, key: &str, expected: &u64) -> Result<bool, StoreError> {
        self.cells.delete(key, expected).await
    }
}

async fn take(tokens: &Tokens) -> Lookup<String> {
    tokens.take("login").await.unwrap()
}

/// One instance moves a session while another takes its value, and inserts a token.
#[tokio::test]
async fn a_move_gives_no_value_twice_and_loses_no_token() {
    let store = Gated::default();
    let (one, two) = (
        cache(CasAdapter::new(store.clone())),
        cache(CasAdapter::new(store.clone())),
    );
    let old = one.tokens(session("old"));
    old.put("login", "state", Duration::from_secs(3600))
        .await
        .unwrap();
    assert_stored(old.commit().await.unwrap());
    // The first write of the move is the sign-out of the old session.
    *store.gate.lock().unwrap() = Some(0);
    let moving = tokio::spawn(async move { old.move_to(session("new")).await });
    store.reached.notified().await;
    let taken = take(&two.tokens(session("old"))).await;
    let other = two.tokens(session("old"));
    other
        .insert("api", token("from the other instance"))
        .await
        .unwrap();
    let stored = other.commit().await;
    store.opened.notify_one();
    let moved = moving.await.unwrap();
    let new = two.tokens(session("new"));
    let again = take(&new).await;
    let kept = access(&new, "api").await;
    let given = [&taken, &again].iter().filter(|it| it.is_hit()).count();
    assert_eq!(
        (given, kept.is_some()),
        (1, true),
        "taken {taken:?}, again {again:?}, stored {stored:?}, moved {moved:?}"
    );
}
