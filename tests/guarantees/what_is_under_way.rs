//! Sign-outs of everybody and of one user against all that can be under way, on the instance that
//! signs out and on others, with the number in L2 that says so lost before or after: nothing from
//! before comes back, here or in an instance that starts later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tower_token_cache::{Durability, Error, Lookup, TokenCache, TokenSet};

use common::support::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Everybody,
    User,
}

/// What becomes of the number that says it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Kept,
    LostBefore,
    LostAfter,
}

/// A signed-in session, `s` of `ada`, in the memory of `here`.
struct Scene {
    store: TestStore,
    here: TokenCache,
    there: TokenCache,
    who: Who,
    number: Number,
    elsewhere: bool,
}

async fn sign_in(cache: &TokenCache, text: &str) {
    let tokens = cache.tokens(session("s"));
    let set = TokenSet::from(token(text)).with_refresh_token("r");
    tokens.insert("graph", set).await.unwrap();
    tokens.link_user("ada").await.unwrap();
}

impl Scene {
    async fn new(who: Who, number: Number, elsewhere: bool) -> Self {
        let store = TestStore::telling();
        let (here, there) = (cache(store.clone()), cache(store.clone()));
        sign_in(&here, "old").await;
        let _ = there.tokens(session("warm")).get("graph").await.unwrap();
        eventually("both hear", async || {
            [&here, &there].map(|cache| cache.stats().feed_alive) == [Some(true); 2]
        })
        .await;
        Self {
            store,
            here,
            there,
            who,
            number,
            elsewhere,
        }
    }

    /// Every combination.
    async fn each(mut act: impl AsyncFnMut(&Self)) {
        for who in [Who::Everybody, Who::User] {
            for number in [Number::Kept, Number::LostBefore, Number::LostAfter] {
                for elsewhere in [false, true] {
                    let scene = Self::new(who, number, elsewhere).await;
                    act(&scene).await;
                    scene.assert_over().await;
                }
            }
        }
    }

    fn lose_number(&self) {
        let epochs = self.store.epochs();
        match self.who {
            Who::Everybody => self.store.evict(&epochs[0]),
            Who::User => self.store.evict(&epochs[1]),
        }
        // The machine's clock goes on: what is begun now is not what was begun before.
        std::thread::sleep(Duration::from_millis(2));
    }

    async fn sign_out(&self) {
        if self.number == Number::LostBefore {
            self.lose_number();
        }
        let by = if self.elsewhere {
            &self.there
        } else {
            &self.here
        };
        match self.who {
            Who::Everybody => by.sign_out_all().await.unwrap(),
            Who::User => {
                let durability = by.sign_out_user("ada").await.unwrap();
                assert_eq!(durability, Durability::Stored);
            }
        }
        if self.number == Number::LostAfter {
            self.lose_number();
        }
    }

    fn name(&self) -> String {
        format!(
            "{:?} {:?} elsewhere {}",
            self.who, self.number, self.elsewhere
        )
    }

    /// Nothing is left of the session, anywhere, and stays away.
    async fn assert_over(&self) {
        let fresh = || cache(self.store.clone());
        for id in ["s", "new"] {
            let here = self.here.tokens(session(id));
            match self.elsewhere {
                false => assert!(
                    !here.get("graph").await.unwrap().is_hit(),
                    "{}",
                    self.name()
                ),
                true => {
                    eventually(&self.name(), async || {
                        !here.get("graph").await.unwrap().is_hit()
                    })
                    .await
                }
            }
            drained(&self.here).await;
            for name in ["graph", "mail"] {
                let found = fresh().tokens(session(id)).get(name).await.unwrap();
                assert_eq!(found, Lookup::Absent, "{id} {name} {}", self.name());
            }
            let refresh_token = fresh().tokens(session(id)).refresh_token().await.unwrap();
            assert_eq!(refresh_token, Lookup::Absent, "{}", self.name());
            let found = here.get("graph").await.unwrap();
            assert!(!found.is_hit(), "{id} later: {}", self.name());
        }
        // The next session of the same id has nothing of it.
        sign_in(&self.here, "next").await;
        assert_stored(self.here.tokens(session("s")).commit().await.unwrap());
        if self.number != Number::LostAfter || self.who == Who::User {
            let next = fresh().tokens(session("s"));
            assert_eq!(
                access(&next, "graph").await.as_deref(),
                Some("next"),
                "{}",
                self.name()
            );
            assert_eq!(access(&next, "mail").await, None, "{}", self.name());
        }
    }
}

#[tokio::test]
async fn nothing_at_all() {
    Scene::each(async |scene| scene.sign_out().await).await;
}

#[tokio::test]
async fn a_load() {
    Scene::each(async |scene| {
        let reader = match scene.elsewhere {
            // Which has the session in memory no more than a fresh one.
            false => &scene.here,
            true => &scene.there,
        };
        let tokens = reader.tokens(session("s"));
        let before = scene.store.loads();
        scene.store.hang_loads();
        let slow = tokio::spawn({
            let tokens = tokens.clone();
            async move { tokens.reload().await }
        });
        eventually("it is loading", async || scene.store.loads() > before).await;
        scene.sign_out().await;
        scene.store.wake_loads();
        let _ = slow.await.unwrap();
        let found = tokens.get("graph").await.unwrap();
        assert!(!found.is_hit(), "{}", scene.name());
    })
    .await;
}

#[tokio::test]
async fn a_flush_that_is_refused_until_then() {
    Scene::each(async |scene| {
        scene.store.set_refusing_commits(true);
        let tokens = scene.here.tokens(session("s"));
        tokens.insert("mail", token("late")).await.unwrap();
        assert_eq!(tokens.commit().await.unwrap(), Durability::Pending);
        scene.sign_out().await;
        scene.store.set_refusing_commits(false);
        drained(&scene.here).await;
    })
    .await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost() {
    Scene::each(async |scene| {
        scene.store.set_losing_answers(true);
        let tokens = scene.here.tokens(session("s"));
        tokens.insert("mail", token("late")).await.unwrap();
        assert_eq!(tokens.commit().await.unwrap(), Durability::Pending);
        scene.store.set_losing_answers(false);
        scene.sign_out().await;
        drained(&scene.here).await;
    })
    .await;
}

#[tokio::test]
async fn an_acquisition() {
    Scene::each(async |scene| {
        let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let tokens = scene.here.tokens(session("s"));
        let acquiring = tokio::spawn({
            let (asked, go_on) = (asked.clone(), go_on.clone());
            async move {
                let acquired = tokens.get_or_acquire("mail", async move |_| {
                    asked.notify_one();
                    go_on.notified().await;
                    Ok::<_, std::io::Error>(
                        TokenSet::from(token("late")).with_refresh_token("late"),
                    )
                });
                acquired.await
            }
        });
        asked.notified().await;
        scene.sign_out().await;
        go_on.notify_one();
        let acquired = acquiring.await.unwrap();
        if !scene.elsewhere {
            assert!(
                matches!(acquired, Err(Error::SignedOut)),
                "{}",
                scene.name()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_move() {
    Scene::each(async |scene| {
        let before = scene.store.relocates();
        scene.store.hang_moves();
        let old = scene.here.tokens(session("s"));
        let moving = tokio::spawn(async move { old.move_to(session("new")).await });
        eventually("it is moved", async || scene.store.relocates() > before).await;
        scene.sign_out().await;
        scene.store.wake_moves();
        let _ = moving.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_recovery_of_what_l2_has_lost() {
    Scene::each(async |scene| {
        let id = scene.here.partition_id(&session("s")).await.unwrap();
        scene.store.evict(&id);
        scene.sign_out().await;
        let tokens = scene.here.tokens(session("s"));
        let _ = tokens.get("graph").await.unwrap();
        tokens.reload().await.unwrap();
    })
    .await;
}

/// One group of changes takes several round-trips, and everybody is signed out between two of them.
#[tokio::test]
async fn a_flush_of_many_megabytes() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let user = |number: usize| session(&format!("user-{number}"));
    for number in 0..64 {
        let _ = here.tokens(user(number)).get("graph").await.unwrap();
    }
    for number in 0..4 {
        let blocker = here.tokens(session(&format!("blocker-{number}")));
        let _ = blocker.get("graph").await.unwrap();
    }
    store.hang();
    let before = store.groups();
    for number in 0..4 {
        let blocker = here.tokens(session(&format!("blocker-{number}")));
        blocker.insert("graph", token("again")).await.unwrap();
        eventually("a group of its own", async || {
            store.groups() > before + number
        })
        .await;
    }
    let large = "x".repeat(150_000);
    for number in 0..64 {
        let tokens = here.tokens(user(number));
        tokens.insert("graph", token(&large)).await.unwrap();
    }
    store.hold_group(2);
    let groups = store.groups();
    store.wake();
    eventually("the second round is under way", async || {
        store.groups() >= groups + 2
    })
    .await;
    here.sign_out_all().await.unwrap();
    store.release_group();
    drained(&here).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fresh = cache(store);
    for number in 0..64 {
        let found = fresh.tokens(user(number)).get("graph").await.unwrap();
        assert_eq!(found, Lookup::Absent, "{number}");
    }
}
