//! Caches on the stores, as a site deploys them: from Redis to a file, or to a SQL database.

use common::eventually;
use common::proxy::Proxy;
use common::redis::RedisServer;
use common::support::{builder, session, token};
use tempfile::TempDir;
use tower_token_cache::{
    BoxError, Lookup, Prior, RedisStore, SqliteStore, Timeouts, TokenCache, TokenSet, Tokens,
};

use super::*;
use crate::sql::server::{PATIENCE, Server, on_both};

on_both! {
    nobody_is_signed_out_by_a_move_to_it
    sign_outs_of_many_hold_in_both
    a_refresh_token_is_redeemed_once_during_a_move_to_it
}

/// Where a site moves to.
trait Target: Sized {
    async fn new() -> Self;
    /// The store, as another instance opens it.
    async fn open(&self) -> impl Movable;
}

struct File(TempDir);

impl Target for File {
    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> impl Movable {
        let path = self.0.path().join("tokens.db");
        SqliteStore::open(path).await.unwrap()
    }
}

struct Tables<S>(Arc<S>, String);

impl<S: Server> Target for Tables<S> {
    async fn new() -> Self {
        let server = S::shared();
        let (_, prefix) = server.store(PATIENCE).await;
        Self(server, prefix)
    }

    async fn open(&self) -> impl Movable {
        S::build(&self.0.url(), &self.1, PATIENCE).unwrap()
    }
}

/// A site in a Redis, which moves.
struct Site<T> {
    server: RedisServer,
    target: T,
}

impl<T: Target> Site<T> {
    async fn new() -> Self {
        Self {
            server: RedisServer::start(),
            target: T::new().await,
        }
    }

    async fn old(&self) -> RedisStore {
        RedisStore::connect(self.server.url()).await.unwrap()
    }

    async fn new_store(&self) -> impl Movable {
        self.target.open().await
    }

    async fn before(&self) -> TokenCache {
        cache(self.old().await)
    }

    async fn following(&self) -> TokenCache {
        cache(MigratingStore::following(
            self.old().await,
            self.new_store().await,
        ))
    }

    async fn moving(&self) -> TokenCache {
        cache(MigratingStore::moving(
            self.old().await,
            self.new_store().await,
        ))
    }

    async fn after(&self) -> TokenCache {
        cache(self.new_store().await)
    }

    async fn move_all(&self) {
        let store = MigratingStore::moving(self.old().await, self.new_store().await);
        let run = store.mover("site").per_second(1_000_000).run();
        let progress: Vec<_> = run.try_collect().await.unwrap();
        assert!(progress.last().unwrap().done);
    }
}

fn cache(store: impl TokenStore) -> TokenCache {
    builder(store).namespace("site").build().unwrap()
}

/// On a machine that is busy.
fn patient(store: impl TokenStore) -> TokenCache {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts::new().attempt(second).operation(5 * second);
    let builder = builder(store).namespace("site").timeouts(timeouts);
    builder.build().unwrap()
}

async fn read(tokens: &Tokens, name: &str) -> Option<String> {
    match tokens.get(name).await.unwrap() {
        Lookup::Hit(token) => Some(token.access_token().to_owned()),
        Lookup::Absent => None,
        other => panic!("{other:?}"),
    }
}

async fn becomes(cache: &TokenCache, id: &str, name: &str, expected: Option<&str>) {
    eventually("it is told", async || {
        read(&cache.tokens(session(id)), name).await.as_deref() == expected
    })
    .await;
}

async fn sign_in(cache: &TokenCache, id: &str, text: &str) {
    let tokens = cache.tokens(session(id));
    tokens.insert("graph", token(text)).await.unwrap();
    common::assert_stored(tokens.commit().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_out_by_a_move() {
    moves_in_steps::<File>().await;
}

async fn nobody_is_signed_out_by_a_move_to_it<S: Server>() {
    moves_in_steps::<Tables<S>>().await;
}

/// All steps, with two instances at each time.
async fn moves_in_steps<T: Target>() {
    let site = Site::<T>::new().await;
    let before = site.before().await;
    sign_in(&before, "ada", "first").await;
    sign_in(&before, "bob", "bob's").await;

    // Step 1: what either instance does is seen by the other.
    let following = site.following().await;
    becomes(&following, "ada", "graph", Some("first")).await;
    sign_in(&following, "ada", "second").await;
    becomes(&before, "ada", "graph", Some("second")).await;
    sign_in(&before, "cyd", "cyd's").await;
    becomes(&following, "cyd", "graph", Some("cyd's")).await;
    common::assert_stored(before.tokens(session("cyd")).sign_out().await.unwrap());
    becomes(&following, "cyd", "graph", None).await;
    before.shutdown(Duration::from_secs(5)).await;

    // Step 2.
    let moving = site.moving().await;
    becomes(&moving, "ada", "graph", Some("second")).await;
    sign_in(&moving, "ada", "third").await;
    becomes(&following, "ada", "graph", Some("third")).await;
    sign_in(&following, "ada", "fourth").await;
    becomes(&moving, "ada", "graph", Some("fourth")).await;
    sign_in(&moving, "dan", "dan's").await;
    becomes(&following, "dan", "graph", Some("dan's")).await;
    common::assert_stored(following.tokens(session("dan")).sign_out().await.unwrap());
    becomes(&moving, "dan", "graph", None).await;
    following.shutdown(Duration::from_secs(5)).await;
    site.move_all().await;

    // Step 3: the old store is not asked any more.
    let after = site.after().await;
    becomes(&after, "ada", "graph", Some("fourth")).await;
    becomes(&after, "bob", "graph", Some("bob's")).await;
    sign_in(&after, "ada", "fifth").await;
    becomes(&moving, "ada", "graph", Some("fifth")).await;
    moving.shutdown(Duration::from_secs(5)).await;
    drop(site.server);
    for signed_out in ["cyd", "dan"] {
        becomes(&after, signed_out, "graph", None).await;
    }
    becomes(&after, "ada", "graph", Some("fifth")).await;
    after.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_outs_of_many_hold_on_both_sides() {
    signs_many_out::<File>().await;
}

async fn sign_outs_of_many_hold_in_both<S: Server>() {
    signs_many_out::<Tables<S>>().await;
}

/// Of a user, and of everybody: the numbers move, too.
async fn signs_many_out<T: Target>() {
    let site = Site::<T>::new().await;
    let (following, moving) = (site.following().await, site.moving().await);
    for id in ["ada 1", "ada 2"] {
        sign_in(&following, id, "ada's").await;
        let tokens = following.tokens(session(id));
        tokens.link_user("ada").await.unwrap();
        common::assert_stored(tokens.commit().await.unwrap());
    }
    sign_in(&following, "bob", "bob's").await;
    // One of them has moved, and the number of the user has not.
    sign_in(&moving, "ada 2", "moved").await;
    becomes(&following, "ada 2", "graph", Some("moved")).await;
    let done = following.sign_out_user("ada").await;
    common::assert_stored(done.unwrap());
    for cache in [&following, &moving] {
        becomes(cache, "ada 1", "graph", None).await;
        becomes(cache, "ada 2", "graph", None).await;
        becomes(cache, "bob", "graph", Some("bob's")).await;
    }
    moving.sign_out_all().await.unwrap();
    site.move_all().await;
    let after = site.after().await;
    for cache in [&following, &moving, &after] {
        becomes(cache, "bob", "graph", None).await;
        becomes(cache, "ada 1", "graph", None).await;
    }
    for cache in [following, moving, after] {
        cache.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_redeemed_once_during_a_move() {
    redeems_once::<File>().await;
}

async fn a_refresh_token_is_redeemed_once_during_a_move_to_it<S: Server>() {
    redeems_once::<Tables<S>>().await;
}

/// Instances of all steps keep each other from redeeming a refresh token twice.
async fn redeems_once<T: Target>() {
    for pair in 0..3 {
        let site = Site::<T>::new().await;
        let first = site.before().await;
        let tokens = first.tokens(session("ada"));
        let set = TokenSet::from(token("old")).with_refresh_token("r1");
        tokens.insert("graph", set).await.unwrap();
        common::assert_stored(tokens.commit().await.unwrap());
        let caches = match pair {
            0 => [first.clone(), site.following().await],
            1 => [site.following().await, site.moving().await],
            _ => {
                site.move_all().await;
                [site.moving().await, site.after().await]
            }
        };
        let redeemed = Arc::new(AtomicU64::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..16 {
            let tokens = caches[number % 2].tokens(session("ada"));
            let redeemed = redeemed.clone();
            tasks.spawn(async move {
                let acquire = async move |prior: Prior| -> Result<TokenSet, BoxError> {
                    assert_eq!(prior.require_refresh_token()?.expose(), "r1");
                    redeemed.fetch_add(1, Ordering::Relaxed);
                    Ok(TokenSet::from(token("new")).with_refresh_token("r2"))
                };
                tokens.get_or_acquire("mail", acquire).await.unwrap()
            });
        }
        for token in tasks.join_all().await {
            assert_eq!(token.access_token(), "new");
        }
        assert_eq!(redeemed.load(Ordering::Relaxed), 1, "pair {pair}");
        for cache in caches {
            cache.shutdown(Duration::from_secs(5)).await;
        }
    }
}

/// Two movers that are stopped and begin again, while users sign out and take values on instances of both steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_races_a_move_counts_once() {
    const SESSIONS: usize = 100;
    let site = Site::<File>::new().await;
    let (proxy, url) = Proxy::before(&site.server.url()).await;
    proxy.delay(3);
    let before = site.before().await;
    let name = |number: usize| format!("s{number}");
    for number in 0..SESSIONS {
        let tokens = before.tokens(session(&name(number)));
        tokens.insert("graph", token("t")).await.unwrap();
        let kept = Duration::from_secs(600);
        tokens.put("state", &number, kept).await.unwrap();
        if number % 10 == 7 {
            tokens.link_user("ada").await.unwrap();
        }
    }
    common::support::drained(&before).await;
    before.shutdown(Duration::from_secs(5)).await;

    let far = async || {
        let store = RedisStore::builder(url.clone()).response_timeout(Duration::from_secs(1));
        store.build().unwrap()
    };
    let (old, new) = (far().await, site.new_store().await);
    let following = patient(MigratingStore::following(old.clone(), new));
    let moving = patient(MigratingStore::moving(old.clone(), site.new_store().await));
    let moves = (0..2).map(|_| async {
        let store = MigratingStore::moving(far().await, site.new_store().await);
        for pause in 1.. {
            let run = store.mover("site").per_second(1_000_000).run();
            let run = run.try_collect::<Vec<_>>();
            let stopped = Duration::from_millis(10 * pause);
            if let Ok(progress) = tokio::time::timeout(stopped, run).await {
                assert!(progress.unwrap().last().unwrap().done);
                return;
            }
        }
    });
    let users = (0..SESSIONS).map(|number| {
        let (following, moving) = (&following, &moving);
        let handle = move |cache: &TokenCache| cache.tokens(session(&name(number)));
        async move {
            let takes = (0..4).map(|at| {
                let tokens = handle([following, moving][at % 2]);
                async move { tokens.take::<usize>("state").await }
            });
            let answers = futures_util::future::join_all(takes).await;
            let taken = answers
                .iter()
                .filter(|taken| matches!(taken, Ok(Lookup::Hit(it)) if *it == number));
            let unknown =
                |answer: &Result<_, _>| matches!(answer, Err(_) | Ok(Lookup::Unavailable));
            let taken = taken.count();
            match taken {
                1 => {}
                // Where the user was signed out before, there is nothing.
                0 if number % 10 == 7 || answers.iter().any(unknown) => {}
                times => panic!("session {number} was taken {times} times: {answers:?}"),
            }
            if number % 3 == 0 {
                let by = [moving, following][number % 2];
                let _sooner_or_later = handle(by).sign_out().await.unwrap();
            }
            taken > 0
        }
    });
    let all = async {
        let _sooner_or_later = following.sign_out_user("ada").await.unwrap();
    };
    let (users, moves) = (
        futures_util::future::join_all(users),
        futures_util::future::join_all(moves),
    );
    let (taken, ..) = tokio::join!(users, moves, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        all.await;
    });
    for cache in [&following, &moving] {
        eventually("all sign-outs are stored", async || {
            cache.stats().pending_sign_outs == 0
        })
        .await;
    }
    site.move_all().await;
    let after = site.after().await;
    for (number, was_taken) in taken.into_iter().enumerate() {
        let tokens = after.tokens(session(&name(number)));
        let expected = (number % 3 != 0 && number % 10 != 7).then_some("t");
        let found = read(&tokens, "graph").await;
        assert_eq!(found.as_deref(), expected, "session {number}");
        let again = tokens.take::<usize>("state").await.unwrap();
        assert!(!(was_taken && again.is_hit()), "session {number}");
    }
}
