//! The playgrounds from outside: real processes, one HTTP contract, every store.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use common::eventually;
use common::leaks::{Canary, redis_contents};
use common::playground::{PLAYGROUNDS, Playground, binary};
use common::provider::{CLIENT_ID, CLIENT_SECRET, Provider};
use common::redis::RedisServer;
use common::topologies::Cluster;
use rustix::process::Signal;
use serde_json::{Value, json};

async fn the_contract_holds(example: &str, store: &str) {
    let server = Playground::start(example, &["--store", store]);
    // Keys: the header, else the cookie, else 401.
    assert_eq!(server.send("GET", "/tokens/a", &[], "").await.status, 401);
    assert_eq!(server.put("s", "/tokens/a", "first").await, Some(204));
    let cookie = server
        .send("GET", "/tokens/a", &[("cookie", "sid=s")], "")
        .await;
    assert_eq!(cookie.status, 200);
    assert_eq!(cookie.body["access_token"], "first");
    assert_eq!(cookie.body["refresh_token"], "r");
    let both = [("x-session", "other"), ("cookie", "sid=s")];
    assert_eq!(server.send("GET", "/tokens/a", &both, "").await.status, 404);
    let long = "x".repeat(2000);
    assert_eq!(server.get(&long, "/tokens/a").await.status, 400);

    // Levels and names.
    let absent = server.get("s", "/tokens/b").await;
    assert_eq!(
        (absent.status, absent.level.as_deref()),
        (404, Some("none"))
    );
    assert_eq!(
        server.get("s", "/tokens/a").await.level.as_deref(),
        Some("l1")
    );
    assert_eq!(server.put("s", "/tokens/b", "second").await, Some(204));
    assert_eq!(server.get("s", "/tokens").await.body, json!(["a", "b"]));
    assert_eq!(server.delete("s", "/tokens/a").await, 204);
    assert_eq!(server.get("s", "/tokens/a").await.status, 404);

    // Whatever happens to the request, the change is kept.
    assert_eq!(
        server.put("t", "/tokens/c?status=502", "kept-1").await,
        Some(502)
    );
    let panicked = server.put("t", "/tokens/d?panic=1", "kept-2").await;
    assert!(matches!(panicked, None | Some(500)));
    assert_eq!(
        server.put("t", "/tokens/e?stream=1", "kept-3").await,
        Some(200)
    );
    let held = server.put("t", "/tokens/f?hold_ms=60000", "kept-4");
    let hang_up = tokio::time::timeout(Duration::from_millis(300), held).await;
    assert!(hang_up.is_err(), "the client has gone");
    for (name, token) in [
        ("c", "kept-1"),
        ("d", "kept-2"),
        ("e", "kept-3"),
        ("f", "kept-4"),
    ] {
        let answer = server.get("t", &format!("/tokens/{name}")).await;
        assert_eq!(answer.body["access_token"], token);
    }
    eventually("everything is flushed", async || {
        server.status("pending_changes").await == 0
    })
    .await;

    // Sign-out, bad bodies, counters, the drain.
    assert_eq!(server.delete("t", "/tokens").await, 204);
    assert_eq!(server.get("t", "/tokens").await.body, json!([]));
    for body in ["", "{}", "{\"access_token\":7}", "nonsense"] {
        assert_eq!(
            server
                .send("PUT", "/tokens/a", &[("x-session", "s")], body)
                .await
                .status,
            400
        );
    }
    for counter in [
        "l1_entries",
        "l1_bytes",
        "l1_hits",
        "l1_misses",
        "l2_reads",
        "l2_commits",
        "l2_errors",
        "flushed_changes",
        "unopenable",
        "signed_out_changes",
        "superseded_changes",
        "recovered_changes",
        "abandoned_changes",
        "acquisitions",
        "failed_acquisitions",
    ] {
        server.status(counter).await;
    }
    let last = server.terminate();
    assert!(
        last.ends_with("abandoned=0\n") && last.starts_with("drained flushed="),
        "{last:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_on_every_store() {
    let folder = tempfile::tempdir().unwrap();
    for example in PLAYGROUNDS {
        the_contract_holds(example, "memory").await;
        let file = folder.path().join(example);
        the_contract_holds(example, &format!("sqlite:{}", file.display())).await;
        let redis = RedisServer::start();
        the_contract_holds(example, &redis.url()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_survive_a_restart_and_are_shared_between_processes() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("tokens").display());
    let redis = RedisServer::start();
    for store in [file, redis.url()] {
        let first = Playground::start(PLAYGROUNDS[0], &["--store", &store]);
        assert_eq!(first.put("s", "/tokens/a", "kept").await, Some(204));
        let second = Playground::start(PLAYGROUNDS[1], &["--store", &store]);
        eventually("the other process has it", async || {
            second.get("s", "/tokens/a").await.level.as_deref() == Some("l2")
        })
        .await;
        first.terminate();
        second.terminate();
        let third = Playground::start(PLAYGROUNDS[0], &["--store", &store]);
        let answer = third.get("s", "/tokens/a").await;
        assert_eq!(answer.body["access_token"], "kept");
        assert_eq!(answer.level.as_deref(), Some("l2"));
    }
}

/// Whether an answer is a miss because there is something that cannot be read.
fn is_unopenable(answer: &common::playground::Answer) -> bool {
    (answer.status, answer.level.as_deref()) == (404, Some("none"))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_nothing_is_stored_in_plain() {
    let folder = tempfile::tempdir().unwrap();
    let dir = |name: &str| folder.path().join(name).display().to_string();
    let (keys, others) = (dir("keys"), dir("others"));
    let secret = "canary-playground-canary-playground";
    let canary = Canary::new("the token", secret);
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let store = redis.url();
        let options = ["--store", &store, "--encrypt", &keys];
        let plain = Playground::start(example, &options[..2]);
        plain.put("plain", "/tokens/plain", secret).await;
        eventually("stored", async || canary.is_in(&redis_contents(&redis))).await;
        plain.terminate();
        redis.query::<()>("FLUSHALL");

        let first = Playground::start(example, &options);
        let session = "canary-session-canary-session";
        assert_eq!(
            first.put(session, "/tokens/canary-name", secret).await,
            Some(204)
        );
        assert!(first.terminate().ends_with("abandoned=0\n"));
        let contents = redis_contents(&redis);
        assert!(contents.len() > 200);
        canary.assert_not_in("Redis", &contents);
        Canary::new("the session", session).assert_not_in("Redis", &contents);
        Canary::new("the name", "canary-name").assert_not_in("Redis", &contents);

        // The keys are in the folder: the next process opens it.
        let second = Playground::start(example, &options);
        let answer = second.get(session, "/tokens/canary-name").await;
        assert_eq!(answer.body["access_token"], secret);
        assert_eq!(second.status("unopenable").await, 0);

        // Another ring names records otherwise: there is nothing for it.
        let stranger = Playground::start(example, &["--store", &redis.url(), "--encrypt", &others]);
        let answer = stranger.get(session, "/tokens/canary-name").await;
        assert_eq!(answer.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_wrong_key_cannot_open_is_a_counted_miss() {
    const KEYS: [&str; 2] = [
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
    ];
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let start = |option: &[&str], variable: &str, keys: &str| {
            let store = redis.url();
            let options = [&["--store", &store], option].concat();
            Playground::start_with(example, &options, &[(variable, keys)])
        };
        let names = KEYS[0];
        let first = start(
            &["--encrypt-env"],
            "TTC_KEYS",
            &format!("{},names={names}", KEYS[0]),
        );
        assert_eq!(first.put("s", "/tokens/a", "t").await, Some(204));
        first.terminate();

        // The same names, and another key.
        let other = format!("{},names={names}", KEYS[1]);
        let stranger = start(&["--encrypt-env", "MY_KEYS"], "MY_KEYS", &other);
        for _ in 0..3 {
            let answer = stranger.get("s", "/tokens/a").await;
            assert!(is_unopenable(&answer), "{answer:?}");
        }
        let status = stranger.send("GET", "/status", &[], "").await.body;
        assert!(
            status["unopenable_reasons"]["unknown_key"]
                .as_u64()
                .unwrap()
                >= 1
        );
        assert_eq!(status["unopenable_reasons"]["tampered"], 0);
        assert_eq!(status["unopenable_reasons"]["plaintext"], 0);
        assert_eq!(status["accepted_plaintext"], 0);
        assert_eq!(stranger.get("s", "/tokens").await.status, 200);
        // The next sign-in replaces it.
        assert_eq!(stranger.put("s", "/tokens/a", "new").await, Some(204));
        assert_eq!(stranger.get("s", "/tokens/a").await.status, 200);
        stranger.terminate();

        let both = format!("{},{},names={names}", KEYS[0], KEYS[1]);
        let rolled = start(&["--encrypt-env=MY_KEYS"], "MY_KEYS", &both);
        let answer = rolled.get("s", "/tokens/a").await;
        assert_eq!(answer.body["access_token"], "new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_hung_policies_differ_and_nothing_is_lost() {
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let server = Playground::start(example, &["--store", &redis.url()]);
        assert_eq!(server.put("known", "/tokens/a", "t").await, Some(204));
        eventually("flushed", async || {
            server.status("pending_changes").await == 0
        })
        .await;
        redis.hang();
        let known = server.get("known", "/tokens/a").await;
        assert_eq!((known.status, known.level.as_deref()), (200, Some("l1")));
        let unknown = server.get("unknown", "/tokens/a").await;
        assert_eq!(
            (unknown.status, unknown.level.as_deref()),
            (404, Some("unavailable"))
        );
        let strict = [("x-session", "unknown"), ("x-failure-policy", "strict")];
        assert_eq!(
            server.send("GET", "/tokens/a", &strict, "").await.status,
            503
        );
        assert_eq!(server.put("known", "/tokens/b", "during").await, Some(204));
        redis.wake();
        eventually("replayed", async || {
            server.status("pending_changes").await == 0
        })
        .await;
        let fresh = Playground::start(example, &["--store", &redis.url()]);
        let answer = fresh.get("known", "/tokens/b").await;
        assert_eq!(answer.body["access_token"], "during");
    }
}

/// A server with changes that wait, because its Redis hangs.
async fn full_of_changes(example: &str) -> (RedisServer, Playground) {
    let redis = RedisServer::start();
    let server = Playground::start(example, &["--store", &redis.url()]);
    server.put("warm", "/tokens/a", "t").await;
    redis.hang();
    for number in 0..20 {
        let session = number.to_string();
        assert_eq!(server.put(&session, "/tokens/a", "t").await, Some(204));
    }
    (redis, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_what_waits() {
    for example in PLAYGROUNDS {
        let (redis, server) = full_of_changes(example).await;
        redis.wake();
        let last = server.terminate();
        assert!(last.ends_with("abandoned=0\n"), "{last:?}");
        let fresh = Playground::start(example, &["--store", &redis.url()]);
        for number in 0..20 {
            assert_eq!(
                fresh.get(&number.to_string(), "/tokens/a").await.status,
                200
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_a_full_queue_ends_within_the_deadline() {
    for example in PLAYGROUNDS {
        let (_redis, server) = full_of_changes(example).await;
        let asked = Instant::now();
        let last = server.terminate();
        let is_told = last.contains("abandoned=") && !last.contains("abandoned=0\n");
        assert!(is_told, "{example}: {last:?}");
        // The deadline of the drain; idle connections are closed at once.
        assert!(asked.elapsed() < Duration::from_secs(13), "{last}");
    }
}

/// Users go on changing while it stops, and Redis stands still when it is told to: what was accepted
/// is in Redis afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing_that_was_accepted() {
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let log = tempfile::NamedTempFile::new().unwrap();
        let options = ["--store", &redis.url()];
        let server = Playground::start_logging(example, &options, log.reopen().unwrap());
        server.put("warm", "/tokens/a", "t").await;
        let accepted = std::sync::Mutex::new(Vec::new());
        let load = async |worker: usize| {
            for number in 0.. {
                let session = format!("{worker}-{number}");
                match server.put(&session, "/tokens/a", "t").await {
                    Some(204) => accepted.lock().unwrap().push(session),
                    // It takes no more.
                    _ => return,
                }
            }
        };
        let count = || accepted.lock().unwrap().len();
        let stop = async {
            eventually("it is under load", async || count() > 200).await;
            redis.hang();
            let before = count();
            eventually("changes wait", async || count() > before + 50).await;
            server.ask_to_stop(Signal::TERM);
            eventually("it takes no more connections", async || {
                TcpStream::connect(server.address()).is_err()
            })
            .await;
            let logged = || std::fs::read_to_string(log.path()).unwrap();
            eventually("the drain begins", async || logged().contains("draining")).await;
            redis.wake();
        };
        tokio::join!(stop, futures_util::future::join_all((0..8).map(load)));
        let (code, last) = server.ended();
        assert_eq!(code, Some(0));
        assert!(last.ends_with("abandoned=0\n"), "{last:?}");
        let flushed = last.trim().strip_prefix("drained flushed=").unwrap();
        let flushed = flushed.split(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(flushed >= 50, "{last:?}");
        let fresh = Playground::start(example, &["--store", &redis.url()]);
        for session in accepted.into_inner().unwrap() {
            let answer = fresh.get(&session, "/tokens/a").await;
            assert_eq!(answer.status, 200, "{session}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for example in PLAYGROUNDS {
        for (first, second, code) in [
            (Signal::TERM, Signal::TERM, 143),
            (Signal::INT, Signal::INT, 130),
            (Signal::TERM, Signal::INT, 130),
        ] {
            let redis = RedisServer::start();
            let server = Playground::start(example, &["--store", &redis.url()]);
            server.put("warm", "/tokens/a", "t").await;
            redis.hang();
            assert_eq!(server.put("s", "/tokens/a", "t").await, Some(204));
            server.ask_to_stop(first);
            eventually("it takes no more connections", async || {
                TcpStream::connect(server.address()).is_err()
            })
            .await;
            let asked = Instant::now();
            server.ask_to_stop(second);
            let (ended, rest) = server.ended();
            assert_eq!((ended, rest.as_str()), (Some(code), ""));
            assert!(asked.elapsed() < Duration::from_secs(3));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_an_outage() {
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let server = Playground::start(example, &["--store", &redis.url()]);
        let is = async |member: &str, value: Value| {
            eventually(&format!("{member} is {value}"), async || {
                server.try_status().await.unwrap()[member] == value
            })
            .await;
        };
        is("l2_state", json!("closed")).await;
        is("feed_alive", json!(true)).await;
        redis.hang();
        for number in 0..5 {
            server.get(&format!("unknown-{number}"), "/tokens/a").await;
        }
        is("l2_state", json!("open")).await;
        is("l2_state", json!("half_open")).await;
        is("feed_alive", json!(false)).await;
        // It is looked at once a second, and says nothing.
        is("staleness_bound_ms", Value::Null).await;
        redis.wake();
        is("feed_alive", json!(true)).await;
        server.put("s", "/tokens/a", "t").await;
        is("l2_state", json!("closed")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_signed_out_everywhere() {
    let redis = RedisServer::start();
    let processes = PLAYGROUNDS.map(|name| Playground::start(name, &["--store", &redis.url()]));
    for (own, other) in [(0, 1), (1, 0)] {
        let [own, other] = [&processes[own], &processes[other]];
        let body = json!({"access_token": "t", "expires_in": 3600}).to_string();
        for (session, user) in [("a", "ada"), ("b", "ada"), ("c", "bob")] {
            let headers = [("x-session", session), ("x-user", user)];
            let headers = [&headers[..], &[("x-write-mode", "before")]].concat();
            let put = own.send("PUT", "/tokens/t", &headers, &body).await;
            assert_eq!(put.status, 204);
            eventually("the other process has heard of it", async || {
                other.get(session, "/tokens/t").await.status == 200
            })
            .await;
        }
        let ada = other.send("GET", "/sessions/ada", &[], "").await;
        assert_eq!((ada.status, &ada.body), (200, &json!({"sessions": 2})));
        let gone = other.send("DELETE", "/sessions/ada", &[], "").await;
        assert_eq!(gone.status, 204);
        for session in ["a", "b"] {
            // The process that has signed it out knows at once.
            assert_eq!(other.get(session, "/tokens/t").await.status, 404);
            eventually("the other process has heard of it", async || {
                own.get(session, "/tokens/t").await.status == 404
            })
            .await;
        }
        assert_eq!(own.get("c", "/tokens/t").await.status, 200);
        let ada = own.send("GET", "/sessions/ada", &[], "").await;
        assert_eq!(ada.body, json!({"sessions": 0}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_tell_what_changes() {
    let redis = RedisServer::start();
    let nodes = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}", folder.path().join("tokens.db").display());
    let nowhere = "redis://127.0.0.1:1";
    for example in PLAYGROUNDS {
        for (store, alive) in [
            ("memory", Some(true)),
            (&sqlite, Some(true)),
            (&redis.url(), Some(true)),
            (&nodes.url(), Some(true)),
            (nowhere, Some(false)),
            ("cookie", None),
        ] {
            let server = Playground::start(example, &["--store", store]);
            eventually("it is told what changes", async || {
                let status = server.try_status().await.unwrap();
                status["feed_alive"] == json!(alive)
            })
            .await;
            let bound = &server.try_status().await.unwrap()["staleness_bound_ms"];
            assert!(bound.as_u64().is_some_and(|bound| bound <= 60_000));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_other_process_at_once() {
    let redis = RedisServer::start();
    let processes = PLAYGROUNDS.map(|name| Playground::start(name, &["--store", &redis.url()]));
    for server in &processes {
        eventually("the channel is up", async || {
            server.try_status().await.unwrap()["feed_alive"] == json!(true)
        })
        .await;
    }
    let [first, second] = &processes;
    for number in 0..10 {
        let value = number.to_string();
        first.put("s", "/tokens/a", &value).await;
        // Without a backplane it would take ten seconds.
        eventually("the other has heard of it", async || {
            second.get("s", "/tokens/a").await.body["access_token"] == json!(value)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acquisitions_say_how_they_were_come_by() {
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let provider = Provider::start().await;
        let issuer = provider.issuer("any");
        let options = ["--store", &redis.url(), "--lease", "5", "--issuer", &issuer];
        let client = ["--client-id", CLIENT_ID, "--client-secret", CLIENT_SECRET];
        let options = [&options[..], &client].concat();
        let server = Playground::start(example, &options);
        let other = Playground::start(example, &options);
        server.sign_in("ada", &provider.sign_in("ada")).await;

        let first = server.acquire("ada", "/acquire/a").await;
        assert_eq!(first.status, 200, "{:?}", first.body);
        assert_eq!(first.body["token_source"], "identity_provider");
        assert_eq!(first.body["cache_level"], "none");
        assert_eq!(first.body["exclusive"], true);
        assert!(provider.is_newest("ada", first.body["access_token"].as_str().unwrap()));
        let duration = |name| first.body[name].as_f64().expect(name);
        assert!(duration("duration_in_http_ms") > 0.0);
        assert!(duration("duration_in_cache_ms") > 0.0);
        assert!(duration("duration_total_ms") >= duration("duration_in_http_ms"));

        for (who, level) in [(&server, "l1"), (&other, "l2"), (&other, "l1")] {
            let again = who.acquire("ada", "/acquire/a").await;
            assert_eq!(again.body["access_token"], first.body["access_token"]);
            assert_eq!(again.body["token_source"], "cache");
            assert_eq!(again.body["cache_level"], level);
            assert_eq!(again.body["cache_refresh_reason"], "not_applicable");
            assert_eq!(again.body["duration_in_http_ms"], 0.0);
        }
        for (demand, reason) in [
            ("force=1", "force_refresh_or_claims"),
            ("min_remaining=7200", "expired"),
        ] {
            let before = provider.redemptions("ada");
            let path = format!("/acquire/a?{demand}");
            let answer = server.acquire("ada", &path).await;
            assert_eq!(answer.body["token_source"], "identity_provider", "{demand}");
            assert_eq!(answer.body["cache_refresh_reason"], reason);
            assert_eq!(provider.redemptions("ada"), before + 1);
        }
        // Who has no refresh token gets a token of the application's own.
        let answer = server.acquire("nobody", "/acquire/a").await;
        assert_eq!(
            answer.body["cache_refresh_reason"],
            "no_cached_access_token"
        );
        assert_eq!((answer.status, provider.applications()), (200, 1));
        assert_eq!(provider.reuses(), 0);

        assert_eq!(server.send("POST", "/acquire/a", &[], "").await.status, 401);
        let alone = Playground::start(example, &[]);
        assert_eq!(alone.acquire("ada", "/acquire/a").await.status, 501);
    }
}

#[tokio::test]
async fn bad_options_are_named() {
    for (options, named) in [
        (vec!["--store", "nonsense"], "--store"),
        (vec!["--store", "redis://:s3cr3t@"], "--store"),
        (vec!["--backplane", "maybe"], "--backplane"),
        (vec!["--backplane", "redis://:s3cr3t@"], "--backplane"),
        (vec!["--l1-max-bytes", "many"], "--l1-max-bytes"),
        (vec!["--l1-max-bytes", "0"], "--l1-max-bytes"),
        (vec!["--failure-policy", "never"], "--failure-policy"),
        (vec!["--write-mode", "never"], "--write-mode"),
        (vec!["--absolute", "0"], "--absolute"),
        (vec!["--prefix", "a b"], "--prefix"),
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--issuer", "ftp://:s3cr3t@nowhere"], "--issuer"),
        (vec!["--issuer", "http://127.0.0.1"], "--client-id"),
        (vec!["--client-secret", "s3cr3t"], "--issuer"),
        (vec!["--lease", "0"], "--lease"),
        (vec!["--encrypt", "/dev/null"], "--encrypt"),
        (vec!["--encrypt-env", "TTC_NOT_SET"], "--encrypt-env"),
        (vec!["--encrypt-env"], "--encrypt-env"),
        (vec!["--unheard-of"], "--unheard-of"),
    ] {
        for example in PLAYGROUNDS {
            let output = Command::new(binary(example))
                .args(&options)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(2), "{options:?}");
            let complaint = String::from_utf8(output.stderr).unwrap();
            assert!(
                complaint.contains(named) && !complaint.contains("s3cr3t"),
                "{complaint}"
            );
        }
    }
}
