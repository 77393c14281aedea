//! When a token has to be replaced: soon, now, or because it was rejected.

use super::*;

#[tokio::test]
async fn a_token_that_will_expire_soon_is_served_and_replaced_in_the_background() {
    let issuer = Issuer::new();
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone()))
        .clock(clock.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let end = clock.now().saturating_add(Duration::from_secs(3600));
    let old = TokenSet::from(Token::new("a0").with_expires_at(end)).with_refresh_token("r0");
    tokens.insert("graph", old).await.unwrap();
    clock.advance(Duration::from_secs(3600 - 331));
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a0");
    assert_eq!(
        issuer.calls(),
        0,
        "it is not due before 110 % of five minutes"
    );
    clock.advance(Duration::from_secs(331 - 269));
    issuer.hold();
    for _ in 0..100 {
        assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a0");
    }
    issuer.arrival().await;
    issuer.release();
    eventually("the successor is there", async || {
        acquire(&tokens, &issuer).await.unwrap() == "a1"
    })
    .await;
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn a_refresh_ahead_that_fails_is_no_error() {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone()))
        .clock(clock.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let end = clock.now().saturating_add(Duration::from_secs(60));
    tokens
        .insert("graph", Token::new("a0").with_expires_at(end))
        .await
        .unwrap();
    for _ in 0..100 {
        let failing =
            |_: Prior| async { Err::<TokenSet, _>(ProviderError::refused("server_error")) };
        let token = tokens.get_or_acquire("graph", failing).await.unwrap();
        assert_eq!(token.access_token(), "a0");
        tokio::task::yield_now().await;
    }
    eventually("the failure is counted", async || {
        cache.stats().failed_acquisitions > 0
    })
    .await;
    assert_eq!(cache.stats().failed_acquisitions, 1, "it backs off");
}

#[tokio::test]
async fn short_lives_are_not_refreshed_all_the_time() {
    let (cache, issuer) = (cache(MemoryStore::new()), Issuer::new());
    let tokens = cache.tokens(session("s"));
    let short = Token::new("a0").with_expires_in(Duration::from_secs(60));
    let set = TokenSet::from(short).with_refresh_token("r0");
    tokens.insert("graph", set).await.unwrap();
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a0");
    let acquired = tokens.acquire("graph").unwrap().with(never).await.unwrap();
    let end = acquired.metadata.expires_at.unwrap();
    let before = end.since(acquired.metadata.refresh_at.unwrap());
    assert!((Duration::from_secs(10)..Duration::from_secs(14)).contains(&before));
    assert_eq!(issuer.calls(), 0);
}

#[tokio::test]
async fn the_time_of_the_refresh_is_fixed_per_token_and_differs_between_instances() {
    let store = MemoryStore::new();
    let token = token("t");
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let tokens = cache(store.clone()).tokens(session("s"));
        tokens.insert("graph", token.clone()).await.unwrap();
        let first = tokens
            .get_with_metadata("graph")
            .await
            .unwrap()
            .1
            .refresh_at;
        let again = tokens
            .get_with_metadata("graph")
            .await
            .unwrap()
            .1
            .refresh_at;
        assert_eq!(first, again);
        let before = token.expires_at().unwrap().since(first.unwrap());
        assert!((Duration::from_secs(270)..=Duration::from_secs(330)).contains(&before));
        times.insert(first.unwrap());
    }
    assert!(times.len() > 4, "instances do not march in step");
}

#[tokio::test]
async fn a_burst_of_rejections_of_one_token_makes_one_call() {
    let issuer = Issuer::new();
    let store = TestStore::default();
    let (one, other) = (cache(store.clone()), cache(store));
    one.tokens(session("s"))
        .insert("graph", set(0))
        .await
        .unwrap();
    assert_stored(one.tokens(session("s")).commit().await.unwrap());
    let rejected = set(0).access().clone();
    let mut requests = JoinSet::new();
    for cache in [&one, &other] {
        for _ in 0..50 {
            let (tokens, issuer) = (cache.tokens(session("s")), issuer.clone());
            let rejected = rejected.clone();
            requests.spawn(async move {
                let call = |prior| issuer.refresh(prior);
                let token = tokens.rejected("graph", &rejected, call).await.unwrap();
                assert_eq!(token.access_token(), "a1");
            });
        }
    }
    requests.join_all().await;
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn a_rejected_token_that_l2_has_replaced_needs_no_call() {
    let store = TestStore::default();
    let here = cache(store.clone()).tokens(session("s"));
    here.insert("graph", set(0)).await.unwrap();
    assert_stored(here.commit().await.unwrap());
    let other = cache(store).tokens(session("s"));
    other.insert("graph", set(9)).await.unwrap();
    assert_stored(other.commit().await.unwrap());
    assert_eq!(access(&here, "graph").await.as_deref(), Some("a0"), "L1");
    let token = here
        .rejected("graph", set(0).access(), never)
        .await
        .unwrap();
    assert_eq!(token.access_token(), "a9");
}

#[tokio::test]
async fn force_claims_and_a_minimal_rest_of_life_ask_the_provider() {
    let (cache, issuer) = (cache(TestStore::default()), Issuer::new());
    let tokens: Tokens = cache.tokens(session("s"));
    tokens.insert("graph", set(0)).await.unwrap();
    let refresh = || {
        let issuer = issuer.clone();
        move |prior| issuer.refresh(prior)
    };
    let acquisition = || tokens.acquire("graph").unwrap();
    let forced = acquisition().force_refresh().with(refresh()).await.unwrap();
    assert_eq!(forced.token.access_token(), "a1");
    let reason = RefreshReason::ForceRefreshOrClaims;
    assert_eq!(forced.metadata.refresh_reason, reason);
    let checked = {
        let refresh = refresh();
        move |prior: Prior| {
            assert_eq!(prior.claims(), Some("{}"));
            refresh(prior)
        }
    };
    let claimed = acquisition().claims("{}").with(checked).await.unwrap();
    assert_eq!(claimed.token.access_token(), "a2");
    assert_eq!(claimed.metadata.refresh_reason, reason);
    let enough = acquisition().min_remaining(Duration::from_secs(60));
    assert_eq!(enough.with(never).await.unwrap().token.access_token(), "a2");
    let longer = acquisition().min_remaining(Duration::from_secs(7200));
    let longer = longer.with(refresh()).await.unwrap();
    assert_eq!(longer.token.access_token(), "a3");
    assert_eq!(longer.metadata.refresh_reason, RefreshReason::Expired);
    let scoped = acquisition().scopes(["mail.read"]).unwrap();
    let scoped = scoped.with(refresh()).await.unwrap();
    assert_eq!(scoped.token.access_token(), "a4");
    assert_eq!(issuer.reuses(), 0);
}
