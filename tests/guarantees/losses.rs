//! What L2 loses: everything, or one key.

use std::convert::Infallible;
use std::time::Duration;

use tower_token_cache::{
    Clock, Durability, Error, L1, Lifetimes, MemoryStore, PartitionKey, Timestamp, Token,
    TokenCache, TokenSet,
};

use common::support::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Instances on one store, each with a way to it of its own.
struct World {
    clock: Clock,
    server: MemoryStore,
}

impl World {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::now());
        let server = MemoryStore::new().with_clock(clock.clone());
        Self { clock, server }
    }

    fn instance(&self) -> (TokenCache, TestStore) {
        self.instance_with(|builder| builder)
    }

    fn instance_with(
        &self,
        set: impl FnOnce(tower_token_cache::Builder) -> tower_token_cache::Builder,
    ) -> (TokenCache, TestStore) {
        let way = TestStore::telling_of(self.server.clone());
        let builder = builder(way.clone()).clock(self.clock.clone());
        (set(builder).build().unwrap(), way)
    }

    async fn stored(&self, name: &str) -> Option<String> {
        access(&self.instance().0.tokens(ada()), name).await
    }

    async fn has_refresh_token(&self) -> bool {
        let tokens = self.instance().0.tokens(ada());
        tokens.refresh_token().await.unwrap().is_hit()
    }

    /// L2 forgets everything.
    fn empty(&self) {
        self.server.forget_all();
    }
}

fn ada() -> PartitionKey {
    PartitionKey::user("ada").unwrap()
}

async fn sign_in(cache: &TokenCache) {
    let tokens = cache.tokens(ada());
    let set = TokenSet::from(Token::new("graph")).with_refresh_token("refresh");
    tokens.insert("graph", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_change_after_l2_has_lost_everything_takes_along_what_memory_has() {
    for outage in [false, true] {
        for later in [Duration::ZERO, 5 * MINUTE] {
            let world = World::new();
            let (one, way) = world.instance();
            let (other, _) = world.instance();
            hears(&one).await;
            hears(&other).await;
            sign_in(&one).await;
            assert!(access(&other.tokens(ada()), "graph").await.is_some());
            // What it has just written itself is compared first: until then it may be out of date.
            tokio::time::sleep(Duration::from_secs(1)).await;
            way.set_down(outage);
            let tokens = one.tokens(ada());
            if outage {
                tokens.insert("mail", Token::new("mail")).await.unwrap();
                let _ = tokens.commit().await;
            }
            world.clock.advance(later);
            world.empty();
            way.set_down(false);
            if !outage {
                tokens.insert("mail", Token::new("mail")).await.unwrap();
            }
            let _ = tokens.commit().await;
            drained(&one).await;
            let what = format!("outage {outage}, {later:?} later");
            for name in ["graph", "mail"] {
                let found = world.stored(name).await;
                assert_eq!(found.as_deref(), Some(name), "{what}");
            }
            assert!(world.has_refresh_token().await, "{what}");
            // The other one has the same version of another history.
            let theirs = other.tokens(ada());
            theirs.insert("cal", Token::new("cal")).await.unwrap();
            assert_stored(theirs.commit().await.unwrap());
            for name in ["graph", "mail", "cal"] {
                let found = world.stored(name).await;
                assert_eq!(found.as_deref(), Some(name), "{what}, and the other");
            }
            assert!(world.has_refresh_token().await, "{what}, and the other");
        }
    }
}

/// A user is signed out while L2 is away, and L2 comes back empty: whatever the user's session has changed
/// meanwhile, and whoever has it in memory, it does not come back.
#[tokio::test]
async fn who_was_signed_out_everywhere_does_not_come_back_with_an_empty_l2() {
    for (changes, reads, elsewhere) in [
        (true, false, false),
        (true, true, false),
        (false, false, false),
        (true, false, true),
        (false, false, true),
    ] {
        let what = format!("changes {changes}, reads {reads}, elsewhere {elsewhere}");
        let world = World::new();
        let (one, way) = world.instance();
        let (other, other_way) = world.instance();
        hears(&one).await;
        hears(&other).await;
        sign_in(&one).await;
        let tokens = one.tokens(ada());
        tokens.link_user("ada").await.unwrap();
        let theirs = other.tokens(ada());
        if elsewhere {
            assert!(access(&theirs, "graph").await.is_some());
        }
        way.set_down(true);
        other_way.set_down(true);
        if changes {
            let brings = async |_| Ok::<_, Infallible>(TokenSet::from(Token::new("cal")));
            tokens.get_or_acquire("cal", brings).await.unwrap();
            tokens.insert("mail", Token::new("mail")).await.unwrap();
            let _ = tokens.commit().await;
        }
        let ended = one.sign_out_user("ada").await.unwrap();
        assert_eq!(ended, Durability::Pending, "{what}");
        if reads {
            assert_eq!(access(&one.tokens(ada()), "graph").await, None, "{what}");
        }
        world.empty();
        way.set_down(false);
        other_way.set_down(false);
        drained(&one).await;
        eventually("L2 has heard of it", async || {
            one.stats().pending_sign_outs == 0
        })
        .await;
        for name in ["graph", "mail", "cal"] {
            let found = access(&one.tokens(ada()), name).await;
            assert_eq!(found, None, "{what}: {name}");
            let found = access(&other.tokens(ada()), name).await;
            assert_eq!(found, None, "{what}: {name} elsewhere");
            assert_eq!(world.stored(name).await, None, "{what}: {name} in L2");
        }
    }
}

/// Two instances; the one has a change under way while the other signs the user out. Before step
/// `at` the `key`-th key of L2 is removed. Returns whether there was such a key.
async fn sign_out_and_lose(key: usize, at: usize) -> bool {
    let world = World::new();
    let (one, way) = world.instance();
    let (other, _) = world.instance();
    let mut found = false;
    let mut lose_before = |step: usize| {
        if step == at {
            let id = world.server.partitions().get(key).cloned();
            found = id.is_some();
            id.iter().for_each(|id| world.server.forget(id));
        }
    };
    sign_in(&one).await;
    lose_before(1);
    let _ = access(&other.tokens(ada()), "graph").await;
    lose_before(2);
    way.hang();
    let late = one.tokens(ada());
    let _ = late.insert("mail", Token::new("late")).await;
    let committing = late.clone();
    let commit = tokio::spawn(async move { committing.commit().await });
    let started = async || way.groups() > 1 || commit.is_finished();
    eventually("it is under way", started).await;
    lose_before(3);
    assert_stored(other.tokens(ada()).sign_out().await.unwrap());
    lose_before(4);
    way.wake();
    let _ = commit.await.unwrap();
    drained(&one).await;
    lose_before(5);
    world.clock.advance(2 * MINUTE);
    // Without a feed a number that has been begun elsewhere is found within ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let what = format!("key {key} lost before step {at}");
    for name in ["graph", "mail"] {
        assert_eq!(world.stored(name).await, None, "{what}: {name} in L2");
        let found = access(&one.tokens(ada()), name).await;
        assert_eq!(found, None, "{what}: {name}");
    }
    assert!(!world.has_refresh_token().await, "{what}");
    lose_before(6);
    let again = late.insert("mail", Token::new("later")).await;
    if again.is_ok() {
        let _ = late.commit().await;
    }
    assert_eq!(
        world.stored("mail").await,
        None,
        "{what}: a handle from before"
    );
    found
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_lost_brings_no_signed_out_token_back() {
    for at in 1..=6 {
        let mut key = 0;
        while sign_out_and_lose(key, at).await {
            key += 1;
        }
        assert!(key >= 2, "the marker and the partition");
    }
}

#[tokio::test]
async fn a_partition_that_is_removed_by_hand_has_ended() {
    for later in [Duration::ZERO, 5 * MINUTE] {
        let world = World::new();
        let (cache, _) = world.instance();
        sign_in(&cache).await;
        let tokens = cache.tokens(ada());
        assert_eq!(access(&tokens, "graph").await.as_deref(), Some("graph"));
        let id = cache.partition_id(&ada()).await.unwrap();
        world.server.forget(&id);
        world.clock.advance(later);
        let ended = match tokens.insert("mail", Token::new("mail")).await {
            Ok(()) => tokens.commit().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(matches!(ended, Err(Error::SignedOut)), "{ended:?}");
        for name in ["graph", "mail"] {
            assert_eq!(world.stored(name).await, None);
            assert_eq!(access(&cache.tokens(ada()), name).await, None);
        }
        // The next sign-in is one.
        sign_in(&cache).await;
        assert_eq!(world.stored("graph").await.as_deref(), Some("graph"));
    }
}

#[tokio::test]
async fn a_repeated_commit_never_overwrites_a_later_one() {
    for others in [1, 15, 16, 17, 40] {
        let world = World::new();
        let ((one, way), (other, _)) = (world.instance(), world.instance());
        sign_in(&one).await;
        way.set_losing_answers(true);
        let tokens = one.tokens(ada());
        tokens.insert("shared", Token::new("old")).await.unwrap();
        let _ = tokens.commit().await;
        way.set_down(true);
        let theirs = other.tokens(ada());
        theirs.insert("shared", Token::new("new")).await.unwrap();
        assert_stored(theirs.commit().await.unwrap());
        for number in 1..others {
            let name = format!("other-{number}");
            theirs.insert(name, Token::new("x")).await.unwrap();
            assert_stored(theirs.commit().await.unwrap());
        }
        way.set_losing_answers(false);
        way.set_down(false);
        drained(&one).await;
        let found = world.stored("shared").await;
        assert_eq!(found.as_deref(), Some("new"), "after {others} others");
    }
}

#[tokio::test]
async fn a_generation_that_l2_has_rightly_forgotten_ends_no_later_session() {
    let world = World::new();
    let instance =
        || world.instance_with(|builder| builder.lifetimes(Lifetimes::new().absolute(9 * HOUR)));
    let ((one, _), (other, _)) = (instance(), instance());
    sign_in(&one).await;
    let _ = one.tokens(ada()).sign_out().await.unwrap();
    world.clock.advance(16 * HOUR);
    sign_in(&one).await;
    // The session has reached its age, and the tombstone is gone.
    world.clock.advance(9 * HOUR + MINUTE);
    assert_eq!(access(&one.tokens(ada()), "graph").await, None);
    sign_in(&other).await;
    world.clock.advance(2 * MINUTE);
    let tokens = one.tokens(ada());
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("graph"));
    tokens.insert("mail", Token::new("mail")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    for name in ["graph", "mail"] {
        assert_eq!(world.stored(name).await.as_deref(), Some(name));
    }
    assert!(world.has_refresh_token().await);
}

#[tokio::test]
async fn a_sign_in_right_after_a_sign_out_elsewhere_is_kept() {
    for after in [0, 5, 30, 55, 61].map(Duration::from_secs) {
        let world = World::new();
        let ((one, _), (other, _)) = (world.instance(), world.instance());
        hears(&one).await;
        sign_in(&one).await;
        assert!(access(&one.tokens(ada()), "graph").await.is_some());
        let _ = other.tokens(ada()).sign_out().await.unwrap();
        eventually("it is told", async || {
            access(&one.tokens(ada()), "graph").await.is_none()
        })
        .await;
        world.clock.advance(after);
        let tokens = one.tokens(ada());
        tokens.insert("graph", Token::new("second")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let found = world.stored("graph").await;
        assert_eq!(found.as_deref(), Some("second"), "{after:?} later");
    }
}

#[tokio::test]
async fn the_first_change_of_a_handle_asks_l2_once() {
    let world = World::new();
    let (cache, way) = world.instance();
    sign_in(&cache).await;
    let asked = || way.loads() + way.looks();
    let tokens = cache.tokens(ada());
    let before = asked();
    for number in 0..5 {
        let name = format!("n{number}");
        tokens.insert(name, Token::new("x")).await.unwrap();
    }
    assert!(asked() <= before + 1);
    assert_eq!(access(&tokens, "n1").await.as_deref(), Some("x"));
    assert!(asked() <= before + 1);
}

#[tokio::test]
async fn a_handle_older_than_a_tombstone_writes_only_where_nothing_has_ended() {
    let cases = [
        (true, 1),
        (true, 25),
        (true, 100),
        (false, 25),
        (false, 100),
    ];
    let cases = cases
        .into_iter()
        .flat_map(|(ended, hours)| [true, false].map(|in_memory| (ended, hours, in_memory)));
    for (signed_out, hours, in_memory) in cases {
        let world = World::new();
        let small = |builder: tower_token_cache::Builder| match in_memory {
            true => builder,
            false => builder.l1(L1::disabled()),
        };
        let ((one, _), (other, _)) = (world.instance_with(small), world.instance());
        let held = one.tokens(ada());
        held.insert("graph", Token::new("old")).await.unwrap();
        assert_stored(held.commit().await.unwrap());
        // Where nothing is in memory, the handle learns only now what it has begun.
        held.insert("graph", Token::new("old")).await.unwrap();
        assert_stored(held.commit().await.unwrap());
        if signed_out {
            let _ = other.tokens(ada()).sign_out().await.unwrap();
        }
        world.clock.advance(hours * HOUR);
        let mut late = held.insert("graph", Token::new("late")).await;
        if late.is_ok() {
            late = held.commit().await.map(drop);
        }
        let refused = matches!(late, Err(Error::SignedOut));
        assert_eq!(
            refused, signed_out,
            "{hours} h later, in memory {in_memory}: {late:?}"
        );
        let found = world.stored("graph").await;
        assert_eq!(found.is_some(), !signed_out, "{hours} h later: {found:?}");
    }
}
