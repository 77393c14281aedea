//! Signing a user out everywhere.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{
    Builder, Clock, Durability, Error, FailurePolicy, Lifetimes, Lookup, MemoryStore,
    PartitionKind, Secret, Timestamp, Token, TokenCache, TokenCacheLayer, TokenSet, Tokens,
};

use common::support::*;

#[tokio::test]
async fn every_session_of_a_user_is_signed_out_and_no_other() {
    let store = TestStore::default();
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    for (cache, id, user) in [(&one, "a", "ada"), (&other, "b", "ada"), (&one, "c", "bob")] {
        let tokens = cache.tokens(session(id));
        tokens.insert("graph", token(id)).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        tokens.link_user(user).await.unwrap();
    }
    let sessions = other.sessions_of("ada").await.unwrap();
    assert_eq!(sessions.len(), 2);
    assert!(
        sessions
            .iter()
            .all(|key| key.kind() == PartitionKind::Session)
    );
    assert!(sessions.contains(&session("a")) && sessions.contains(&session("b")));
    assert_eq!(one.sign_out_user("ada").await.unwrap(), Durability::Stored);
    for (id, found) in [("a", None), ("b", None), ("c", Some("c"))] {
        assert_eq!(stored(store.clone(), id, "graph").await.as_deref(), found);
    }
    assert!(other.sessions_of("ada").await.unwrap().is_empty());
    assert_eq!(other.sessions_of("bob").await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_it_is_linked_is_not_linked() {
    let store = seeded().await;
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    let tokens = one.tokens(session("s"));
    assert!(access(&tokens, "graph").await.is_some());
    store.hold_group(1);
    let groups = store.groups();
    let linking = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.link_user("ada").await }
    });
    eventually("the link is on its way", async || store.groups() > groups).await;
    assert_stored(other.tokens(session("s")).sign_out().await.unwrap());
    store.release_group();
    assert!(matches!(linking.await.unwrap(), Err(Error::SignedOut)));
    assert!(other.sessions_of("ada").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_user_without_sessions_is_no_error_and_a_dead_l2_is_one() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    assert!(cache.sessions_of("nobody").await.unwrap().is_empty());
    assert_eq!(
        cache.sign_out_user("nobody").await.unwrap(),
        Durability::Stored
    );
    assert!(matches!(
        cache.sign_out_user("").await,
        Err(Error::InvalidKey(_))
    ));
    store.set_down(true);
    let listed = cache.sessions_of("ada").await;
    assert!(matches!(listed, Err(Error::Unavailable(_))));
    let strict = builder(store).failure_policy(FailurePolicy::Strict);
    let untold = strict.build().unwrap().sign_out_user("ada").await;
    assert!(matches!(untold, Err(Error::Unavailable(_))));
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A store and instances on one clock.
struct Fleet {
    store: TestStore,
    clock: Clock,
}

impl Fleet {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::now());
        let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
        Self { store, clock }
    }

    fn instance(&self, adjust: impl FnOnce(Builder) -> Builder) -> TokenCache {
        let builder = builder(self.store.clone()).clock(self.clock.clone());
        adjust(builder).build().unwrap()
    }
}

async fn sign_in(cache: &TokenCache, id: &str) {
    let tokens = cache.tokens(session(id));
    let set = TokenSet::from(Token::new("t")).with_refresh_token("r");
    tokens.insert("graph", set).await.unwrap();
    tokens.link_user("ada").await.unwrap();
}

async fn refresh_token(cache: &TokenCache, id: &str) -> Lookup<Secret> {
    cache.tokens(session(id)).refresh_token().await.unwrap()
}

/// However long a session is used by whichever settings: the user's sign-out ends it.
#[tokio::test]
async fn sessions_are_found_as_long_as_they_live() {
    type Adjust = fn(Builder) -> Builder;
    let sliding: Adjust = |it| it.lifetimes(Lifetimes::new().sliding(Duration::from_secs(1800)));
    let aged: Adjust = |it| it.lifetimes(Lifetimes::new().absolute(Duration::from_secs(8 * 3600)));
    let cases: [(&str, Adjust, Duration, u32); 4] = [
        ("defaults", |it| it, DAY, 20),
        ("sliding", sliding, Duration::from_secs(1200), 30),
        ("aged", aged, Duration::from_secs(3600), 7),
        ("a year", |it| it, DAY, 390),
    ];
    for (name, adjust, pause, times) in cases {
        let fleet = Fleet::new();
        let cache = fleet.instance(adjust);
        sign_in(&cache, "s").await;
        for step in 0..times {
            fleet.clock.advance(pause);
            let tokens = cache.tokens(session("s"));
            let found = tokens.refresh_token().await.unwrap();
            assert!(found.is_hit(), "{name}: in use at {step}");
            tokens.insert("graph", Token::new("again")).await.unwrap();
            assert_stored(tokens.commit().await.unwrap());
        }
        let second = fleet.instance(adjust);
        let ended = second.sign_out_user("ada").await.unwrap();
        assert_eq!(ended, Durability::Stored);
        for cache in [&second, &fleet.instance(adjust)] {
            assert_eq!(refresh_token(cache, "s").await, Lookup::Absent, "{name}");
        }
        cache.tokens(session("s")).reload().await.unwrap();
        assert_eq!(refresh_token(&cache, "s").await, Lookup::Absent, "{name}");
    }
}

/// The user's record in L2, the list, or both are deleted by hand, before or after.
#[tokio::test]
async fn nothing_that_is_lost_keeps_a_session_alive() {
    for lost_first in [true, false] {
        let fleet = Fleet::new();
        let cache = fleet.instance(|it| it);
        sign_in(&cache, "s").await;
        let user = fleet.store.epochs()[1].clone();
        if lost_first {
            fleet.store.evict(&user);
            let other = fleet.instance(|it| it);
            assert_eq!(
                refresh_token(&other, "s").await,
                Lookup::Absent,
                "no record: over"
            );
        }
        assert_stored(cache.sign_out_user("ada").await.unwrap());
        if !lost_first {
            fleet.store.evict(&user);
        }
        fleet.clock.advance(Duration::from_secs(1));
        let fresh = fleet.instance(|it| it);
        assert_eq!(refresh_token(&fresh, "s").await, Lookup::Absent);
        // The user comes back, and the old session does not.
        sign_in(&fresh, "t").await;
        for cache in [&cache, &fresh, &fleet.instance(|it| it)] {
            assert!(refresh_token(cache, "t").await.is_hit());
            assert_eq!(refresh_token(cache, "s").await, Lookup::Absent);
        }
    }
}

#[tokio::test]
async fn a_session_of_several_users_ends_with_the_first() {
    let fleet = Fleet::new();
    for user in ["ada", "ada@other"] {
        let cache = fleet.instance(|it| it);
        sign_in(&cache, user).await;
        let tokens = cache.tokens(session(user));
        tokens.link_user("ada@other").await.unwrap();
        assert!(refresh_token(&fleet.instance(|it| it), user).await.is_hit());
        assert_stored(cache.sign_out_user(user).await.unwrap());
        assert_eq!(refresh_token(&cache, user).await, Lookup::Absent);
        assert_eq!(
            refresh_token(&fleet.instance(|it| it), user).await,
            Lookup::Absent
        );
    }
}

/// A provider names a session of its own, or a user: what it does not name goes on.
#[tokio::test]
async fn a_provider_ends_the_session_or_the_user_that_it_names() {
    let (google, entra) = ("https://google.example", "https://entra.example");
    let fleet = Fleet::new();
    let cache = fleet.instance(|it| it);
    // As by other links: `iss` and `sid`, or `iss` and `sub`, and never the user of the application.
    let sessions = [
        ("phone", google, "1", "ada"),
        ("laptop", google, "2", "ada"),
        ("bob", google, "3", "1"),
        ("elsewhere", entra, "1", "ada"),
    ];
    for (id, iss, sid, sub) in sessions {
        sign_in(&cache, id).await;
        let tokens = cache.tokens(session(id));
        tokens.link_provider_session(iss, sid).await.unwrap();
        tokens.link_provider_user(iss, sub).await.unwrap();
    }
    let alive = async || {
        let instance = fleet.instance(|it| it);
        let mut alive = Vec::new();
        for (id, ..) in sessions {
            let found = refresh_token(&instance, id).await;
            alive.extend(found.is_hit().then_some(id));
        }
        alive
    };
    let other = fleet.instance(|it| it);
    for (iss, sid) in [(google, "ada"), ("1", google), (google, "")] {
        let _ = other.sign_out_provider_session(iss, sid).await;
    }
    assert_eq!(alive().await, ["phone", "laptop", "bob", "elsewhere"]);
    let ended = other.sign_out_provider_session(google, "1").await;
    assert_stored(ended.unwrap());
    assert_eq!(alive().await, ["laptop", "bob", "elsewhere"]);
    let ended = other.sign_out_provider_user(google, "ada").await;
    assert_stored(ended.unwrap());
    assert_eq!(alive().await, ["bob", "elsewhere"]);
    // The instance that had them in memory.
    cache.tokens(session("laptop")).reload().await.unwrap();
    assert_eq!(refresh_token(&cache, "laptop").await, Lookup::Absent);
}

/// While L2 is away it holds here, is told when L2 is back, and a restart of the task is not needed.
#[tokio::test(start_paused = true)]
async fn a_dead_l2_is_told_later() {
    let fleet = Fleet::new();
    let cache = fleet.instance(|it| it);
    sign_in(&cache, "s").await;
    assert!(refresh_token(&cache, "s").await.is_hit());
    fleet.store.set_down(true);
    let ended = cache.sign_out_user("ada").await.unwrap();
    assert_eq!(ended, Durability::Pending);
    assert_eq!(refresh_token(&cache, "s").await, Lookup::Absent, "at once");
    let late = cache.tokens(session("s")).link_user("ada").await;
    assert!(matches!(late, Err(Error::Unavailable(_))));
    fleet.store.set_down(false);
    let report = cache.shutdown(Duration::from_secs(20)).await;
    assert_eq!(report.abandoned, 0);
    let fresh = fleet.instance(|it| it);
    assert_eq!(refresh_token(&fresh, "s").await, Lookup::Absent);
    sign_in(&fresh, "t").await;
    assert!(refresh_token(&fresh, "t").await.is_hit());
}

#[tokio::test]
async fn the_list_follows_its_sessions() {
    let fleet = Fleet::new();
    let cache = fleet.instance(|it| it);
    for id in ["a", "b", "c"] {
        sign_in(&cache, id).await;
    }
    assert_stored(cache.tokens(session("b")).sign_out().await.unwrap());
    // Of a session that it does not have in memory, too.
    let other = fleet.instance(|it| it);
    assert_stored(other.tokens(session("c")).sign_out().await.unwrap());
    let moved = cache.tokens(session("a")).move_to(session("d")).await;
    moved.unwrap();
    eventually("they are off the list", async || {
        fleet.instance(|it| it).sessions_of("ada").await.unwrap() == [session("d")]
    })
    .await;
    assert_stored(other.sign_out_user("ada").await.unwrap());
    let fresh = fleet.instance(|it| it);
    assert_eq!(
        refresh_token(&fresh, "d").await,
        Lookup::Absent,
        "the link has moved"
    );
}

/// A thousand are listed, and all are signed out, by one step that does not depend on how many there
/// are.
#[tokio::test(start_paused = true)]
async fn many_sign_ins_cost_the_next_sign_out_nothing() {
    let fleet = Fleet::new();
    let cache = fleet.instance(|it| it);
    for number in 0..1200 {
        fleet.clock.advance(Duration::from_millis(1));
        sign_in(&cache, &number.to_string()).await;
    }
    let listed = cache.sessions_of("ada").await.unwrap();
    assert_eq!(listed.len(), 1000);
    assert!(listed.contains(&session("1199")) && !listed.contains(&session("3")));
    let (raises, loads) = (fleet.store.raises(), fleet.store.loads());
    assert_stored(cache.sign_out_user("ada").await.unwrap());
    assert_eq!(fleet.store.raises(), raises + 1);
    assert!(fleet.store.loads() <= loads + 1, "the list's own");
    for number in [0, 3, 600, 1199] {
        let found = refresh_token(&fleet.instance(|it| it), &number.to_string()).await;
        assert_eq!(found, Lookup::Absent, "{number}");
    }
}

/// A hit of a linked session asks L2 no more than any other.
#[tokio::test]
async fn links_cost_a_hit_nothing() {
    let fleet = Fleet::new();
    let cache = fleet.instance(|it| it);
    sign_in(&cache, "s").await;
    assert!(refresh_token(&cache, "s").await.is_hit());
    let asked = (fleet.store.loads(), fleet.store.looks());
    for _ in 0..100 {
        assert!(refresh_token(&cache, "s").await.is_hit());
    }
    assert_eq!((fleet.store.loads(), fleet.store.looks()), asked);
}

/// What a user is shown: newest first, with what the sign-in has said, and none that L2 no longer has.
#[tokio::test]
async fn sessions_are_shown_with_when_they_began_and_were_last_used() {
    let fleet = Fleet::new();
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let sliding: fn(Builder) -> Builder =
        |it| it.lifetimes(Lifetimes::new().sliding(Duration::from_secs(3600)));
    let cache = fleet.instance(sliding);
    let began = fleet.clock.now();
    let layer = TokenCacheLayer::new(cache.clone(), Cookie::new("sid").unwrap());
    let long = "é".repeat(200);
    for label in ["Firefox\r\n on Linux", &long, ""] {
        let handler = service_fn(async |request: Request<()>| {
            let tokens = request.extensions().get::<Tokens>().unwrap();
            let sign_in = SignIn::new("graph", Token::new("t"));
            let sign_in = sign_in.user("ada").label(label);
            assert_stored(tokens.sign_in(sign_in).await.unwrap());
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let request = Request::new(());
        layer.layer(handler).oneshot(request).await.unwrap();
        fleet.clock.advance(minutes(10));
    }
    let there = fleet.instance(sliding);
    let sessions = there.sessions("ada").await.unwrap();
    let labels = Vec::from_iter(sessions.iter().map(|it| it.label.clone()));
    let short = Some("é".repeat(128));
    assert_eq!(labels, [None, short, Some("Firefox on Linux".into())]);
    // What a page gets of one: nothing that signs anybody in.
    let firefox = &sessions[2];
    let shown = serde_json::json!({
        "created": firefox.created.as_millis(),
        "last_seen": firefox.last_seen.map(Timestamp::as_millis),
        "label": "Firefox on Linux",
    });
    assert_eq!(serde_json::to_value(firefox).unwrap(), shown);
    let created = Vec::from_iter(sessions.iter().map(|it| it.created));
    let after = |time| began.saturating_add(time);
    assert_eq!(created, [after(minutes(20)), after(minutes(10)), began]);
    let seen = Vec::from_iter(sessions.iter().map(|it| it.last_seen.unwrap()));
    assert_eq!(seen, created, "not used since");

    // One is used, one is moved, and one ends.
    fleet.clock.advance(minutes(25));
    let used = cache.tokens(sessions[0].partition.clone());
    assert!(used.get("graph").await.unwrap().is_hit());
    let moved = cache.tokens(sessions[1].partition.clone());
    moved.move_to(session("moved")).await.unwrap();
    drained(&cache).await;
    let now = fleet.clock.now();
    eventually("it is noted", async || {
        let seen = there.sessions("ada").await.unwrap();
        seen[0].last_seen == Some(now) && seen[1].partition == session("moved")
    })
    .await;
    fleet.clock.advance(minutes(20));
    let sessions = there.sessions("ada").await.unwrap();
    let shown = sessions.iter().map(|it| (it.created, it.label.clone()));
    let expected = [
        (after(minutes(20)), None),
        (after(minutes(10)), labels[1].clone()),
    ];
    assert_eq!(Vec::from_iter(shown), expected);
    assert_eq!(there.sessions_of("ada").await.unwrap().len(), 3);
    assert!(there.sessions("nobody").await.unwrap().is_empty());
    assert_stored(there.sign_out_user("ada").await.unwrap());
    assert!(there.sessions("ada").await.unwrap().is_empty());
}

#[tokio::test]
async fn without_a_sliding_lifetime_it_is_not_known_when_a_session_was_last_used() {
    let fleet = Fleet::new();
    let cache = fleet.instance(|it| it);
    sign_in(&cache, "s").await;
    let sessions = cache.sessions("ada").await.unwrap();
    let [only] = &sessions[..] else {
        panic!("{sessions:?}");
    };
    assert_eq!((&only.partition, only.last_seen), (&session("s"), None));
    assert_eq!(only.created, fleet.clock.now());
    fleet.store.set_down(true);
    let listed = cache.sessions("ada").await;
    assert!(matches!(listed, Err(Error::Unavailable(_))));
}

/// Whichever of its links has ended it, on whichever instance.
#[tokio::test]
async fn a_session_that_the_provider_has_ended_is_not_shown() {
    const ISS: &str = "https://login.example";
    let fleet = Fleet::new();
    let (here, there) = (fleet.instance(|it| it), fleet.instance(|it| it));
    for id in ["phone", "laptop"] {
        sign_in(&here, id).await;
        let tokens = here.tokens(session(id));
        tokens.link_provider_session(ISS, id).await.unwrap();
        tokens.link_provider_user(ISS, "ada").await.unwrap();
    }
    let shown = async || {
        let mut shown = Vec::new();
        for cache in [&here, &there, &fleet.instance(|it| it)] {
            shown.push(cache.sessions("ada").await.unwrap().len());
        }
        shown
    };
    assert_eq!(shown().await, [2; 3]);
    assert_stored(there.sign_out_provider_session(ISS, "phone").await.unwrap());
    assert_eq!(shown().await, [1; 3]);
    assert_stored(there.sign_out_provider_user(ISS, "ada").await.unwrap());
    assert_eq!(shown().await, [0; 3]);
}

#[tokio::test]
async fn a_session_that_is_linked_once_more_is_shown_as_what_it_was() {
    let fleet = Fleet::new();
    let cache = fleet.instance(|it| it);
    let began = fleet.clock.now();
    let layer = TokenCacheLayer::new(cache.clone(), Cookie::new("sid").unwrap());
    let handler = service_fn(async |request: Request<()>| {
        let tokens = request.extensions().get::<Tokens>().unwrap();
        let sign_in = SignIn::new("graph", Token::new("t")).user("ada");
        assert_stored(tokens.sign_in(sign_in.label("Firefox")).await.unwrap());
        fleet.clock.advance(DAY);
        tokens.link_user("ada").await.unwrap();
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let answer = layer.layer(handler).oneshot(Request::new(())).await;
    answer.unwrap();
    let sessions = cache.sessions("ada").await.unwrap();
    let [only] = &sessions[..] else {
        panic!("{sessions:?}");
    };
    assert_eq!(
        (only.label.as_deref(), only.created),
        (Some("Firefox"), began)
    );
}
