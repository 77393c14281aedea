//! `MemcachedStore` on a server that is started anew, that is far away, or that many ask at once.

use std::time::Duration;

use common::memcached::{MemcachedServer, STRICT};
use common::proxy::{Mode, Proxy};
use common::store::{commit_of, load_one};
use common::support::*;
use tower_token_cache::store::{CommitId, PartitionId};
use tower_token_cache::{Durability, MemcachedStore, TokenSet, TokenStore};

fn partition() -> PartitionId {
    PartitionId::for_tests("test", "p")
}

/// The revision of the only partition.
fn revision(server: &MemcachedServer) -> String {
    use std::io::{Read, Write};
    let address = server.url().replace("memcached://", "");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "gets test:{}\r\n", partition().encoded()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"END\r\n") {
        let read = stream.read(&mut buffer).unwrap();
        answer.extend_from_slice(&buffer[..read]);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap();
    let line = String::from_utf8(line.to_vec()).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

/// A change has read its partition; the server is started anew, and counts revisions from the first again; another
/// instance signs the session out; the change is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_from_before_a_restart_is_of_no_use() {
    let mut server = MemcachedServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let one = MemcachedStore::connect(&url).await.unwrap();
    let two = MemcachedStore::connect(&server.url()).await.unwrap();
    let begun = commit_of(&partition(), *b"begun000", 1, &b"token"[..]);
    two.commit(std::slice::from_ref(&begun))
        .await
        .remove(0)
        .unwrap();
    let before = revision(&server);
    // The connection is there.
    load_one(&one, &partition()).await.unwrap();
    proxy.set(Mode::BlackHoleAnswers);
    let asked = server.stat("cmd_get");
    let changing = tokio::spawn(async move {
        let change = commit_of(&partition(), *b"change00", 2, &b"another"[..]);
        one.commit(&[change]).await.remove(0)
    });
    eventually("it has read", async || server.stat("cmd_get") > asked).await;
    // The answer is on its way.
    server.kill();
    server.restart_with(&STRICT);
    let id = partition();
    let cleared = two
        .clear(&id, Some(0), CommitId(*b"sign-out"))
        .await
        .unwrap();
    assert_eq!(cleared.generation, 1);
    assert_eq!(revision(&server), before, "the first of each server");
    proxy.set(Mode::Pass);
    let changed = changing.await.unwrap();
    let loaded = load_one(&two, &partition()).await.unwrap();
    assert_eq!(
        (loaded.generation, loaded.entries.len()),
        (1, 0),
        "signed out; the change: {changed:?}"
    );
}

/// Without a feed an instance cannot know which sessions were signed out elsewhere: it writes none back. A change that
/// is made later begins the session anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_has_lost_is_not_written_back() {
    for how in ["flush_all", "restart"] {
        let mut server = MemcachedServer::start();
        let one = cache(MemcachedStore::connect(&server.url()).await.unwrap());
        let tokens = one.tokens(session("s"));
        let set = TokenSet::from(token("t")).with_refresh_token("r");
        tokens.insert("api", set).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        if how == "restart" {
            server.kill();
            server.restart_with(&STRICT);
        } else {
            server.command("flush_all", &["OK"]);
        }
        tokens.insert("more", token("m")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let two = cache(MemcachedStore::connect(&server.url()).await.unwrap());
        for cache in [one, two] {
            let tokens = cache.tokens(session("s"));
            assert_eq!(access(&tokens, "api").await, None, "{how}");
            assert_eq!(access(&tokens, "more").await.as_deref(), Some("m"), "{how}");
        }
    }
}

/// Each answer comes well within an attempt, and an operation needs several. Redis is here to compare with.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_in_time_is_reached() {
    let mut reached = Vec::new();
    for (name, millis, connected) in [
        ("redis", 90, false),
        ("redis", 130, true),
        ("memcached", 90, false),
        ("memcached", 130, true),
    ] {
        let (redis, memcached) = (RedisServer::start(), MemcachedServer::start());
        let url = match name {
            "redis" => redis.url(),
            _ => memcached.url(),
        };
        let (proxy, url) = Proxy::before(&url).await;
        let one = match name {
            "redis" => cache(tower_token_cache::RedisStore::connect(&url).await.unwrap()),
            _ => cache(MemcachedStore::connect(&url).await.unwrap()),
        };
        let tokens = one.tokens(session("s"));
        if connected {
            tokens.insert("api", token("t")).await.unwrap();
            assert_stored(tokens.commit().await.unwrap());
        }
        proxy.delay(millis);
        let mut stored = false;
        let began = std::time::Instant::now();
        while !stored && began.elapsed() < Duration::from_secs(5) {
            let _ = tokens.insert("api", token("t")).await;
            stored = tokens
                .commit()
                .await
                .is_ok_and(|it| it == Durability::Stored);
        }
        reached.push((name, millis, connected, stored, began.elapsed()));
    }
    assert!(reached.iter().all(|it| it.3), "{reached:#?}");
}

/// Each answer comes well within an attempt. The move is tried three times.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_over_a_long_line_loses_no_session() {
    let mut lost = Vec::new();
    for (millis, clients) in [(20, 0), (20, 40), (45, 0), (60, 0), (80, 0)] {
        let server = MemcachedServer::start();
        let (proxy, url) = Proxy::before(&server.url()).await;
        let one = cache(MemcachedStore::connect(&url).await.unwrap());
        let tokens = one.tokens(session("old"));
        let set = || TokenSet::from(token("t")).with_refresh_token("r");
        tokens.insert("api", set()).await.unwrap();
        for client in 0..clients {
            let client = tokens.client(format!("client {client}")).unwrap();
            client.insert("api", set()).await.unwrap();
        }
        assert_stored(tokens.commit().await.unwrap());
        proxy.delay(millis);
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            let moved = tokens.move_to(session("new")).await;
            outcomes.push(moved.as_ref().err().map(ToString::to_string));
            if moved.is_ok() {
                break;
            }
        }
        proxy.delay(0);
        let two = cache(MemcachedStore::connect(&server.url()).await.unwrap());
        let old = access(&two.tokens(session("old")), "api").await;
        let new = access(&two.tokens(session("new")), "api").await;
        if old.is_none() && new.is_none() {
            lost.push((millis, clients, outcomes));
        }
    }
    assert!(lost.is_empty(), "neither id has the tokens: {lost:?}");
}

/// What is moved has no room beside what the new session has.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_does_not_fit_leaves_the_old_session() {
    let server = MemcachedServer::start();
    let one = cache(MemcachedStore::connect(&server.url()).await.unwrap());
    let large = "x".repeat(60 << 10);
    let fill = async |name: &str| {
        let tokens = one.tokens(session(name));
        tokens.insert("api", token(name)).await.unwrap();
        for number in 0..10 {
            let value = format!("{name}{number}");
            tokens
                .put(value, &large, Duration::from_secs(3600))
                .await
                .unwrap();
        }
        assert_stored(tokens.commit().await.unwrap());
        tokens
    };
    let old = fill("old").await;
    fill("new").await;
    let moved = old.move_to(session("new")).await.map(drop);
    let two = cache(MemcachedStore::connect(&server.url()).await.unwrap());
    let old = two
        .tokens(session("old"))
        .value::<String>("old1")
        .await
        .unwrap();
    let new = two
        .tokens(session("new"))
        .value::<String>("old1")
        .await
        .unwrap();
    assert!(
        old.is_hit() || new.is_hit(),
        "neither has the value; moved: {moved:?}"
    );
}

/// The server answers each time, in 15 ms; but many instances change one partition, and each finds that another was
/// faster.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_many_change_opens_no_breaker() {
    let server = MemcachedServer::start();
    let mut outcomes = Vec::new();
    for instances in [4, 12, 24] {
        let mut proxies = Vec::new();
        let mut caches = Vec::new();
        for _ in 0..instances {
            let (proxy, url) = Proxy::before(&server.url()).await;
            let one = cache(MemcachedStore::connect(&url).await.unwrap());
            let own = one.tokens(session(&format!("own{}", caches.len())));
            own.insert("api", token("t")).await.unwrap();
            assert_stored(own.commit().await.unwrap());
            proxy.delay(15);
            proxies.push(proxy);
            caches.push(one);
        }
        let ends = std::time::Instant::now() + Duration::from_secs(5);
        let work = caches.iter().cloned().enumerate().map(|(number, one)| {
            tokio::spawn(async move {
                let (mut stored, mut pending, mut open) = (0, 0, false);
                while std::time::Instant::now() < ends {
                    let tokens = one.tokens(session("hot"));
                    let _ = tokens.insert(format!("k{number}"), token("t")).await;
                    match tokens.commit().await {
                        Ok(Durability::Stored) => stored += 1,
                        _ => pending += 1,
                    }
                    open |= one.stats().l2_state != tower_token_cache::BreakerState::Closed;
                }
                (stored, pending, open)
            })
        });
        let (mut stored, mut pending, mut open) = (0, 0, 0);
        for done in Vec::from_iter(work) {
            let done = done.await.unwrap();
            stored += done.0;
            pending += done.1;
            open += usize::from(done.2);
        }
        outcomes.push((instances, stored, pending, open));
    }
    assert!(outcomes.iter().all(|it| it.3 == 0), "{outcomes:?}");
}
