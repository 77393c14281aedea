//! `RedisStore` and its feed on Redis as operators run it: clusters, sentinels, TLS, users, sockets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::feed::Listener;
use common::store::{commit_of, load_one};
use common::topologies::{Certificates, Cluster, Node, SentinelSet};
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::store::{Commit, EntryId, Origin, Outcome, PartitionId, TokenStore};
use tower_token_cache::{RedisStore, RedisStoreBuilder, StoreError, StoreErrorKind};

/// Users, on all nodes of a cluster.
const USERS: usize = 60;
/// Longer than any failover here takes: the servers are given up after a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the store promises holds. The servers share this machine with other tests, so that
/// answers are waited for longer than by default.
async fn conforms(builder: RedisStoreBuilder) {
    let store = builder.response_timeout(Duration::from_secs(5)).build();
    conformance::all(&Harness::real_time(store.unwrap())).await;
}

/// A store, and what it tells.
struct Hearing {
    store: RedisStore,
    listener: Listener,
}

/// What is written through one of two stores the other tells.
async fn hear_each_other(builders: [RedisStoreBuilder; 2]) -> [Hearing; 2] {
    let [a, b] = builders.map(|builder| builder.build().unwrap());
    let mut hearing = [hear(a).await, hear(b).await];
    let [a, b] = &mut hearing;
    hear_anew(a, b).await;
    hearing
}

async fn hear(store: RedisStore) -> Hearing {
    let listener = Listener::on(&store, "topology").await;
    Hearing { store, listener }
}

/// What either writes from now on, the other tells.
async fn hear_anew(a: &mut Hearing, b: &mut Hearing) {
    hears_of(&a.store, &mut b.listener).await;
    hears_of(&b.store, &mut a.listener).await;
}

async fn hears_of(store: &RedisStore, listener: &mut Listener) {
    put_all(store, 0).await;
    let told = listener.until_now().await;
    let all = (0..USERS).all(|number| told.names(&user(number)));
    assert!(all || told.everything);
}

/// All at once: they mostly wait for lifetimes to end.
#[tokio::test(flavor = "multi_thread")]
async fn every_topology_conforms() {
    tokio::join!(
        a_cluster_conforms(),
        a_sentinel_set_conforms(),
        tls_conforms(),
        users_databases_and_sockets_conform(),
    );
}

async fn a_cluster_conforms() {
    let cluster = Cluster::start().await;
    conforms(RedisStore::builder(cluster.url())).await;
    let busy = |node: &&Node| node.query::<u64>("DBSIZE").unwrap() > 0;
    assert_eq!(cluster.nodes.iter().take(3).filter(busy).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_found_by_any_of_its_nodes() {
    let cluster = Cluster::start().await;
    let port = cluster.nodes[5].port;
    let nobody = common::free_port();
    let url = format!("redis+cluster://127.0.0.1:{nobody},127.0.0.1:{port}/");
    let store = RedisStore::connect(url.clone()).await.unwrap();
    put_all(&store, 0).await;
    let first = format!("redis+cluster://127.0.0.1:{}", cluster.nodes[0].port);
    hear_each_other([url, first].map(RedisStore::builder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_within_a_cluster_can_be_repeated_until_it_is_made() {
    let cluster = Cluster::start().await;
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    put_all(&store, 0).await;
    let [from, to] = [1, 2].map(user);
    let version = load_one(&store, &from).await.unwrap().version;
    let origin = Origin::new(from.clone(), 0, version);
    let moved = commit(2, 1);
    // Its server takes the check, and not the commit.
    let full = &cluster.nodes[master_of(&cluster, &to)];
    full.query::<()>("CONFIG SET maxmemory 1").unwrap();
    for _ in 0..2 {
        let error = store.relocate(&origin, &moved).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");
        let left = load_one(&store, &from).await.unwrap();
        assert_eq!((left.generation, left.entries.len()), (1, 0));
        assert_eq!(load_one(&store, &to).await.unwrap().entries.len(), 1);
    }
    // Another move of the same partition comes too late.
    let other = store.relocate(&origin, &commit(3, 1)).await.unwrap();
    assert_eq!(other, Outcome::Conflict);
    full.query::<()>("CONFIG SET maxmemory 0").unwrap();
    for _ in 0..2 {
        let outcome = store.relocate(&origin, &moved).await.unwrap();
        let made = matches!(outcome, Outcome::Committed { version: 2, .. });
        assert!(made, "{outcome:?}");
    }
    assert_eq!(load_one(&store, &to).await.unwrap().entries.len(), 2);
    assert_eq!(load_one(&store, &from).await.unwrap().generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_fails_over_under_load() {
    let mut cluster = Cluster::start().await;
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    put_all(&store, 0).await;
    cluster.replicated().await;
    // A master that hangs keeps its connections; one that dies closes them.
    let hang = || cluster.nodes[0].hang();
    under_load(&store, 1, hang, || cluster.nodes[3].is_master()).await;
    cluster.nodes[0].wake();
    cluster.replicated().await;
    let (dying, others) = cluster.nodes.split_at_mut(2);
    under_load(&store, 2, || dying[1].kill(), || others[2].is_master()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clusters_masters_that_take_over_are_listened_to() {
    let mut cluster = Cluster::start().await;
    let joined = [1, 5].map(|i| format!("127.0.0.1:{}", cluster.nodes[i].port));
    let [dying, other] = joined;
    let hosts = [format!("{dying},{other}"), other];
    let urls = hosts.map(|hosts| format!("redis+cluster://{hosts}"));
    let [mut a, mut b] = hear_each_other(urls.map(RedisStore::builder)).await;
    cluster.nodes[1].kill();
    a.listener.until_lost().await;
    b.listener.until_lost().await;
    hear_anew(&mut a, &mut b).await;
    // A node that hangs closes nothing. The next one is the dead one.
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    let mut c = hear(store).await;
    cluster.nodes[0].hang();
    c.listener.until_lost().await;
    hear_anew(&mut c, &mut a).await;
}

async fn a_sentinel_set_conforms() {
    let set = SentinelSet::start("s3cret").await;
    let url = format!("redis+sentinel://:s3cret@{}/tokens/1", set.hosts());
    let builder = || RedisStore::builder(&url);
    hear_each_other([builder(), builder()]).await;
    conforms(builder()).await;
    let master = &set.servers[0];
    let server = format!("redis://:s3cret@127.0.0.1:{}/1", master.port);
    assert!(master.query_with::<u64>(&server, "DBSIZE").unwrap() > 0);

    let unknown = format!("redis+sentinel://:s3cret@{}/others", set.hosts());
    let store = RedisStore::connect(unknown).await.unwrap();
    assert_eq!(
        load(&store).await.unwrap_err().kind(),
        StoreErrorKind::Unreachable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_set_fails_over_under_load() {
    let mut set = SentinelSet::start("s3cret").await;
    let url = format!("redis+sentinel://:s3cret@{}/tokens", set.hosts());
    let store = RedisStore::connect(url).await.unwrap();
    let credentials = ":s3cret@";
    put_all(&store, 0).await;
    SentinelSet::replicated(&set.servers, credentials).await;
    // The master lives on as a replica, then its successor dies, and a sentinel with it.
    let [first, second] = [&set.servers[0], &set.servers[1]].map(|node| node.port);
    let SentinelSet { servers, sentinels } = &mut set;
    let names = |sentinel: &Node, port: u16| {
        let ask = "SENTINEL GET-MASTER-ADDR-BY-NAME tokens";
        let place = sentinel.query::<(String, u16)>(ask);
        place.is_ok_and(|(_, named)| named == port)
    };
    let fail_over = || {
        sentinels[0]
            .query::<()>("SENTINEL FAILOVER tokens")
            .unwrap()
    };
    let over = || sentinels.iter().all(|sentinel| names(sentinel, second));
    under_load(&store, 1, fail_over, over).await;
    // Sentinels tell the old master after some ten seconds.
    let url = format!("redis://{credentials}127.0.0.1:{first}");
    let follow = format!("REPLICAOF 127.0.0.1 {second}");
    servers[0].query_with::<()>(&url, &follow).unwrap();
    SentinelSet::replicated(servers, credentials).await;
    let (asked_first, others) = sentinels.split_at_mut(1);
    let die = || {
        asked_first[0].kill();
        servers[1].kill();
    };
    let over = || others.iter().all(|sentinel| names(sentinel, first));
    under_load(&store, 2, die, over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_follow_the_master_that_the_sentinels_name() {
    let mut set = SentinelSet::start("s3cret").await;
    let builder =
        |hosts: &str| RedisStore::builder(format!("redis+sentinel://:s3cret@{hosts}/tokens"));
    let last = format!("127.0.0.1:{}", set.sentinels[2].port);
    let hosts = set.hosts();
    let [mut a, mut b] = hear_each_other([&hosts, &last].map(|hosts| builder(hosts))).await;
    // The old master works on, and takes writes, until it is told after ten seconds.
    let credentials = ":s3cret@";
    SentinelSet::replicated(&set.servers, credentials).await;
    let fail_over = "SENTINEL FAILOVER tokens";
    set.sentinels[0].query::<()>(fail_over).unwrap();
    for hearing in [&mut a, &mut b] {
        hearing.listener.until_lost().await;
    }
    hear_anew(&mut a, &mut b).await;
    // Its successor dies, and a sentinel with it.
    let first = set.servers[0].port;
    let first_url = format!("redis://{credentials}127.0.0.1:{first}");
    let follow = format!("REPLICAOF 127.0.0.1 {}", set.servers[1].port);
    set.servers[0]
        .query_with::<()>(&first_url, &follow)
        .unwrap();
    SentinelSet::replicated(&set.servers, credentials).await;
    set.sentinels[0].kill();
    set.servers[1].kill();
    for hearing in [&mut a, &mut b] {
        hearing.listener.until_lost().await;
    }
    hear_anew(&mut a, &mut b).await;
}

async fn tls_conforms() {
    let made = Certificates::make();
    let file = |name| made.path(name).display().to_string();
    let server = Node::start(&format!(
        "port 0\ntls-port {{port}}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         tls-auth-clients yes",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    ));
    let builder = |host| RedisStore::builder(format!("rediss://{host}:{}", server.port));
    let root = made.read("ca.pem");
    let [certificate, key] = ["client.pem", "client.key"].map(|name| made.read(name));
    let trusting = |host| builder(host).root_certificates(root.clone());

    let known = |host| trusting(host).client_certificate(certificate.clone(), key.clone());
    let wrong_host = known("127.0.0.2");
    let nobody = trusting("127.0.0.1");
    let untrusting = builder("127.0.0.1").client_certificate(certificate.clone(), key.clone());
    for refused in [wrong_host, nobody, untrusting] {
        let store = refused.build().unwrap();
        let error = load(&store).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error:?}");
    }
    let plain = RedisStore::connect(format!("redis://127.0.0.1:{}", server.port)).await;
    load(&plain.unwrap()).await.unwrap_err();

    for (option, builder) in [
        ("root_certificates", builder("h").root_certificates("x")),
        (
            "client_certificate",
            trusting("h").client_certificate(certificate.clone(), "x"),
        ),
        (
            "root_certificates",
            RedisStore::builder("redis://h").root_certificates(root.clone()),
        ),
        (
            "client_certificate",
            RedisStore::builder("redis+cluster://h")
                .client_certificate(certificate.clone(), key.clone()),
        ),
        (
            "sentinel_credentials",
            builder("h").sentinel_credentials("user", "password"),
        ),
    ] {
        let debug = format!("{builder:?}");
        assert!(!debug.contains("rediss"), "{debug}");
        assert_eq!(builder.build().unwrap_err().option(), option);
    }
    conforms(known("localhost")).await;

    hear_each_other([known("localhost"), known("localhost")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_and_sentinels_are_reached_by_tls() {
    let made = Certificates::make();
    let file = |name| made.path(name).display().to_string();
    let tls = format!(
        "tls-port {{port}}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         tls-auth-clients no\ntls-replication yes",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let builder = |url: &str| {
        let store = RedisStore::builder(url).root_certificates(made.read("ca.pem"));
        store.response_timeout(Duration::from_secs(5))
    };
    let trusting = async |url: String| hear_each_other([builder(&url), builder(&url)]).await;
    // A cluster of one; commands of the test's own go to the other port.
    let plain = common::free_port();
    let node = Node::start(&format!(
        "port {plain}\n{tls}\ntls-cluster yes\ncluster-enabled yes"
    ));
    let url = format!("redis://127.0.0.1:{plain}");
    let slots: Vec<_> = (0..16384).map(|slot| slot.to_string()).collect();
    let add = format!("CLUSTER ADDSLOTS {}", slots.join(" "));
    node.query_with::<()>(&url, &add).unwrap();
    trusting(format!("rediss+cluster://127.0.0.1:{}", node.port)).await;
    let keys: usize = node.query_with(&url, "DBSIZE").unwrap();
    assert_eq!(keys, USERS);

    let master = Node::start(&format!("port 0\n{tls}"));
    let sentinel = Node::start_sentinel(&format!(
        "port 0\n{tls}\nrequirepass own\nsentinel monitor tokens 127.0.0.1 {} 1",
        master.port
    ));
    let url = format!("rediss+sentinel://127.0.0.1:{}/tokens", sentinel.port);
    let store = RedisStore::builder(&url).root_certificates(made.read("ca.pem"));
    let error = load(&store.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error:?}");
    let knowing = || builder(&url).sentinel_credentials("", "own");
    hear_each_other([knowing(), knowing()]).await;
}

/// What the store needs, and no more.
const RIGHTS: &str = "~* -@all +ping +time +eval +evalsha +hgetall +hget +hset +hdel +del \
                      +get +set +pttl +pexpire +pexpireat +persist +select \
                      +hello +client|tracking +role";

async fn users_databases_and_sockets_conform() {
    let server = Node::start(&format!(
        "requirepass owner\nunixsocket {{dir}}/socket\nuser tokens on >p@ss:/word {RIGHTS}"
    ));
    let (port, socket) = (server.port, server.path("socket"));
    let socket = socket.display();
    let urls = [
        format!("redis://:owner@127.0.0.1:{port}"),
        format!("redis://tokens:p%40ss%3A%2Fword@127.0.0.1:{port}/3"),
        format!("unix://{socket}?db=4&user=tokens&pass=p%40ss%3A%2Fword"),
        format!("redis+unix://{socket}?db=5&pass=owner"),
    ];
    // Tracking knows no databases.
    let sockets = [&urls[3], &urls[0]].map(|url| RedisStore::builder(url.as_str()));
    hear_each_other(sockets).await;
    let mut tasks = tokio::task::JoinSet::new();
    for url in urls {
        tasks.spawn(async move { conforms(RedisStore::builder(url)).await });
    }
    while let Some(conforms) = tasks.join_next().await {
        conforms.unwrap();
    }
    for (database, used) in [(0, true), (1, false), (3, true), (4, true), (5, true)] {
        let url = format!("redis://:owner@127.0.0.1:{port}/{database}");
        let keys: u64 = server.query_with(&url, "DBSIZE").unwrap();
        assert_eq!(keys > 0, used, "database {database}");
    }
    for wrong in ["", "tokens:wrong@", ":wrong@"] {
        let store = RedisStore::connect(format!("redis://{wrong}127.0.0.1:{port}")).await;
        let error = load(&store.unwrap()).await.unwrap_err();
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
}

async fn load(store: &RedisStore) -> Result<(), StoreError> {
    load_one(store, &user(0)).await.map(drop)
}

fn user(number: usize) -> PartitionId {
    PartitionId::for_tests("topology", &number.to_string())
}

/// Each round is an entry of its own.
fn commit(number: usize, round: u8) -> Commit {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    commit_of(
        &user(number),
        id,
        round,
        format!("{number} in round {round}"),
    )
}

/// Commits for every user in one group; each until it is acknowledged, as the engine does.
async fn put_all(store: &RedisStore, round: u8) -> usize {
    let mut group: Vec<_> = (0..USERS).map(|number| commit(number, round)).collect();
    let (start, mut errors) = (Instant::now(), 0);
    while !group.is_empty() {
        assert!(start.elapsed() < PATIENCE, "{} are not stored", group.len());
        let answers = store.commit(&group).await;
        let mut answers = answers.iter().map(|answer| answer.is_err());
        group.retain(|_| answers.next().unwrap());
        errors += group.len();
        if !group.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    errors
}

/// Lets something happen to the servers between commits. What was replicated before is there
/// afterwards, so is all that is acknowledged once it is `over` and known, and nobody notices any
/// more. What is acknowledged in between Redis may lose: it replicates after its answer, and a
/// master that was replaced takes writes until it is told.
async fn under_load(
    store: &RedisStore,
    round: u8,
    happens: impl FnOnce(),
    over: impl Fn() -> bool,
) {
    let meantime = 100 + round;
    put_all(store, meantime).await;
    happens();
    let start = Instant::now();
    let mut quiet = None;
    while quiet.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(2)) {
        let errors = put_all(store, meantime).await;
        match errors {
            0 if quiet.is_some() || over() => quiet = quiet.or(Some(Instant::now())),
            _ => quiet = None,
        }
        assert!(start.elapsed() < PATIENCE, "writes have not resumed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(put_all(store, round).await, 0, "writes have resumed");
    for number in 0..USERS {
        let loaded = load_one(store, &user(number)).await.unwrap();
        for round in 0..=round {
            let entry = EntryId::from([round; 16]);
            let mut entries = loaded.entries.iter();
            let found = entries.any(|stored| stored.entry == entry);
            assert!(found, "user {number} has lost round {round}");
        }
    }
}

/// The node that keeps this partition, by the client's own idea of slots.
fn master_of(cluster: &Cluster, id: &PartitionId) -> usize {
    let key = format!("{}:{{{}}}", id.namespace(), id.encoded());
    let slot: usize = cluster.nodes[0]
        .query(&format!("CLUSTER KEYSLOT {key}"))
        .unwrap();
    (0..3).find(|i| slot < 16384 * (i + 1) / 3).unwrap()
}
