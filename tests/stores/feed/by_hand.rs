//! What an operator does to the keys by hand.

use std::time::Duration;

use common::feed::Listener;
use common::redis::RedisServer;
use tower_token_cache::RedisStore;

use super::{NAMESPACE, key, put, user};

#[tokio::test]
async fn what_is_done_by_hand_is_told() {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    for number in 0..4 {
        put(&store, number).await;
    }
    let mut listener = Listener::on(&store, NAMESPACE).await;
    server.query::<()>(&format!("DEL {}", key(0)));
    server.query::<()>(&format!("HSET {} x y", key(1)));
    server.query::<()>(&format!("PEXPIRE {} 1", key(2)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Whoever asks for it finds it expired, and the server looks by itself ten times a second.
    let told = listener.until_now().await;
    let names = [0, 1, 2, 3].map(|number| told.names(&user(number)));
    assert_eq!(names, [true, true, true, false]);
    assert!(!told.everything && !told.lost);
}

/// However all keys are removed: at once, in the background, or by a script.
#[tokio::test]
async fn that_all_is_gone_is_told() {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    for lazily in ["no", "yes"] {
        server.query::<()>(&format!("CONFIG SET lazyfree-lazy-user-flush {lazily}"));
        for all in [
            "FLUSHDB",
            "FLUSHALL",
            "FLUSHDB ASYNC",
            "FLUSHALL ASYNC",
            "FLUSHDB SYNC",
            "EVAL return(redis.call('FLUSHDB','ASYNC')) 0",
            "EVAL return(redis.call('FLUSHALL')) 0",
        ] {
            put(&store, 0).await;
            server.query::<()>(all);
            let told = listener.until_now().await;
            assert!(told.everything && !told.lost, "{all}, lazily: {lazily}");
        }
    }
}

/// Whichever command takes a key away, or puts another in its place.
#[tokio::test]
async fn a_key_that_is_removed_or_replaced_is_told() {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    let (here, there) = (key(0), key(1));
    for (command, names) in [
        (format!("UNLINK {here}"), [true, false]),
        (format!("RENAME {here} {there}"), [true, true]),
        (format!("COPY {here} {there} REPLACE"), [false, true]),
        (format!("MOVE {here} 7"), [true, false]),
        (format!("PEXPIREAT {here} 1"), [true, false]),
        (format!("SET {here} x"), [true, false]),
    ] {
        for number in 0..2 {
            put(&store, number).await;
        }
        listener.until_now().await;
        server.query::<redis::Value>(&command);
        let told = listener.until_now().await;
        assert_eq!(
            [0, 1].map(|number| told.names(&user(number))),
            names,
            "{command}"
        );
        server.query::<u64>(&format!("DEL {here} {there}"));
    }
}
