//! What happens to a session at each step of an acquisition: a sign-out is final, no refresh token is
//! redeemed twice, and the newest is kept.

use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};
use tower_token_cache::{
    BoxError, Error, L1, Prior, Timestamp, Token, TokenCache, TokenSet, TokenStore, Tokens,
};

use common::issuer::{Issuer, set};
use common::stepping::SteppingStore;
use common::support::*;

/// Longer than anything takes where nothing hangs.
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Act {
    SignOut,
    SignOutOfUser,
    SignOutAndIn,
    Move,
}

impl Act {
    async fn happen(self, cache: &TokenCache) {
        let tokens = cache.tokens(session("s"));
        match self {
            Self::SignOut => drop(tokens.sign_out().await.unwrap()),
            Self::SignOutOfUser => drop(cache.sign_out_user("ada").await.unwrap()),
            Self::SignOutAndIn => {
                assert_stored(tokens.sign_out().await.unwrap());
                tokens.insert("graph", set(70)).await.unwrap();
                assert_stored(tokens.commit().await.unwrap());
            }
            Self::Move => drop(tokens.move_to(session("new")).await.unwrap()),
        }
    }
}

/// Two instances, of which one knows the session `s` of `ada`.
struct Scene {
    store: SteppingStore,
    here: TokenCache,
    there: TokenCache,
    /// From before whatever happens.
    handle: Tokens,
}

impl Scene {
    async fn new(l1: L1) -> Self {
        let store = SteppingStore::default();
        let on = |l1: L1| builder(store.clone()).l1(l1).build().unwrap();
        let (here, there) = (on(l1.clone()), on(l1));
        let tokens = there.tokens(session("s"));
        let old = Token::new("a0").with_expires_at(Timestamp::from_millis(1));
        let old = TokenSet::from(old).with_refresh_token("r0");
        tokens.insert("graph", old).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        tokens.link_user("ada").await.unwrap();
        let handle = here.tokens(session("s"));
        assert_eq!(access(&handle, "graph").await, None);
        Self {
            store,
            here,
            there,
            handle,
        }
    }

    /// Has `act` happen after each number of steps of an acquisition, and then looks.
    async fn each(
        act: Act,
        acquire: impl Fn(&Tokens) -> JoinHandle<Result<Token, Error>>,
        mut check: impl AsyncFnMut(&Self, &str),
    ) {
        for (name, l1, elsewhere) in [
            ("here", L1::new(), false),
            ("elsewhere, without L1", L1::disabled(), true),
        ] {
            let mut ended = false;
            for steps in 1.. {
                if ended {
                    break;
                }
                let scene = Self::new(l1.clone()).await;
                let acquiring = acquire(&scene.handle);
                for _ in 0..steps {
                    yield_now().await;
                }
                ended = acquiring.is_finished();
                let what = format!("{act:?} {name} after {steps} steps");
                act.happen(match elsewhere {
                    true => &scene.there,
                    false => &scene.here,
                })
                .await;
                let acquired = timeout(LONG, acquiring).await;
                let _ = acquired.unwrap_or_else(|_| panic!("{what}: hangs"));
                drained(&scene.here).await;
                check(&scene, &what).await;
            }
        }
    }
}

async fn refresh_token(store: impl TokenStore, sid: &str) -> Option<String> {
    let tokens = cache(store).tokens(session(sid));
    let found = tokens.refresh_token().await.unwrap().hit();
    found.map(|found| found.expose().to_owned())
}

async fn steps() {
    for _ in 0..10 {
        yield_now().await;
    }
}

/// With an acquire function that needs no refresh token.
#[tokio::test(start_paused = true)]
async fn what_is_acquired_for_a_session_that_is_over_is_kept_nowhere() {
    for act in [Act::SignOut, Act::SignOutOfUser, Act::Move] {
        let acquire = |tokens: &Tokens| {
            let tokens = tokens.clone();
            let call = async |_: Prior| {
                steps().await;
                Ok::<_, BoxError>(set(9))
            };
            tokio::spawn(async move { tokens.get_or_acquire("graph", call).await })
        };
        Scene::each(act, acquire, async |scene, what| {
            let found = stored(scene.store.clone(), "s", "graph").await;
            assert_eq!(found, None, "{what}");
            assert_eq!(
                refresh_token(scene.store.clone(), "s").await,
                None,
                "{what}"
            );
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_refresh_token_is_the_one_that_is_kept() {
    for (act, sid, newest) in [(Act::SignOutAndIn, "s", "r70"), (Act::Move, "new", "r1")] {
        let issuer = std::cell::RefCell::new(Issuer::new());
        let acquire = |tokens: &Tokens| {
            let (tokens, own) = (tokens.clone(), Issuer::new());
            *issuer.borrow_mut() = own.clone();
            let call = async move |prior: Prior| {
                steps().await;
                let answer = own.refresh(prior).await;
                steps().await;
                answer
            };
            tokio::spawn(async move { tokens.get_or_acquire("graph", call).await })
        };
        Scene::each(act, acquire, async |scene, what| {
            // What is under way for a session that is over may yet end.
            sleep(Duration::from_secs(2)).await;
            let issuer = issuer.borrow().clone();
            let newest = match issuer.calls() {
                0 if sid == "new" => "r0",
                _ => newest,
            };
            let found = refresh_token(scene.store.clone(), sid).await;
            assert_eq!(
                (found.as_deref(), issuer.reuses()),
                (Some(newest), 0),
                "{what}"
            );
        })
        .await;
    }
}
