//! Nothing is remembered of a partition that L2 does not have (guarantee 12): ids that somebody has
//! made up take no room of those that are real.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_token_cache::{
    AcquireErrorKind, Error, FailurePolicy, L1, PartitionKey, Prior, ProviderError, Token,
    TokenCache, TokenSet, Tokens,
};

use common::issuer::Issuer;
use common::support::*;

const USERS: usize = 300;

async fn real_users(store: &TestStore) -> TokenCache {
    let cache = builder(store.clone())
        .l1(L1::new().max_bytes(1 << 20))
        .build()
        .unwrap();
    for number in 0..USERS {
        let tokens = cache.tokens(session(&format!("real-{number}")));
        let set = TokenSet::from(token(&"x".repeat(1000))).with_refresh_token("r");
        tokens.insert("graph", set).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    assert_eq!(in_l1(&cache).await, USERS);
    cache
}

async fn in_l1(cache: &TokenCache) -> usize {
    let mut found = 0;
    for number in 0..USERS {
        let tokens = cache.tokens(session(&format!("real-{number}")));
        tokens.set_failure_policy(FailurePolicy::Bypass);
        found += usize::from(access(&tokens, "graph").await.is_some());
    }
    found
}

/// An application that has no token to redeem, and asks all the same.
async fn ask(tokens: &Tokens, calls: &Arc<AtomicUsize>) -> Result<Token, Error> {
    let calls = calls.clone();
    let call = move |prior: Prior| async move {
        assert!(prior.refresh_token().is_none());
        calls.fetch_add(1, Ordering::SeqCst);
        Err::<TokenSet, _>(ProviderError::unreachable("not to be had"))
    };
    tokens.get_or_acquire("graph", call).await
}

fn invented(number: usize) -> [PartitionKey; 3] {
    let id = format!("invented-{number}");
    [
        PartitionKey::session(&id).unwrap(),
        PartitionKey::user(&id).unwrap(),
        PartitionKey::assertion(&id),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_and_nobody_leaves_memory() {
    let store = TestStore::default();
    let cache = real_users(&store).await;
    let (commits, entries) = (store.commits(), cache.stats().l1_entries);
    let calls = Arc::<AtomicUsize>::default();
    let mut clients = JoinSet::new();
    for client in 0..100 {
        let (cache, calls) = (cache.clone(), calls.clone());
        clients.spawn(async move {
            for number in 0..30 {
                for key in invented(client * 30 + number) {
                    ask(&cache.tokens(key), &calls).await.unwrap_err();
                }
            }
        });
    }
    clients.join_all().await;
    assert_eq!(calls.load(Ordering::SeqCst), 9000);
    assert_eq!(store.commits(), commits, "no record of a failure");
    assert_eq!(
        store.leases(),
        3000,
        "of assertions only, and these are given back"
    );
    assert_eq!(cache.stats().l1_entries, entries);
    assert_eq!(in_l1(&cache).await, USERS);
}

#[tokio::test]
async fn an_outage_keeps_nothing_of_them_either() {
    let store = TestStore::default();
    let cache = real_users(&store).await;
    store.set_down(true);
    let calls = Arc::default();
    for number in 0..20 {
        for key in invented(number) {
            ask(&cache.tokens(key), &calls).await.unwrap_err();
        }
    }
    assert_eq!(cache.stats().pending_changes, 0);
    assert_eq!(in_l1(&cache).await, USERS);
}

#[tokio::test]
async fn the_provider_is_left_alone_all_the_same_until_they_sign_in() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let calls = Arc::<AtomicUsize>::default();
    for key in invented(0) {
        let tokens = cache.tokens(key);
        let before = calls.load(Ordering::SeqCst);
        for _ in 0..10 {
            let Err(Error::Acquire(error)) = ask(&tokens, &calls).await else {
                panic!("it must fail")
            };
            assert_eq!(error.kind(), AcquireErrorKind::Failed);
            assert!(error.retry_at().is_some());
        }
        assert_eq!(calls.load(Ordering::SeqCst), before + 1);
    }
    assert_eq!(store.commits(), 0);
    let (tokens, issuer) = (cache.tokens(session("invented-0")), Issuer::new());
    let signed_in = TokenSet::from(token("other")).with_refresh_token("r0");
    tokens.insert("other", signed_in).await.unwrap();
    let call = |prior| issuer.refresh(prior);
    let token = tokens.get_or_acquire("graph", call).await.unwrap();
    assert_eq!(token.access_token(), "a1");
}

#[tokio::test]
async fn those_of_one_process_still_share_one_call() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let calls = Arc::<AtomicUsize>::default();
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let (tokens, calls) = (cache.tokens(session("new")), calls.clone());
        requests.spawn(async move {
            let call = move |_: Prior| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok::<TokenSet, ProviderError>(token("t").into())
            };
            tokens.get_or_acquire("graph", call).await.unwrap();
        });
    }
    requests.join_all().await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(stored(store, "new", "graph").await.as_deref(), Some("t"));
}

#[tokio::test]
async fn an_applications_own_failures_are_remembered_by_all_instances() {
    let store = TestStore::default();
    let calls = Arc::<AtomicUsize>::default();
    let application = PartitionKey::application("client", "tenant").unwrap();
    for cache in [cache(store.clone()), cache(store.clone())] {
        ask(&cache.tokens(application.clone()), &calls)
            .await
            .unwrap_err();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!((store.commits(), store.leases()), (1, 1));
}

/// Whose partition is there, and not in memory, is not taken for an invented one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_one_redemption_is_made_all_the_same() {
    let store = TestStore::default();
    let instances = [0; 3].map(|_| {
        let built = builder(store.clone()).l1(L1::disabled()).build();
        built.unwrap()
    });
    let old = Token::new("a0").with_expires_at(tower_token_cache::Timestamp::from_millis(1));
    let tokens = instances[0].tokens(session("s"));
    let set = TokenSet::from(old).with_refresh_token("r0");
    tokens.insert("graph", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let issuer = Issuer::new();
    let mut requests = JoinSet::new();
    for number in 0..60 {
        let tokens = instances[number % 3].tokens(session("s"));
        let issuer = issuer.clone();
        requests.spawn(async move {
            let call = |prior| issuer.refresh(prior);
            tokens.get_or_acquire("graph", call).await.unwrap()
        });
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer.access_token() == "a1"));
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}
