//! Every public operation, dropped at every await: what it has begun ends as if nobody had gone.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tower_token_cache::{BoxError, Error, Prior, TokenCache, TokenSet};

use common::stepping::{SteppingStore, poll_times};
use common::support::*;

/// More steps than any operation takes.
const MANY: usize = 2_000;

/// Two instances that know the session `s` of `ada`, of which `one` has more to write.
struct Fleet {
    store: SteppingStore,
    one: TokenCache,
    two: TokenCache,
}

impl Fleet {
    async fn new() -> Self {
        let store = SteppingStore::default();
        let (one, two) = (cache(store.clone()), cache(store.clone()));
        for cache in [&one, &two] {
            hears(cache).await;
        }
        let tokens = one.tokens(session("s"));
        let set = TokenSet::from(token("t")).with_refresh_token("r");
        tokens.insert("graph", set).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        tokens.link_user("ada").await.unwrap();
        for cache in [&one, &two] {
            assert!(has(cache, "s", "graph").await);
        }
        let other = one.tokens(session("other"));
        other.insert("kept", token("k")).await.unwrap();
        Self { store, one, two }
    }

    /// Whether each of these, and an instance that has nothing in memory, finds a token. They must
    /// agree, once they have heard of each other.
    async fn find(&self, what: &str, sid: &str, key: &str) -> bool {
        let agree = async {
            loop {
                // What was dropped goes on: what L2 has may change meanwhile.
                let stored = has(&cache(self.store.clone()), sid, key).await;
                let found = (
                    has(&self.one, sid, key).await,
                    has(&self.two, sid, key).await,
                );
                if found == (stored, stored) {
                    return stored;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let agree = tokio::time::timeout(Duration::from_secs(5), agree).await;
        agree.unwrap_or_else(|_| panic!("{what}: they do not agree on {sid}/{key}"))
    }

    /// Nobody is stranded, and everything works on.
    async fn goes_on(&self, what: &str) {
        let goes_on = async {
            for cache in [&self.one, &self.two] {
                let tokens = cache.tokens(session("s"));
                let _ = tokens.get("graph").await.unwrap();
                tokens.get_or_acquire("mail", acquire).await.unwrap();
                tokens.insert("next", token("n")).await.unwrap();
                assert_stored(tokens.commit().await.unwrap());
            }
            drained(&self.one).await;
        };
        let goes_on = tokio::time::timeout(Duration::from_secs(5), goes_on).await;
        assert!(goes_on.is_ok(), "{what}: somebody is stranded");
    }
}

async fn has(cache: &TokenCache, sid: &str, key: &str) -> bool {
    access(&cache.tokens(session(sid)), key).await.is_some()
}

async fn acquire(_: Prior) -> Result<TokenSet, BoxError> {
    tokio::task::yield_now().await;
    Ok(TokenSet::from(token("acquired")).with_refresh_token("next"))
}

/// What is found at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The session as it was.
    Same,
    /// The session as it was, or none. None, once the operation was done.
    Gone,
    /// The tokens in the session `s`, or in the session `new`; in that one, once it was done.
    Moved,
}

/// Drops `operation` after each number of steps, until it is done.
async fn sweep<T, F>(what: &str, end: End, operation: impl Fn(TokenCache) -> F)
where
    F: Future<Output = Result<T, Error>>,
{
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for steps in 0..MANY {
        let what = format!("{what}, dropped after {steps} steps");
        let fleet = Fleet::new().await;
        let done = poll_times(operation(fleet.one.clone()), steps).await;
        let is_done = done.is_some();
        if let Some(Err(error)) = done {
            panic!("{what}: {error:?}");
        }
        let shut_down = what.starts_with("shutdown");
        if !shut_down {
            drained(&fleet.one).await;
        }
        let mut old = fleet.find(&what, "s", "graph").await;
        let new = fleet.find(&what, "new", "graph").await;
        if end == End::Moved && new {
            // It may have been moved between the two.
            old = fleet.find(&what, "s", "graph").await;
        }
        match end {
            End::Same => assert!(old && !new, "{what}"),
            End::Gone => assert!(!(new || is_done && old), "{what}"),
            End::Moved => {
                assert_ne!(old, new, "{what}");
                assert!(new || !is_done, "{what}");
            }
        }
        if !what.starts_with("sign_out_all") {
            let fresh = cache(fleet.store.clone());
            assert!(
                shut_down && !is_done || has(&fresh, "other", "kept").await,
                "{what}: a change is lost"
            );
        }
        if !shut_down {
            fleet.goes_on(&what).await;
        }
        for cache in [&fleet.one, &fleet.two] {
            let report = cache.shutdown(Duration::from_secs(5)).await;
            assert_eq!(report.abandoned, 0, "{what}");
        }
        drop(fleet);
        // The longest that a task of a dropped cache lives: one that sweeps L1.
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(tasks(), before, "{what}: a task is left");
        if is_done {
            return;
        }
    }
    panic!("{what} does not end");
}

macro_rules! sweeps {
    ($($name:ident: $end:ident, |$tokens:ident, $cache:ident| $operation:expr;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            sweep(stringify!($name), End::$end, |$cache| async move {
                let $tokens = $cache.tokens(session("s"));
                let done = $operation;
                drop(($tokens, $cache));
                done
            })
            .await;
        }
    )*};
}

sweeps! {
    get_in_l1: Same, |tokens, cache| tokens.get("graph").await;
    get_of_another: Same, |tokens, cache| cache.tokens(session("unknown")).get("graph").await;
    refresh_token: Same, |tokens, cache| tokens.refresh_token().await;
    contains: Same, |tokens, cache| tokens.contains("absent").await;
    keys: Same, |tokens, cache| tokens.keys().await;
    reload: Same, |tokens, cache| tokens.reload().await;
    insert: Same, |tokens, cache| tokens.insert("mail", token("m")).await;
    insert_into_another: Same, |tokens, cache| cache.tokens(session("unknown")).insert("mail", token("m")).await;
    remove: Same, |tokens, cache| tokens.remove("mail").await;
    commit: Same, |tokens, cache| match tokens.insert("mail", token("m")).await {
        Ok(()) => tokens.commit().await,
        Err(error) => Err(error),
    };
    get_or_acquire: Same, |tokens, cache| tokens.get_or_acquire("mail", acquire).await;
    acquire_by_force: Same, |tokens, cache| tokens.acquire("graph")?.force_refresh().with(acquire).await;
    move_to: Moved, |tokens, cache| tokens.move_to(session("new")).await.map(drop);
    link_user: Same, |tokens, cache| tokens.link_user("bob").await;
    put: Same, |tokens, cache| tokens.put("login", "v", Duration::from_secs(60)).await;
    value: Same, |tokens, cache| tokens.value::<String>("login").await;
    take_of_none: Same, |tokens, cache| tokens.take::<String>("login").await;
    take: Same, |tokens, cache| match tokens.put("login", "v", Duration::from_secs(60)).await {
        Ok(()) => tokens.take::<String>("login").await,
        Err(error) => Err(error),
    };
    sign_out: Gone, |tokens, cache| tokens.sign_out().await;
    sessions_of: Same, |tokens, cache| cache.sessions_of("ada").await;
    sign_out_user: Gone, |tokens, cache| cache.sign_out_user("ada").await;
    sign_out_all: Gone, |tokens, cache| cache.sign_out_all().await;
    shutdown: Same, |tokens, cache| Ok::<_, Error>(cache.shutdown(Duration::from_secs(5)).await);
}
