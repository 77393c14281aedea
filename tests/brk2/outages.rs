//! Values and moves on two instances of a Redis that is some milliseconds away, while futures are dropped.

use std::time::Duration;

use common::proxy::Proxy;
use common::random::SplitMix64;
use common::support::*;
use tokio::time::timeout;
use tower_token_cache::{Error, Lookup, RedisStore, TokenCache};

const HOUR: Duration = Duration::from_secs(3600);

struct Seen {
    given: usize,
    /// A take, or what ends a session, was dropped: the value may be gone.
    may_be_gone: bool,
}

impl Seen {
    fn see(&mut self, taken: Option<Result<Lookup<String>, Error>>) {
        match taken {
            Some(Ok(Lookup::Hit(_))) => self.given += 1,
            Some(Ok(Lookup::Unavailable)) | None => self.may_be_gone = true,
            Some(Ok(_) | Err(Error::SignedOut)) => {}
            Some(odd) => panic!("{odd:?}"),
        }
    }
}

/// take: "of any number of callers, on any instance, exactly one gets it"; "if this future is dropped" it may be gone.
async fn round(one: &TokenCache, two: &TokenCache, number: usize, mut draw: SplitMix64) -> String {
    let mut up_to = |millis: u64| Duration::from_micros(draw.draw() % (millis * 1000));
    let (old, new) = (
        session(&format!("old{number}")),
        session(&format!("new{number}")),
    );
    let putter = one.tokens(old.clone());
    putter.insert("api", token("t")).await.unwrap();
    putter.put("login", "state", HOUR).await.unwrap();
    assert_stored(putter.commit().await.unwrap());
    let how = number % 4;
    let drops = number.is_multiple_of(3);
    let mut seen = Seen {
        given: 0,
        may_be_gone: false,
    };
    let (waits, patience) = (up_to(40), up_to(60));
    let ending = async {
        tokio::time::sleep(waits).await;
        match how {
            0 | 1 => {
                let mover = if how == 0 { one } else { two };
                let mover = mover.tokens(old.clone());
                match drops {
                    true => timeout(patience, mover.move_to(new.clone()))
                        .await
                        .is_ok_and(|it| it.is_ok()),
                    false => mover.move_to(new.clone()).await.is_ok(),
                }
            }
            2 => two.tokens(old.clone()).sign_out().await.is_ok(),
            _ => true,
        }
    };
    let (wait_a, wait_b, patience) = (up_to(40), up_to(40), up_to(40));
    let take_a = async {
        tokio::time::sleep(wait_a).await;
        Some(one.tokens(old.clone()).take::<String>("login").await)
    };
    let take_b = async {
        tokio::time::sleep(wait_b).await;
        let tokens = two.tokens(old.clone());
        let take = tokens.take::<String>("login");
        match drops {
            true => timeout(patience, take).await.ok(),
            false => Some(take.await),
        }
    };
    let (_, a, b) = tokio::join!(ending, take_a, take_b);
    seen.see(a);
    seen.see(b);
    // What was dropped goes on for a while.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let signed_out = how == 2;
    for cache in [two, one] {
        for id in [&old, &new] {
            let taken = cache.tokens(id.clone()).take::<String>("login").await;
            if signed_out {
                assert!(!matches!(taken, Ok(Lookup::Hit(_))), "after the sign-out");
            }
            seen.see(Some(taken));
        }
    }
    match (seen.given, signed_out || seen.may_be_gone) {
        (1, _) | (0, true) => String::new(),
        (given, _) => format!("round {number}: how {how}, drops {drops}, given {given} times"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_given_once_while_its_session_moves() {
    let server = RedisServer::start();
    let (near, near_url) = Proxy::before(&server.url()).await;
    let (far, far_url) = Proxy::before(&server.url()).await;
    let one = cache(RedisStore::connect(&near_url).await.unwrap());
    let two = cache(RedisStore::connect(&far_url).await.unwrap());
    near.delay(5);
    far.delay(15);
    let mut wrong = Vec::new();
    let mut rounds = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(40) && wrong.is_empty() {
        let group = (rounds..rounds + 24).map(|number| {
            let (one, two) = (one.clone(), two.clone());
            tokio::spawn(
                async move { round(&one, &two, number, SplitMix64::new(number as u64)).await },
            )
        });
        for done in Vec::from_iter(group) {
            let said = done.await.unwrap();
            if !said.is_empty() {
                wrong.push(said);
            }
        }
        rounds += 24;
    }
    println!("{rounds} rounds");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
