//! Users who sign out, whose tokens expire, and whose tokens are refreshed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fleet::PROCESSES;
use super::load::{STRICT, World};
use super::random::Random;
use super::report::Kind;

/// What a user has when it signs out: in L2, in a request under way, and waiting for L2.
pub(crate) const LEFT_BEHIND: [&str; 3] = ["base", "late", "kept"];
/// How long others may take to notice anything while they cannot ask L2: as long as their breakers
/// stay open, which is 33 s at most, and then some.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// Users sign in at one process, are at work on the others, and sign out.
pub(crate) async fn sign_out(world: Arc<World>, number: usize, random: Random) {
    let mut looks = JoinSet::new();
    for serial in 0.. {
        if world.is_over() {
            break;
        }
        let session = format!("leaver-{number}-{serial}");
        let first = random.below(PROCESSES);
        let [own, slow, third] = [first, (first + 1) % PROCESSES, (first + 2) % PROCESSES];
        let put = world.put(Kind::Strict, own, &session, "base", ("t", 3600));
        if !put.await {
            sleep(Duration::from_millis(100)).await;
            continue;
        }
        for other in [slow, third] {
            world.get(Kind::Read, other, &session, "base").await;
        }
        let hold = random.millis(100, 800).as_millis();
        let late = format!("late?hold_ms={hold}");
        let late = tokio::spawn({
            let (world, session) = (world.clone(), session.clone());
            async move {
                world
                    .put(Kind::Slow, slow, &session, &late, ("t", 3600))
                    .await
            }
        });
        // Once it can be read, the change was made.
        for _ in 0..20 {
            let answer = world.get(Kind::Read, slow, &session, "late").await;
            if answer.is_some_and(|answer| answer.status == 200) {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        world
            .put(Kind::Kept, third, &session, "kept", ("t", 3600))
            .await;
        let headers = [&[("x-session", session.as_str())], &STRICT[..]].concat();
        let delete = ("DELETE", "/tokens");
        let answer = world.ask(Kind::SignOut, own, delete, &headers, "").await;
        let (stored, signed_out) = (answer.is_some_and(|it| it.status == 204), Instant::now());
        let left = (session.clone(), signed_out);
        world.signed_out.lock().unwrap().push(left);
        world
            .report
            .count("sign-outs that L2 did not take at once", (!stored).into());
        if stored {
            for process in 0..PROCESSES {
                let (world, session) = (world.clone(), session.clone());
                looks.spawn(notice(world, [own, process], session, signed_out));
            }
        }
        while looks.try_join_next().is_some() {}
        late.await.unwrap();
        sleep(random.millis(10, 100)).await;
    }
    looks.join_all().await;
}

/// Looks until the second process knows that the user has gone, and that this stays so.
async fn notice(world: Arc<World>, between: [usize; 2], session: String, signed_out: Instant) {
    let [own, process] = between;
    let mut gone = 0;
    while gone < 5 && signed_out.elapsed() < PATIENCE {
        let asked = Instant::now();
        let look = |name| world.get(Kind::Read, process, &session, name);
        let answers = join_all(LEFT_BEHIND.map(look)).await;
        let served = answers.iter().flatten().any(|answer| answer.status == 200);
        let absent = answers
            .iter()
            .flatten()
            .filter(|answer| answer.status == 404 && answer.level.as_deref() == Some("none"));
        if absent.count() == LEFT_BEHIND.len() {
            gone += 1;
            if gone == 1 {
                let weather = world.timeline.weather(between, signed_out, Instant::now());
                let time = asked.saturating_duration_since(signed_out);
                if process != own {
                    world.report.noticed(weather, time);
                }
            }
        } else if served && (gone > 0 || process == own) {
            if world.timeline.may_be_lost(signed_out, Instant::now()) {
                let what = "sign-outs that a failover has undone for a while";
                world.report.count(what, 1);
                return;
            }
            let how = format!("{session} at {between:?}, {}", world.since(signed_out));
            world.report.violated("signed out is signed out", how);
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    if gone == 0 && !world.timeline.may_be_lost(signed_out, signed_out) {
        let how = format!("{session} at {between:?}, {}", world.since(signed_out));
        world.report.violated("a sign-out is noticed at last", how);
    }
}

/// Tokens of a short life, read on every process until well after it.
pub(crate) async fn expire(world: Arc<World>, number: usize, random: Random) {
    for serial in 0.. {
        if world.is_over() {
            return;
        }
        let session = format!("mortal-{number}-{serial}");
        let life = 2;
        let kind = random.one_of(&[Kind::Strict, Kind::Kept]);
        let put = world.put(kind, random.below(PROCESSES), &session, "a", ("t", life));
        if !put.await {
            sleep(Duration::from_millis(100)).await;
            continue;
        }
        // Its life began before the answer.
        let end = Instant::now() + Duration::from_secs(life);
        while Instant::now() < end + Duration::from_millis(1500) {
            let process = random.below(PROCESSES);
            let asked = Instant::now();
            let answer = world.get(Kind::Read, process, &session, "a").await;
            let served = answer.is_some_and(|answer| answer.status == 200);
            if served && asked > end {
                let how = format!("{session} at process {process}, {}", world.since(end));
                world
                    .report
                    .violated("no token is served past its expiry", how);
            }
            world
                .report
                .count("reads after an expiry", (asked > end).into());
            sleep(random.millis(20, 120)).await;
        }
    }
}

/// After a failover that has lost a refresh token, until somebody finds that it is spent.
const REFRESHED_WITHIN: Duration = Duration::from_secs(20);

/// A user whose tokens live for seconds, refreshed where they are needed: under Strict on two
/// processes at a time, under Degrade on one, as nothing keeps two that cannot reach L2 apart.
pub(crate) async fn refresh(world: Arc<World>, user: String, only: Option<usize>, random: Random) {
    let policy = match only {
        Some(_) => "degrade",
        None => "strict",
    };
    let headers = [("x-session", user.as_str()), ("x-failure-policy", policy)];
    while !world.is_over() {
        let first = only.unwrap_or_else(|| random.below(PROCESSES));
        let second = only.unwrap_or((first + 1) % PROCESSES);
        let ask = |process| {
            let post = ("POST", "/acquire/graph");
            world.ask(Kind::Acquire, process, post, &headers, "")
        };
        let started = Instant::now();
        for answer in join_all([first, second].map(ask))
            .await
            .into_iter()
            .flatten()
        {
            let token = answer.body["access_token"].as_str();
            if token.is_some_and(|token| !world.provider.is_valid(&user, token))
                || answer.status == 401
            {
                let earlier = started.checked_sub(REFRESHED_WITHIN).unwrap_or(started);
                if world.timeline.may_be_lost(earlier, Instant::now()) {
                    let what = "users whose refresh token a failover has lost";
                    world.report.count(what, 1);
                } else {
                    let how = format!("{user}: {:?}, {}", answer.body, world.since(started));
                    let rule = "a refresh token is redeemed once";
                    world.report.violated(rule, how);
                }
                return;
            }
        }
        sleep(random.millis(50, 300)).await;
    }
}

/// Gives a user its first refresh token, in L2: whoever does not find it there asks for a token
/// without it.
pub(crate) async fn sign_in(world: &World, user: &str) {
    let refresh_token = world.provider.sign_in(user);
    let set = json!({"access_token": "old", "expires_in": 0, "refresh_token": refresh_token});
    let set = set.to_string();
    let headers = [&[("x-session", user)], &STRICT[..]].concat();
    let put = ("PUT", "/tokens/old");
    loop {
        let answer = world.ask(Kind::Strict, 0, put, &headers, &set);
        if answer.await.is_some_and(|answer| answer.status == 204) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What is left of those who have signed out.
pub(crate) fn none() -> serde_json::Value {
    json!([])
}
