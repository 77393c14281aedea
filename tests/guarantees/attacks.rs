//! Attempts to break the guarantees where several of them meet.

use std::time::Duration;

use tower_token_cache::{
    Clock, Durability, KeyRing, Lookup, MemoryStore, Timeouts, Timestamp, TokenSet,
};

use common::support::*;

/// A sign-out reaches what began under a number that this instance has not heard of.
#[tokio::test]
async fn a_sign_out_right_after_everybody_was_signed_out_elsewhere() {
    for user in [false, true] {
        let store = TestStore::default();
        let (one, other) = (cache(store.clone()), cache(store.clone()));
        assert_eq!(access(&one.tokens(session("s")), "graph").await, None);
        assert_eq!(access(&other.tokens(session("x")), "graph").await, None);
        other.sign_out_all().await.unwrap();
        let tokens = other.tokens(session("s"));
        tokens.insert("graph", token("new")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        tokens.link_user("ada").await.unwrap();
        let ended = match user {
            true => one.sign_out_user("ada").await.unwrap(),
            false => one.tokens(session("s")).sign_out().await.unwrap(),
        };
        assert_eq!(ended, Durability::Stored);
        let found = stored(store.clone(), "s", "graph").await;
        assert_eq!(found, None, "by user: {user}");
    }
}

/// A session that was linked before encryption began is reached after its end was accepted.
#[tokio::test]
async fn sessions_that_were_linked_before_encryption_are_reached_after_it() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let plain = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let tokens = plain.tokens(session("s"));
    let set = TokenSet::from(token("t")).with_refresh_token("r");
    tokens.insert("graph", set).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    drop((tokens, plain));
    let keys = KeyRing::generate().unwrap();
    let ring = || keys.clone();
    let until = clock.now().saturating_add(Duration::from_secs(3600));
    let sealing = || {
        let it = builder(store.clone()).clock(clock.clone()).key_ring(ring());
        it.accept_plaintext_until(until).build().unwrap()
    };
    let found = sealing()
        .tokens(session("s"))
        .refresh_token()
        .await
        .unwrap();
    assert!(found.is_hit(), "moved");
    clock.advance(Duration::from_secs(7200));
    let after = sealing();
    assert!(
        after
            .tokens(session("s"))
            .refresh_token()
            .await
            .unwrap()
            .is_hit()
    );
    assert_eq!(
        after.sign_out_user("ada").await.unwrap(),
        Durability::Stored
    );
    let found = sealing()
        .tokens(session("s"))
        .refresh_token()
        .await
        .unwrap();
    assert_eq!(found, Lookup::Absent);
    let found = after.tokens(session("s")).refresh_token().await.unwrap();
    assert_eq!(found, Lookup::Absent);
}

/// What the last process could not tell, the next one does, before it serves the session.
#[tokio::test]
async fn the_sign_out_of_a_user_outlives_the_process_with_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let store = TestStore::default();
    let begun = async || {
        let mut begun = None;
        eventually("nobody else has the journal", async || {
            begun = builder(store.clone()).journal(&path).build().ok();
            begun.is_some()
        })
        .await;
        begun.unwrap()
    };
    let cache = begun().await;
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    store.set_down(true);
    for _ in 0..3 {
        assert_eq!(
            cache.sign_out_user("ada").await.unwrap(),
            Durability::Pending
        );
    }
    drop((tokens, cache));
    // One that L2 is not there for either passes it on.
    let cache = begun().await;
    assert_eq!(cache.stats().pending_sign_outs, 1);
    drop(cache);
    store.set_down(false);
    let cache = begun().await;
    assert_eq!(access(&cache.tokens(session("s")), "graph").await, None);
    eventually("L2 is told", async || cache.stats().pending_sign_outs == 0).await;
    assert_eq!(stored(store.clone(), "s", "graph").await, None);
    drop(cache);
    // Once: the next session goes on.
    let tokens = self::cache(store.clone()).tokens(session("t"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    let cache = begun().await;
    assert_eq!(cache.stats().pending_sign_outs, 0);
    assert!(access(&cache.tokens(session("t")), "graph").await.is_some());
}

/// Signed out while nothing was known of L2, which then answers.
#[tokio::test]
async fn the_sign_out_of_a_user_holds_in_a_process_that_began_without_l2() {
    let store = TestStore::default();
    let tokens = cache(store.clone()).tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    store.set_down(true);
    let late = cache(store.clone());
    assert_eq!(
        late.sign_out_user("ada").await.unwrap(),
        Durability::Pending
    );
    store.set_down(false);
    for _ in 0..20 {
        assert_eq!(access(&late.tokens(session("s")), "graph").await, None);
        tokio::task::yield_now().await;
    }
}

/// L2 loses everything; the users who are in memory and are linked go on, and what is acknowledged
/// since is there.
#[tokio::test]
async fn a_linked_session_outlives_the_loss_of_everything() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    hears(&cache).await;
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    // What it has done itself is told as well, and compared.
    let told = async || cache.stats().feed_told > 2 && cache.stats().feed_compares > 0;
    eventually("it is told", told).await;
    assert!(access(&tokens, "graph").await.is_some());
    let _: String = server.query("FLUSHALL");
    let tokens = cache.tokens(session("s"));
    tokens.insert("mail", token("m")).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
    let fresh = redis_cache(&server).await.tokens(session("s"));
    assert_eq!(access(&fresh, "mail").await.as_deref(), Some("m"));
    assert_eq!(access(&fresh, "graph").await.as_deref(), Some("t"));
    // And is reached by the user's sign-out.
    let other = redis_cache(&server).await;
    assert_eq!(
        other.sign_out_user("ada").await.unwrap(),
        Durability::Stored
    );
    let fresh = redis_cache(&server).await.tokens(session("s"));
    assert_eq!(access(&fresh, "graph").await, None);
}

/// The clock of the instance that finds the user's record lost is behind.
#[tokio::test]
async fn a_user_can_sign_in_where_the_record_was_begun_by_a_slow_clock() {
    let clock = Clock::manual(Timestamp::now());
    let slow = Clock::manual(Timestamp::from_millis(clock.now().as_millis() - 3_600_000));
    let store = TestStore::default();
    let one = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let other = builder(store.clone()).clock(slow).build().unwrap();
    let tokens = one.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    store.evict(&store.epochs()[1]);
    other.tokens(session("u")).link_user("ada").await.unwrap();
    one.tokens(session("v")).link_user("ada").await.unwrap();
}

/// A session whose user was signed out elsewhere begins anew under the same key.
#[tokio::test]
async fn a_sign_in_right_after_the_user_was_signed_out_elsewhere_is_kept() {
    let store = TestStore::default();
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    let tokens = one.tokens(session("s"));
    tokens.insert("graph", token("old")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    assert!(access(&one.tokens(session("s")), "graph").await.is_some());
    assert_stored(other.sign_out_user("ada").await.unwrap());
    let again = one.tokens(session("s"));
    again.insert("mail", token("new")).await.unwrap();
    again.link_user("ada").await.unwrap();
    assert_stored(again.commit().await.unwrap());
    assert_eq!(
        stored(store.clone(), "s", "mail").await.as_deref(),
        Some("new")
    );
    assert_eq!(stored(store.clone(), "s", "graph").await, None);
}

/// The link cannot be read any more, and a token can.
#[tokio::test]
async fn a_link_that_cannot_be_opened_keeps_nobody_signed_in() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let id = cache.partition_id(&session("s")).await.unwrap();
    let key = format!("ttc:{{{}}}", id.encoded());
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut fields = redis::cmd("HGETALL");
    let fields: Vec<(Vec<u8>, Vec<u8>)> = fields.arg(&key).query(&mut connection).unwrap();
    let is_link = |value: &[u8]| value.windows(6).any(|part| part == b"linked");
    let (field, mut value) = fields
        .into_iter()
        .find(|(_, value)| is_link(value))
        .unwrap();
    let middle = value.len() / 2;
    value[middle] ^= 1;
    let mut damage = redis::cmd("HSET");
    damage
        .arg(&key)
        .arg(field)
        .arg(value)
        .exec(&mut connection)
        .unwrap();
    assert_stored(cache.sign_out_user("ada").await.unwrap());
    let fresh = redis_cache(&server).await.tokens(session("s"));
    assert_eq!(fresh.get("graph").await.unwrap(), Lookup::Unopenable);
    // The next session is another one.
    assert_stored(fresh.sign_out().await.unwrap());
    fresh.insert("graph", token("new")).await.unwrap();
    assert_eq!(access(&fresh, "graph").await.as_deref(), Some("new"));
}

/// Two attempts may take longer than anybody waits.
#[tokio::test]
async fn a_user_is_signed_out_here_within_the_deadline_while_l2_hangs() {
    let store = TestStore::default();
    let it = builder(store.clone()).timeouts(Timeouts::new().attempt(Duration::from_secs(1)));
    let cache = it.build().unwrap();
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.link_user("ada").await.unwrap();
    assert!(access(&cache.tokens(session("s")), "graph").await.is_some());
    store.hang();
    assert_eq!(
        cache.sign_out_user("ada").await.unwrap(),
        Durability::Pending
    );
    assert_eq!(cache.stats().pending_sign_outs, 1);
    assert!(
        !cache
            .tokens(session("s"))
            .get("graph")
            .await
            .unwrap()
            .is_hit()
    );
    store.wake();
}

/// What is under way counts, whoever waits for it.
#[tokio::test]
async fn a_shutdown_tells_of_the_sign_out_of_a_user_that_is_under_way() {
    for journaled in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = TestStore::default();
        let mut it = builder(store.clone());
        if journaled {
            it = it.journal(folder.path().join("journal"));
        }
        let cache = it.build().unwrap();
        cache.tokens(session("s")).link_user("ada").await.unwrap();
        store.hang();
        let ending = cache.clone();
        let waiting = tokio::spawn(async move { ending.sign_out_user("ada").await });
        eventually("it is under way", async || {
            cache.stats().pending_sign_outs == 1
        })
        .await;
        let report = cache.shutdown(Duration::from_millis(10)).await;
        let (lost, kept) = (report.sign_outs_abandoned, report.sign_outs_journaled);
        assert_eq!((lost, kept), (u64::from(!journaled), u64::from(journaled)));
        assert_eq!(waiting.await.unwrap().unwrap(), Durability::Pending);
        store.wake();
    }
}
