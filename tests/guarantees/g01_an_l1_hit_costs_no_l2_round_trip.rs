use std::time::Duration;

use tower_token_cache::{
    CacheLevel, Clock, L1, Lifetimes, Lookup, MemoryStore, ProviderError, Timestamp, TokenSet,
};

use common::support::*;

#[tokio::test]
async fn a_thousand_hits_send_redis_nothing() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    // When the feed begins, and tells of what is written, memory is compared.
    hears(&cache).await;
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    let reads = cache.stats().l2_reads;
    assert_stored(tokens.commit().await.unwrap());
    eventually("what was written is compared", async || {
        cache.stats().l2_reads > reads
    })
    .await;

    let before = cache.stats();
    let commands: u64 = server.calls("hgetall") + server.calls("evalsha");
    for _ in 0..1000 {
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
        assert_eq!(tokens.last_read(), CacheLevel::L1);
    }
    assert_eq!(server.calls("hgetall") + server.calls("evalsha"), commands);
    let after = cache.stats();
    assert_eq!(after.l1_hits - before.l1_hits, 1000);
    assert_eq!(after.l2_reads, before.l2_reads);
}

#[tokio::test]
async fn sliding_expiration_included() {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let cache = builder(store.clone())
        .clock(clock.clone())
        .l1(L1::new().revalidate_every(None).max_staleness(None))
        .lifetimes(Lifetimes::new().sliding(Duration::from_secs(1000)))
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    tokens
        .insert("graph", tower_token_cache::Token::new("t"))
        .await
        .unwrap();
    assert_stored(tokens.commit().await.unwrap());

    // The store hangs: a hit that waited for a touch would hang as well.
    store.hang();
    let before = store.touches();
    clock.advance(Duration::from_secs(100));
    for _ in 0..99 {
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
        clock.advance(Duration::from_secs(1));
    }
    store.wake();
    eventually("the touch is sent", async || store.touches() > before).await;
    let touches = store.touches();
    for _ in 0..90 {
        clock.advance(Duration::from_secs(1));
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
        // Whatever is queued gets its turn.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert!(store.touches() <= touches + 1, "touches are throttled");

    // In use, the partition outlives many sliding lifetimes; unused, it ends.
    for _ in 0..30 {
        clock.advance(Duration::from_secs(100));
        let touches = store.touches();
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
        eventually("the touch is sent", async || store.touches() > touches).await;
    }
    clock.advance(Duration::from_secs(999));
    assert!(
        stored_at(&store, &clock).await.is_hit(),
        "L2 was told of the uses"
    );
    clock.advance(Duration::from_secs(1001));
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Absent);
}

async fn stored_at(store: &TestStore, clock: &Clock) -> Lookup {
    let fresh = builder(store.clone()).clock(clock.clone()).build().unwrap();
    fresh.tokens(session("s")).get("graph").await.unwrap()
}

#[tokio::test]
async fn the_earliest_expiry_wins_through_l2_and_back() {
    let start = Timestamp::from_millis(1_000_000_000);
    let clock = Clock::manual(start);
    let store = MemoryStore::new().with_clock(clock.clone());
    let build = |absolute: u64| {
        let builder = builder(store.clone()).clock(clock.clone());
        let builder = builder.l1(L1::new().revalidate_every(None));
        builder
            .lifetimes(Lifetimes::new().after_write(Duration::from_secs(absolute)))
            .build()
            .unwrap()
    };
    let at = |seconds| start.saturating_add(Duration::from_secs(seconds));
    let short = tower_token_cache::Token::new("short").with_expires_at(at(50));
    let long = tower_token_cache::Token::new("long").with_expires_at(at(500));
    let writer = build(100).tokens(session("s"));
    writer.insert("short", short).await.unwrap();
    writer.insert("long", long).await.unwrap();
    assert_stored(writer.commit().await.unwrap());
    // Back-filled into another L1, which would keep a partition for much longer by itself.
    let reader = build(100_000).tokens(session("s"));
    for tokens in [&writer, &reader] {
        assert!(tokens.get("short").await.unwrap().is_hit());
        assert!(tokens.get("long").await.unwrap().is_hit());
    }
    clock.advance(Duration::from_secs(60));
    for tokens in [&writer, &reader] {
        assert_eq!(tokens.get("short").await.unwrap(), Lookup::Absent);
        assert!(tokens.get("long").await.unwrap().is_hit());
        assert_eq!(tokens.keys().await.unwrap().len(), 1);
    }
    clock.advance(Duration::from_secs(60));
    for tokens in [&writer, &reader] {
        assert_eq!(
            tokens.get("long").await.unwrap(),
            Lookup::Absent,
            "absolute"
        );
    }
}

#[tokio::test]
async fn the_expiration_ratio_sends_a_read_to_l2_early() {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let cache = builder(store.clone())
        .clock(clock.clone())
        .l1(L1::new()
            .expiration_ratio(0.1)
            .revalidate_every(None)
            .max_staleness(None))
        .lifetimes(Lifetimes::new().after_write(Duration::from_secs(1000)))
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    tokens
        .insert("graph", tower_token_cache::Token::new("t"))
        .await
        .unwrap();
    assert_stored(tokens.commit().await.unwrap());
    clock.advance(Duration::from_secs(99));
    assert!(tokens.get("graph").await.unwrap().is_hit());
    assert_eq!(tokens.last_read(), CacheLevel::L1);
    clock.advance(Duration::from_secs(2));
    assert!(tokens.get("graph").await.unwrap().is_hit());
    assert_eq!(tokens.last_read(), CacheLevel::L2);
    // With L2 down, Degrade serves what is past its freshness bound.
    clock.advance(Duration::from_secs(95));
    store.set_down(true);
    assert!(tokens.get("graph").await.unwrap().is_hit());
    assert_eq!(tokens.last_read(), CacheLevel::L1);
}

#[tokio::test]
async fn fifty_cold_reads_of_one_user_are_one_read_of_l2() {
    for l1 in [L1::new(), L1::disabled()] {
        let store = seeded().await;
        let cold = builder(store.clone()).l1(l1).build().unwrap();
        let before = store.loads();
        store.hang();
        let reads: Vec<_> = (0..50)
            .map(|_| {
                let tokens = cold.tokens(session("s"));
                tokio::spawn(async move { access(&tokens, "graph").await })
            })
            .collect();
        eventually("all wait", async || cold.stats().l1_misses == 50).await;
        store.wake();
        for read in reads {
            assert_eq!(read.await.unwrap().as_deref(), Some("t"));
        }
        assert_eq!(store.loads() - before, 1);
    }
}

#[tokio::test]
async fn without_l1_every_request_asks_l2() {
    let store = TestStore::default();
    let cache = builder(store.clone()).l1(L1::disabled()).build().unwrap();
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    for _ in 0..3 {
        let before = store.loads();
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
        assert_eq!(tokens.last_read(), CacheLevel::L2);
        assert_eq!(store.loads(), before + 1);
    }
    assert_eq!(cache.stats().l1_entries, 0);
}

#[tokio::test]
async fn a_change_by_another_instance_is_seen_after_the_revalidation_interval() {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
    let store = MemoryStore::new().with_clock(clock.clone());
    let build = || builder(store.clone()).clock(clock.clone()).build().unwrap();
    let (a, b) = (build().tokens(session("s")), build().tokens(session("s")));
    let text = |text: &str| tower_token_cache::Token::new(text);
    a.insert("graph", text("old")).await.unwrap();
    assert_stored(a.commit().await.unwrap());
    assert_eq!(access(&b, "graph").await.as_deref(), Some("old"));
    a.insert("graph", text("new")).await.unwrap();
    assert_stored(a.commit().await.unwrap());
    clock.advance(Duration::from_secs(10));
    assert!(
        b.get("graph").await.unwrap().is_hit(),
        "served at once, and read again behind it"
    );
    eventually("b sees the change", async || {
        access(&b, "graph").await.as_deref() == Some("new")
    })
    .await;
}

#[tokio::test]
async fn an_absence_is_believed_for_a_second() {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let build = || builder(store.clone()).clock(clock.clone()).build().unwrap();
    let (a, b) = (build().tokens(session("s")), build().tokens(session("s")));
    assert_eq!(b.get("graph").await.unwrap(), Lookup::Absent);
    a.insert("graph", tower_token_cache::Token::new("t"))
        .await
        .unwrap();
    assert_stored(a.commit().await.unwrap());
    let loads = store.loads();
    clock.advance(Duration::from_millis(999));
    for _ in 0..100 {
        assert_eq!(b.get("graph").await.unwrap(), Lookup::Absent);
    }
    assert_eq!(store.loads(), loads);
    clock.advance(Duration::from_millis(1));
    assert_eq!(access(&b, "graph").await.as_deref(), Some("t"));
}

#[tokio::test]
async fn sessions_that_do_not_exist_drive_nobody_out_of_l1() {
    let store = TestStore::default();
    let l1 = L1::new().max_bytes(20_000);
    let cache = builder(store.clone()).l1(l1).build().unwrap();
    let tokens = cache.tokens(session("real"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    for number in 0..500 {
        let made_up = cache.tokens(session(&format!("made-up-{number}")));
        assert_eq!(made_up.get("graph").await.unwrap(), Lookup::Absent);
    }
    let loads = store.loads();
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
    assert_eq!(store.loads(), loads);
    assert_eq!(cache.stats().l1_entries, 1);
}

#[tokio::test(start_paused = true)]
async fn a_partition_in_use_stays_with_l1_off_too() {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let cache = builder(store.clone())
        .clock(clock.clone())
        .l1(L1::disabled())
        .lifetimes(Lifetimes::new().sliding(Duration::from_secs(1000)))
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    tokens
        .insert("graph", tower_token_cache::Token::new("t"))
        .await
        .unwrap();
    assert_stored(tokens.commit().await.unwrap());
    for _ in 0..5 {
        clock.advance(Duration::from_secs(900));
        let touches = store.touches();
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
        eventually("the touch is sent", async || store.touches() > touches).await;
        // Its answer comes later, and is about the time until now.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// L2 takes its time, and no feed says that nothing has changed since it was asked.
#[tokio::test(start_paused = true)]
async fn a_change_after_a_read_does_not_ask_l2_again() {
    for way in ["get", "contains", "keys"] {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
        let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
        let cache = builder(store.clone()).clock(clock.clone()).build().unwrap();
        let tokens = cache.tokens(session("s"));
        store.hang_loads();
        let read = tokio::spawn({
            let tokens = tokens.clone();
            async move {
                match way {
                    "get" => tokens.get("graph").await.unwrap().is_hit(),
                    "contains" => tokens.contains("graph").await.unwrap(),
                    _ => !tokens.keys().await.unwrap().is_empty(),
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        clock.advance(Duration::from_millis(20));
        store.wake_loads();
        assert!(!read.await.unwrap(), "{way}");

        let asked = (store.loads(), store.looks());
        tokens.insert("graph", token("t")).await.unwrap();
        assert_eq!((store.loads(), store.looks()), asked, "{way}");
        assert_stored(tokens.commit().await.unwrap());
    }
}

#[tokio::test]
async fn a_token_in_l1_that_will_not_do_is_looked_up_once() {
    let cache = cache(MemoryStore::new());
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("old")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let before = cache.stats().l1_hits;
    let acquisition = tokens.acquire("graph").unwrap();
    let longer = acquisition.min_remaining(2 * Duration::from_secs(3600));
    let call = |_| async { Ok::<_, ProviderError>(TokenSet::from(token("new"))) };
    let acquired = longer.with(call).await.unwrap();
    assert_eq!(acquired.token.access_token(), "new");
    assert_eq!(cache.stats().l1_hits - before, 1);
}
