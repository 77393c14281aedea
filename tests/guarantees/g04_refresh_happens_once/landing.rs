//! The answer's way to L2: it is there before anybody has it, and loses against what is newer.

use super::*;

#[tokio::test]
async fn the_answer_is_in_l2_before_anybody_has_it() {
    let (store, issuer) = (expired().await, Issuer::new());
    let tokens = cache(store.clone()).tokens(session("s"));
    let request = held(&tokens, &issuer).await;
    let groups = store.groups();
    store.hang();
    issuer.release();
    eventually("the commit is sent", async || store.groups() > groups).await;
    assert!(!request.is_finished());
    assert_eq!(access_in_memory(&tokens).await, None);
    store.wake();
    assert_eq!(request.await.unwrap().unwrap(), "a1");
    assert_eq!(access_in_memory(&tokens).await.as_deref(), Some("a1"));
}

async fn stored_refresh_token(store: TestStore) -> String {
    let refresh_token = cache(store).tokens(session("s")).refresh_token().await;
    refresh_token.unwrap().hit().unwrap().expose().to_owned()
}

async fn access_in_memory(tokens: &Tokens) -> Option<String> {
    let tokens = tokens.clone();
    let policy = tokens.failure_policy();
    tokens.set_failure_policy(FailurePolicy::Bypass);
    let found = access(&tokens, "graph").await;
    tokens.set_failure_policy(policy);
    found
}

#[tokio::test]
async fn others_wait_until_l2_has_the_answer() {
    let (store, issuer) = (expired().await, Issuer::new());
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    store.set_refusing_commits(true);
    assert_eq!(
        acquire(&one.tokens(session("s")), &issuer).await.unwrap(),
        "a1"
    );
    let waiting = tokio::spawn({
        let (tokens, issuer) = (other.tokens(session("s")), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    let leases = store.leases();
    eventually("the other is turned away", async || {
        store.leases() > leases + 3
    })
    .await;
    assert_eq!(issuer.calls(), 1);
    store.set_refusing_commits(false);
    assert_eq!(waiting.await.unwrap().unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn under_strict_an_answer_that_l2_does_not_take_is_an_error_and_is_kept() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    tokens.set_failure_policy(FailurePolicy::Strict);
    let request = held(&tokens, &issuer).await;
    store.set_down(true);
    issuer.release();
    assert!(matches!(request.await.unwrap(), Err(Error::Unavailable(_))));
    store.set_down(false);
    drained(&cache).await;
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test]
async fn a_sign_out_during_the_call_wins() {
    for elsewhere in [false, true] {
        let (store, issuer) = (expired().await, Issuer::new());
        let here = cache(store.clone());
        let tokens = here.tokens(session("s"));
        let request = held(&tokens, &issuer).await;
        let other = match elsewhere {
            true => cache(store.clone()),
            false => here.clone(),
        };
        assert_stored(other.tokens(session("s")).sign_out().await.unwrap());
        issuer.release();
        assert!(matches!(request.await.unwrap(), Err(Error::SignedOut)));
        drained(&here).await;
        assert_eq!(stored(store, "s", "graph").await, None, "{elsewhere}");
        let fresh = here.tokens(session("s"));
        assert_eq!(fresh.refresh_token().await.unwrap(), Lookup::Absent);
    }
}

#[tokio::test]
async fn a_sign_in_elsewhere_during_the_call_wins() {
    let (store, issuer) = (expired().await, Issuer::new());
    let tokens = cache(store.clone()).tokens(session("s"));
    let request = held(&tokens, &issuer).await;
    let other = cache(store.clone()).tokens(session("s"));
    other.insert("graph", set(70)).await.unwrap();
    assert_stored(other.commit().await.unwrap());
    issuer.release();
    assert_eq!(request.await.unwrap().unwrap(), "a70");
    assert_eq!(stored_refresh_token(store).await, "r70");
}

#[tokio::test]
async fn a_sign_in_here_during_the_call_wins() {
    let (store, issuer) = (expired().await, Issuer::new());
    let here = cache(store.clone());
    let tokens = here.tokens(session("s"));
    let request = held(&tokens, &issuer).await;
    here.tokens(session("s"))
        .insert("graph", set(70))
        .await
        .unwrap();
    issuer.release();
    request.await.unwrap().unwrap();
    drained(&here).await;
    assert_eq!(
        stored(store.clone(), "s", "graph").await.as_deref(),
        Some("a70")
    );
    assert_eq!(stored_refresh_token(store).await, "r70");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_no_conflict_with_itself() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    let _ = tokens.get("graph").await.unwrap();
    store.set_losing_answers(true);
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    store.set_losing_answers(false);
    drained(&cache).await;
    assert_eq!(cache.stats().superseded_changes, 0);
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test]
async fn without_l2_by_policy_nothing_is_written() {
    let (store, issuer) = (TestStore::default(), Issuer::new());
    let tokens: Tokens = cache(store.clone()).tokens(session("s"));
    tokens.set_failure_policy(FailurePolicy::Bypass);
    let old = Token::new("old").with_expires_at(Timestamp::from_millis(1));
    let old = TokenSet::from(old).with_refresh_token("r0");
    tokens.insert("graph", old).await.unwrap();
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("a1"));
    assert_eq!((store.groups(), store.leases()), (0, 0));
}

/// A refresh token that all instances have is not spent for one of them.
#[tokio::test]
async fn without_l2_by_policy_what_l2_has_is_redeemed_for_all() {
    let (store, issuer) = (expired().await, Issuer::new());
    let tokens = cache(store.clone()).tokens(session("s"));
    let _ = tokens.get("graph").await.unwrap();
    tokens.set_failure_policy(FailurePolicy::Bypass);
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    let other = cache(store.clone()).tokens(session("s"));
    assert_eq!(acquire(&other, &issuer).await.unwrap(), "a1");
    assert_eq!(stored_refresh_token(store).await, "r1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

/// A store in which leases run out at a word, and a request whose call stands still while its lease
/// has run out.
async fn without_lease() -> (TestStore, Issuer, JoinHandle<Result<String, Error>>) {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    keep_expired(&cache(store.clone()).tokens(session("s"))).await;
    let issuer = Issuer::new();
    let request = held(&cache(store.clone()).tokens(session("s")), &issuer).await;
    clock.advance(Duration::from_secs(60));
    (store, issuer, request)
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_lease_runs_out_is_good_as_long_as_its_refresh_token_stands() {
    let (store, issuer, request) = without_lease().await;
    let other = cache(store.clone()).tokens(session("s"));
    other.insert("graph", token("other")).await.unwrap();
    assert_stored(other.commit().await.unwrap());
    let leases = store.leases();
    eventually("it has a lease again", async || store.leases() > leases).await;
    issuer.release();
    assert_eq!(request.await.unwrap().unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    assert_eq!(stored_refresh_token(store).await, "r1");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_lease_is_taken_by_one_that_fails_is_still_good() {
    let (store, issuer, request) = without_lease().await;
    let failing = Issuer::new();
    failing.hold();
    let taker = tokio::spawn({
        let (tokens, failing) = (cache(store.clone()).tokens(session("s")), failing.clone());
        async move {
            let call = move |_: Prior| async move {
                failing.arrived_without_token().await;
                Err::<TokenSet, _>(ProviderError::unreachable("the wire is cut"))
            };
            tokens.get_or_acquire("graph", call).await
        }
    });
    failing.arrival().await;
    let leases = store.leases();
    eventually("it is turned away", async || store.leases() > leases + 1).await;
    failing.release();
    taker.await.unwrap().unwrap_err();
    let releases = store.releases();
    issuer.release();
    assert_eq!(request.await.unwrap().unwrap(), "a1");
    eventually("it had a lease again", async || store.releases() > releases).await;
    assert_eq!(stored_refresh_token(store).await, "r1");
}
