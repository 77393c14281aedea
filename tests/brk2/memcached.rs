//! `MemcachedStore` on real servers.

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

/// CasStore: "Equal revisions of a key stand for equal bytes." README: "Once `sign_out()` returns, no request, write or
/// read that began before it can bring a token back, on any instance." A change has read its partition; the server is
/// started anew, and numbers revisions from the first again; another instance signs the session out; the change is
/// written.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_of_an_earlier_server_is_no_revision() {
    let mut server = MemcachedServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let one = MemcachedStore::connect(&url).await.unwrap();
    let two = MemcachedStore::connect(&server.url()).await.unwrap();
    let begun = commit_of(&partition(), *b"begun000", 1, &b"token"[..]);
    two.commit(std::slice::from_ref(&begun)).await.remove(0).unwrap();
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
    let cleared = two.clear(&id, Some(0), CommitId(*b"sign-out")).await.unwrap();
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

/// MemcachedStore: "A restart loses everything, sign-outs included. Instances write back what they have in memory, except
/// for sessions that they know to be signed out." By hand and by a restart; and what is `Stored` is stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_has_lost_is_written_back() {
    let mut wrong = Vec::new();
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
            // What is flushed is of a second that is over.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        let again = tokens.insert("more", token("m")).await;
        let committed = tokens.commit().await;
        let two = cache(MemcachedStore::connect(&server.url()).await.unwrap());
        let seen = (
            access(&two.tokens(session("s")), "api").await,
            access(&two.tokens(session("s")), "more").await,
        );
        let here = access(&one.tokens(session("s")), "api").await;
        let stats = one.stats();
        if seen.0.is_none() || seen.1.is_none() {
            let lost = (stats.signed_out_changes, stats.recovered_changes);
            wrong.push(format!(
                "{how}: {again:?} {committed:?}, elsewhere {seen:?}, here {here:?}, signed out and recovered {lost:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Guarantee 13: "L2 may be far away and shared"; README: "250 ms an attempt". Each answer takes 90 ms. Redis is here to
/// compare with.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_in_time_is_reached() {
    let mut reached = Vec::new();
    for name in ["redis", "memcached"] {
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
        proxy.delay(90);
        let tokens = one.tokens(session("s"));
        let mut stored = false;
        let began = std::time::Instant::now();
        while !stored && began.elapsed() < Duration::from_secs(8) {
            let _ = tokens.insert("api", token("t")).await;
            stored = tokens.commit().await.is_ok_and(|it| it == Durability::Stored);
        }
        reached.push((name, stored, began.elapsed(), proxy.accepted()));
    }
    println!("{reached:?}");
    assert!(reached.iter().all(|(_, stored, ..)| *stored), "{reached:?}");
}
