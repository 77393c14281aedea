//! That `l1_bytes` is what the process really pays is measured by `benches/peers`, not here.

use tower_token_cache::L1;

use common::support::*;

#[tokio::test]
async fn a_new_user_is_admitted_and_the_one_longest_unused_goes() {
    let limit = 400_000;
    let store = TestStore::default();
    let cache = builder(store.clone())
        .l1(L1::new().max_bytes(limit))
        .build()
        .unwrap();
    let user = |number: usize| cache.tokens(session(&format!("user-{number}")));
    for number in 0..200 {
        let tokens = user(number);
        tokens
            .insert("graph", token(&"x".repeat(7000)))
            .await
            .unwrap();
        assert_stored(tokens.commit().await.unwrap());
        assert!(
            user(0).get("graph").await.unwrap().is_hit(),
            "in use all the time"
        );
        let bytes = cache.stats().l1_bytes;
        assert!(bytes <= limit, "{bytes} bytes after {number} users");
    }
    let stats = cache.stats();
    assert!(
        stats.l1_entries >= 40,
        "{} partitions fit",
        stats.l1_entries
    );
    let loads = store.loads();
    assert!(user(199).get("graph").await.unwrap().is_hit());
    assert_eq!(store.loads(), loads, "the newest is in L1");
    assert!(user(5).get("graph").await.unwrap().is_hit());
    assert_eq!(
        store.loads(),
        loads + 1,
        "an old one had to go, and comes back from L2"
    );
}

#[tokio::test]
async fn a_partition_that_grows_counts_what_it_has_grown_to() {
    let cache = cache(TestStore::default());
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    let small = cache.stats().l1_bytes;
    tokens
        .insert("graph", token(&"x".repeat(100_000)))
        .await
        .unwrap();
    let large = cache.stats().l1_bytes;
    assert!(
        (99_999..101_000).contains(&(large - small)),
        "{small} → {large}"
    );
    assert_stored(tokens.sign_out().await.unwrap());
    assert!(cache.stats().l1_bytes < small);
}
