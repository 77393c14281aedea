//! What the stores tell of what changes in them, as operators run them: what is done by hand, by the server,
//! or while it fails over; and what a client without rights can do to it.

mod by_hand;

use std::time::Duration;

use common::feed::Listener;
use common::proxy::Proxy;
use common::redis::RedisServer;
use common::store::commit_of;
use common::topologies::{Cluster, Node, SentinelSet};
use tower_token_cache::RedisStore;
use tower_token_cache::store::{Commit, Outcome, PartitionId, TokenStore};

const NAMESPACE: &str = "test";

fn user(number: usize) -> PartitionId {
    PartitionId::for_tests(NAMESPACE, &number.to_string())
}

fn commit(number: usize) -> Commit {
    commit_of(&user(number), rand(), 1, vec![1; 100])
}

fn rand() -> [u8; 8] {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}

async fn put(store: &RedisStore, number: usize) {
    let outcome = store.commit(&[commit(number)]).await.remove(0).unwrap();
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
}

fn key(number: usize) -> String {
    format!("{NAMESPACE}:{{{}}}", user(number).encoded())
}

#[tokio::test]
async fn what_is_evicted_is_told() {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    put(&store, 0).await;
    let mut listener = Listener::on(&store, NAMESPACE).await;
    server.query::<()>("CONFIG SET maxmemory-policy allkeys-lru");
    server.query::<()>("CONFIG SET maxmemory 1");
    // Each command evicts, before it is refused.
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for _ in 0..3 {
        let _ = redis::cmd("SET")
            .arg("other")
            .arg("x")
            .exec(&mut connection);
    }
    assert!(listener.until_now().await.names(&user(0)));
}

/// Tracking knows no databases: what is told of another one makes us ask, and that is all.
#[tokio::test]
async fn what_happens_in_another_database_is_a_hint_at_most() {
    let server = RedisServer::start();
    let [here, there] = ["0", "1"].map(|number| format!("{}/{number}", server.url()));
    let here = RedisStore::connect(here).await.unwrap();
    let there = RedisStore::connect(there).await.unwrap();
    put(&here, 0).await;
    let mut listener = Listener::on(&here, NAMESPACE).await;
    put(&there, 0).await;
    let told = listener.until_now().await;
    assert!(!told.everything && !told.lost);
    let loaded = here.load(&[user(0)]).await.remove(0).unwrap();
    assert_eq!((loaded.generation, loaded.version), (0, 1));
}

/// A server becomes a replica, the name leads to the one that has taken over, and open connections stay.
#[tokio::test]
async fn a_failover_behind_one_name_is_noticed() {
    let (old, new) = (Node::start(""), Node::start(""));
    let address = |node: &Node| format!("127.0.0.1:{}", node.port).parse().unwrap();
    new.query::<()>(&format!("REPLICAOF 127.0.0.1 {}", old.port))
        .unwrap();
    common::eventually("the replica is in step", async || new.is_in_step()).await;
    let name = Proxy::to(address(&old)).await;
    let store = RedisStore::connect(format!("redis://{}", name.address()));
    let store = store.await.unwrap();
    put(&store, 0).await;
    let mut listener = Listener::on(&store, NAMESPACE).await;
    name.lead_to(address(&new));
    new.query::<()>("REPLICAOF NO ONE").unwrap();
    old.query::<()>(&format!("REPLICAOF 127.0.0.1 {}", new.port))
        .unwrap();
    listener.begins_again().await;
    // Another instance, which comes by the name.
    let other = RedisStore::connect(format!("redis://{}", name.address()));
    put(&other.await.unwrap(), 0).await;
    assert!(listener.until_now().await.names(&user(0)));
}

/// The same where the old one stays a master: commands have gone to the new one, and the feed follows.
#[tokio::test]
async fn a_name_that_leads_elsewhere_is_noticed_although_the_old_server_stays_a_master() {
    let (old, new) = (Node::start(""), Node::start(""));
    let address = |node: &Node| format!("127.0.0.1:{}", node.port).parse().unwrap();
    let name = Proxy::to(address(&old)).await;
    let store = RedisStore::connect(format!("redis://{}", name.address()));
    let store = store.await.unwrap();
    put(&store, 0).await;
    let mut listener = Listener::on(&store, NAMESPACE).await;
    name.lead_to(address(&new));
    // All connections end but the one that tells.
    let clients: String = old.query("CLIENT LIST").unwrap();
    for client in clients.lines() {
        let field = |name: &str| client.split(' ').find_map(|field| field.strip_prefix(name));
        if !field("flags=").unwrap().contains('t') {
            let _ = old.query::<u64>(&format!("CLIENT KILL ID {}", field("id=").unwrap()));
        }
    }
    put(&store, 1).await;
    assert_eq!(
        new.query::<u64>("DBSIZE").unwrap(),
        1,
        "it goes to the new one"
    );
    listener.begins_again().await;
    put(&store, 2).await;
    assert!(listener.until_now().await.names(&user(2)));
}

#[tokio::test]
async fn a_master_that_sentinels_have_replaced_is_left_although_it_says_it_is_one() {
    let (old, new) = (Node::start(""), Node::start(""));
    let monitor = |node: &Node| format!("monitor tokens 127.0.0.1 {} 1", node.port);
    let sentinel = Node::start_sentinel(&format!("sentinel {}", monitor(&old)));
    let url = format!("redis+sentinel://127.0.0.1:{}/tokens", sentinel.port);
    let store = RedisStore::connect(url).await.unwrap();
    put(&store, 0).await;
    let mut listener = Listener::on(&store, NAMESPACE).await;
    sentinel.query::<()>("SENTINEL REMOVE tokens").unwrap();
    sentinel
        .query::<()>(&format!("SENTINEL {}", monitor(&new)))
        .unwrap();
    listener.begins_again().await;
    put(&store, 1).await;
    assert!(listener.until_now().await.names(&user(1)));
}

/// One master of a cluster that knows other masters than the rest: it may be the one that is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn masters_of_a_cluster_that_do_not_agree_prove_nothing() {
    let cluster = Cluster::start().await;
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    for forgetful in 0..3 {
        let node = &cluster.nodes[forgetful];
        let slots = cluster.slots_of(&cluster.nodes[(forgetful + 1) % 3]);
        let slots: Vec<_> = slots.iter().map(ToString::to_string).collect();
        let forget = format!("CLUSTER DELSLOTS {}", slots.join(" "));
        // The others remind it within a second.
        let forgets = async {
            loop {
                let _ = node.query::<()>(&forget);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = forgets => {}
            _ = listener.until_lost() => {}
        }
        common::eventually("all nodes agree", async || cluster.is_agreed()).await;
        assert!(listener.until_now().await.everything);
    }
}

/// What takes the command and swallows what is told, as a proxy between may.
#[tokio::test]
async fn a_server_that_only_seems_to_tell_proves_nothing() {
    let server = RedisServer::start();
    let upstream = server.url().replace("redis://", "");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&upstream).await.unwrap();
            tokio::spawn(swallow(client, server));
        }
    });
    let store = RedisStore::connect(url).await.unwrap();
    put(&store, 0).await;
    let mut feed = Listener::silent(&store, NAMESPACE);
    feed.proves_nothing(Duration::from_secs(3)).await;
}

async fn swallow(client: tokio::net::TcpStream, server: tokio::net::TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let answers = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            // To the end of what came at once: what is told comes after what is answered.
            let told = bytes[..read].windows(2).position(|it| it == b">2");
            let _ = to_client.write_all(&bytes[..told.unwrap_or(read)]).await;
        }
    };
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = answers => {}
    }
}

#[tokio::test]
async fn a_server_that_hangs_or_is_cut_off_proves_nothing() {
    let server = RedisServer::start();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let store = RedisStore::connect(url).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    server.hang();
    listener.until_lost().await;
    listener.proves_nothing(Duration::from_millis(500)).await;
    server.wake();
    assert!(listener.until_now().await.everything);
    // As behind a router that has forgotten the connection.
    proxy.strand();
    listener.begins_again().await;
    proxy.reset().await;
    listener.begins_again().await;
}

/// Whoever may publish, or write elsewhere, has no say.
#[tokio::test]
async fn messages_of_others_are_not_heard() {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    let digest = user(0).encoded();
    for channel in ["__redis__:invalidate", "test:invalidate", "test:{"] {
        server.query::<u64>(&format!("PUBLISH {channel} {}", key(0)));
    }
    for foreign in [
        format!("test:x{{{digest}}}"),
        format!("other:{{{digest}}}"),
        format!("test:{{{digest}}}:x"),
        "test:{}".to_owned(),
        format!("test:{{{}}}", "A".repeat(10_000)),
    ] {
        server.query::<()>(&format!("SET {foreign} 1"));
    }
    let told = listener.until_now().await;
    assert!(told.changed.is_empty() && !told.everything, "{told:?}");
}

/// More than a listener has room for at once is told as a whole.
#[tokio::test]
async fn floods_are_told_and_bounded() {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for turn in 0..200 {
        let mut pipeline = redis::pipe();
        for number in 0..100 {
            pipeline.hset(key(turn * 100 + number), "x", "y").ignore();
        }
        pipeline.exec(&mut connection).unwrap();
    }
    let told = listener.until_now().await;
    let known: std::collections::HashSet<_> = told.changed.iter().collect();
    let all = (0..20_000).all(|number| known.contains(user(number).digest()));
    assert!(told.everything || all);
}

#[tokio::test]
async fn without_the_right_nothing_is_proven_and_the_rest_works() {
    let server = RedisServer::start();
    let rights = "on nopass ~test:* +hgetall +time +evalsha +eval +hget +hset +hdel +del +get +set +pttl \
                  +pexpire +pexpireat +persist +ping";
    server.query::<()>(&format!("ACL SETUSER plain {rights}"));
    let url = server.url().replace("redis://", "redis://plain:x@");
    let store = RedisStore::connect(url.clone()).await.unwrap();
    let mut feed = Listener::silent(&store, NAMESPACE);
    put(&store, 0).await;
    feed.proves_nothing(Duration::from_secs(1)).await;
    server.query::<()>("ACL SETUSER plain +hello +client|tracking +role");
    let store = RedisStore::connect(url).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    put(&store, 0).await;
    assert!(listener.until_now().await.names(&user(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_masters_of_a_cluster_tell_also_after_a_failover_and_a_move() {
    let cluster = Cluster::start().await;
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    for number in 0..30 {
        put(&store, number).await;
    }
    let told = listener.until_now().await;
    assert!((0..30).all(|number| told.names(&user(number))));

    // A slot moves, with what is in it.
    let slot = cluster.slot_of(&key(0));
    let masters = &cluster.nodes[..3];
    let has = |node: &&Node| cluster.slots_of(node).contains(&slot);
    let from = masters.iter().find(has).unwrap();
    let to = masters.iter().find(|node| !has(node)).unwrap();
    cluster.begin_move(slot, from, to).unwrap();
    while cluster.move_keys((slot, 100), from, to).unwrap() > 0 {}
    cluster.end_move(slot, from, to).unwrap();
    listener.until_now().await;
    put(&store, 0).await;
    assert!(listener.until_now().await.names(&user(0)));

    // A replica takes over.
    common::eventually("all nodes agree", async || cluster.is_agreed()).await;
    cluster.replicated().await;
    cluster.nodes[3].query::<()>("CLUSTER FAILOVER").unwrap();
    listener.begins_again().await;
    for number in 0..30 {
        put(&store, number).await;
    }
    let told = listener.until_now().await;
    assert!(told.everything || (0..30).all(|number| told.names(&user(number))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_that_the_sentinels_name_tells() {
    let sentinels = SentinelSet::start("s3cret").await;
    let url = format!("redis+sentinel://:s3cret@{}/tokens", sentinels.hosts());
    let store = RedisStore::connect(url).await.unwrap();
    let mut listener = Listener::on(&store, NAMESPACE).await;
    put(&store, 0).await;
    assert!(listener.until_now().await.names(&user(0)));
    sentinels.sentinels[0]
        .query::<()>("SENTINEL FAILOVER tokens")
        .unwrap();
    listener.begins_again().await;
    put(&store, 0).await;
    assert!(listener.until_now().await.names(&user(0)));
}
