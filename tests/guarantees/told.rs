//! What the feed has told of is not served before L2 was asked (guarantees 3 and 6), and what it tells costs
//! no more than it has to.

use std::time::Duration;

use tokio::time::Instant;
use tower_token_cache::{FailurePolicy, Lifetimes, MemoryStore};

use common::support::*;

/// How an instance learns that somebody is signed out.
#[derive(Clone, Copy, Debug)]
enum Told {
    Session,
    User,
    Everybody,
}

/// Whatever is told, right after an own change or not, and however L2 is away: no read serves it, of those
/// that wait for L2 as of those that find its breaker open.
#[tokio::test]
async fn a_sign_out_that_was_told_holds_while_l2_is_away() {
    for told in [Told::Session, Told::User, Told::Everybody] {
        for own in [false, true] {
            for policy in [FailurePolicy::Degrade, FailurePolicy::Strict] {
                held_while_away(told, own, policy).await;
            }
        }
    }
}

async fn held_while_away(told: Told, own: bool, policy: FailurePolicy) {
    let server = MemoryStore::new();
    let [way, other] = [(); 2].map(|()| TestStore::telling_of(server.clone()));
    let (here, there) = (cache(way.clone()), cache(other));
    hears(&here).await;
    hears(&there).await;
    let theirs = there.tokens(session("s"));
    theirs.insert("graph", token("t")).await.unwrap();
    theirs.link_user("ada").await.unwrap();
    assert_stored(theirs.commit().await.unwrap());
    let tokens = here.tokens(session("s"));
    tokens.set_failure_policy(policy);
    eventually("it is in memory, and as L2 has it", async || {
        let reads = here.stats().l2_reads;
        tokens.get("graph").await.unwrap().is_hit() && here.stats().l2_reads == reads
    })
    .await;
    if own {
        tokens.insert("mail", token("m")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    way.set_down(true);
    let before = here.stats().feed_told;
    match told {
        Told::Session => drop(there.tokens(session("s")).sign_out().await.unwrap()),
        Told::User => drop(there.sign_out_user("ada").await.unwrap()),
        Told::Everybody => there.sign_out_all().await.unwrap(),
    }
    eventually("it is told", async || here.stats().feed_told > before).await;
    // What may be the own change is compared in the background.
    let held = async || {
        let read = here.tokens(session("s"));
        read.set_failure_policy(policy);
        !read.get("graph").await.is_ok_and(|found| found.is_hit())
    };
    eventually("it holds", held).await;
    for read in 0..30 {
        assert!(held().await, "{told:?}, own {own}, {policy:?}: read {read}");
    }
}

/// A session that many instances use is touched by one of them: each touch is told to all others, and has
/// them compare.
#[tokio::test(flavor = "multi_thread")]
async fn touches_do_not_grow_with_the_square_of_the_instances() {
    const INSTANCES: u32 = 6;
    if !common::far::latency().is_zero() {
        // Who is far away hears of a touch too late to spare its own.
        return;
    }
    // A touch is due each second.
    let sliding = Duration::from_secs(10);
    let server = RedisServer::start();
    let mut caches = Vec::new();
    for _ in 0..INSTANCES {
        let builder =
            builder(redis_store(&server).await).lifetimes(Lifetimes::new().sliding(sliding));
        caches.push(builder.build().unwrap());
    }
    let tokens = caches[0].tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let calls = || (server.calls("pexpireat"), server.calls("hget"));
    let began = Instant::now();
    let mut before = None;
    while began.elapsed() < Duration::from_secs(5) {
        // They come one after the other, so that their touches are not in step.
        let here = began.elapsed().as_millis() as u32 / 150 + 1;
        if here > INSTANCES {
            before.get_or_insert_with(calls);
        }
        for cache in caches.iter().take(here as usize) {
            let found = access(&cache.tokens(session("s")), "graph").await;
            assert_eq!(found.as_deref(), Some("t"));
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    let (before, after) = (before.unwrap(), calls());
    let (touches, looks) = (after.0 - before.0, after.1 - before.1);
    // One a second, and whoever happens to come in the same moment; each is looked at by all.
    assert!(touches <= 10, "{touches} touches");
    let most = (touches + 2) * u64::from(INSTANCES + 1);
    assert!(looks <= most, "{touches} touches, {looks} looks");
}

/// Somebody who empties another database of the server again and again has each user compared once a second.
#[tokio::test(flavor = "multi_thread")]
async fn gaps_without_a_pause_are_compared_at_intervals() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    hears(&cache).await;
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let client = redis::Client::open(format!("{}/1", server.url())).unwrap();
    let mut elsewhere = client.get_connection().unwrap();
    let before = server.calls("hget");
    for _ in 0..100 {
        redis::cmd("FLUSHDB").exec(&mut elsewhere).unwrap();
        let found = access(&cache.tokens(session("s")), "graph").await;
        assert_eq!(found.as_deref(), Some("t"));
        // So that the server tells of each by itself.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let compared = server.calls("hget") - before;
    assert!(compared < 50, "{compared} for 100 reads");
    hears(&cache).await;
}
