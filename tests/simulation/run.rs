//! One run: instances come and go, users do what they do, and things fail, all by a seed.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower_token_cache::mutation::{self, Mutation};
use tower_token_cache::{Acquisitions, BreakerState, L1, PartitionKey, TokenCache};

use super::client::Client;
use super::keys::Lost;
use super::model::BOUND;
use super::names::{ENTRIES, KEYS, PARTITIONS};
use super::provider::LONGEST;
use super::sql::Sql;
use super::store::SimStore;
use super::users::USERS;
use super::verdict::Read;
use super::world::{Fault, SILENCE, State, World};

/// What users and faults do in a run.
const STEPS: usize = 45;

/// How a run ended.
pub struct Outcome {
    pub violation: Option<String>,
    pub fingerprint: u64,
    pub log: Vec<String>,
    /// Refresh tokens redeemed, and milliseconds gone by.
    pub redemptions: u64,
    pub time: u64,
}

/// What can happen in a run.
struct Profile {
    instances: usize,
    feed: bool,
    l1: L1,
    store_fails: bool,
    line_fails: bool,
    loses_data: bool,
    crashes: bool,
    moves: bool,
    users: bool,
    /// What single keys it loses.
    keys: Lost,
    /// Session values are put and taken.
    values: bool,
    /// The store is an SQL database.
    sql: bool,
}

impl Profile {
    /// With what cannot be told apart left out: after a loss of data nobody knows what a user's epoch
    /// was, and links go with what is moved.
    fn consistent(self) -> Self {
        let keys = match self.loses_data {
            true => Lost::Nothing,
            false => self.keys,
        };
        let users = self.users || keys == Lost::User;
        let users = users && !self.loses_data && !matches!(keys, Lost::Marker | Lost::Session);
        Self {
            users,
            keys,
            moves: self.moves && !users && keys == Lost::Nothing,
            // It loses nothing.
            sql: self.sql && !self.loses_data && keys == Lost::Nothing,
            ..self
        }
    }
}

/// An instance that runs.
struct Life {
    number: usize,
    cache: TokenCache,
    tasks: Vec<JoinHandle<()>>,
}

struct Run {
    world: World,
    profile: Profile,
    lives: Vec<Life>,
    /// Requests that take their time.
    old: Vec<Client>,
    /// When the store loses everything, and who may have what of it.
    loss: Option<(u64, usize, usize)>,
}

/// One run of an engine that may be broken on purpose.
pub fn run(seed: u64, verbose: bool, mutation: Option<Mutation>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    tower_token_cache::seed_randomness(Some(seed));
    mutation::choose(mutation);
    let outcome = runtime.block_on(async {
        let world = World::new(seed, verbose);
        let keeper = tokio::spawn(world.clone().keep_time());
        let mut run = Run::new(world.clone(), seed, mutation);
        run.go().await;
        keeper.abort();
        let mut state = world.lock();
        Outcome {
            violation: state.violation.take(),
            fingerprint: state.log.fingerprint,
            log: std::mem::take(&mut state.log.lines),
            redemptions: state.provider.count,
            time: state.now,
        }
    });
    tower_token_cache::seed_randomness(None);
    mutation::choose(None);
    outcome
}

/// Whether an engine that is broken in this way shows it with an SQL database alone.
fn needs_sql(mutation: Mutation) -> bool {
    matches!(
        mutation,
        Mutation::RefusalTakenForSuccess
            | Mutation::LateCommitForgotten
            | Mutation::LateNumbersSkipped
    )
}

async fn pause(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

impl Run {
    fn new(world: World, seed: u64, mutation: Option<Mutation>) -> Self {
        let mut state = world.lock();
        let rng = &mut state.rng;
        let l1 = match rng.below(6) {
            0 => L1::disabled(),
            1 | 2 => L1::new().max_bytes(2500),
            _ => L1::new(),
        };
        let profile = Profile {
            instances: rng.below(3) + 2,
            feed: rng.percent(85),
            l1: l1
                .max_staleness(Duration::from_secs(4))
                .revalidate_every(Duration::from_secs(2)),
            store_fails: rng.percent(60),
            line_fails: rng.percent(50),
            loses_data: rng.percent(20),
            crashes: rng.percent(40),
            moves: rng.percent(20),
            users: rng.percent(30),
            keys: match rng.below(10) {
                0 => Lost::Marker,
                1 => Lost::Session,
                2 => Lost::User,
                _ => Lost::Nothing,
            },
            // An engine that is broken elsewhere is looked for without them.
            values: mutation.is_none() && seed % 4 == 3,
            sql: match mutation {
                None => seed % 4 >= 2,
                Some(mutation) => needs_sql(mutation),
            },
        }
        .consistent();
        if profile.line_fails {
            state.line.repeats = state.rng.between(0, 30);
            state.line.longest = [5, 50, 500][state.rng.below(3)];
        } else {
            state.line.longest = 3;
        }
        drop(state);
        // What is rare is looked for where it can happen.
        let profile = match mutation {
            _ if std::env::var("SIM_FOCUS").is_ok()
                || matches!(
                    mutation,
                    Some(Mutation::RecoveryAfterSignOut | Mutation::VersionsWithoutHistory)
                ) =>
            {
                Profile {
                    feed: true,
                    l1: L1::new(),
                    store_fails: false,
                    line_fails: false,
                    loses_data: true,
                    sql: false,
                    crashes: false,
                    ..profile
                }
            }
            Some(Mutation::LinksIgnored) => Profile {
                users: true,
                keys: Lost::Nothing,
                loses_data: false,
                moves: false,
                ..profile
            },
            Some(Mutation::NumberIgnored) => Profile {
                keys: Lost::Marker,
                users: false,
                loses_data: false,
                moves: false,
                crashes: true,
                ..profile
            },
            Some(Mutation::LifeIgnored) => Profile {
                keys: Lost::Session,
                users: false,
                loses_data: false,
                moves: false,
                ..profile
            },
            Some(Mutation::TakeWithoutCompareAndSet) => Profile {
                values: true,
                ..profile
            },
            Some(Mutation::LateNumbersSkipped) => Profile {
                feed: true,
                l1: L1::new(),
                store_fails: false,
                line_fails: false,
                ..profile
            },
            _ => profile,
        };
        world.lock().sql = profile.sql.then(|| {
            let logs = mutation == Some(Mutation::LateNumbersSkipped);
            Sql::new(seed, logs)
        });
        Self {
            world,
            profile,
            lives: Vec::new(),
            old: Vec::new(),
            loss: None,
        }
    }

    async fn go(&mut self) {
        for _ in 0..self.profile.instances {
            self.start();
        }
        pause(1500).await;
        let [sleeps_at, set_at] = {
            let rng = &mut self.world.lock().rng;
            [(); 2].map(|()| rng.below(STEPS))
        };
        for at in 0..STEPS {
            if at == sleeps_at {
                self.send_to_sleep();
            }
            if at == set_at {
                self.set_a_clock();
            }
            self.step().await;
            if self.profile.values {
                self.use_values();
            }
            if self.profile.sql {
                self.trouble_database();
            }
            let wait = {
                let rng = &mut self.world.lock().rng;
                match rng.below(12) {
                    0 => rng.between(1000, 4000),
                    1..=5 => rng.between(20, 400),
                    _ => rng.between(0, 15),
                }
            };
            pause(wait).await;
            self.lose_in_time();
            for life in &self.lives {
                // L1 evicts what is too much.
                let stats = life.cache.stats();
                if stats.l2_state != BreakerState::Closed {
                    self.world.lock().disturb(life.number);
                }
            }
            if self.world.lock().violation.is_some() {
                break;
            }
        }
        if self.world.lock().violation.is_none() {
            self.heal().await;
            self.look_around().await;
        }
        self.end().await;
    }

    fn start(&mut self) {
        let number = self.world.lock().start();
        let builder = TokenCache::builder(SimStore {
            world: self.world.clone(),
            instance: number,
            has_feed: self.profile.feed,
            is_sql: self.profile.sql,
        })
        .l1(self.profile.l1.clone())
        .clock(self.world.lock().instances[number].clock.clone())
        .acquisitions(
            Acquisitions::new()
                .lease_ttl(Duration::from_secs(2))
                .refresh_before(Duration::from_secs(1))
                .timeout(Duration::from_millis(LONGEST)),
        )
        .runtime(tokio::runtime::Handle::current());
        let life = Life {
            number,
            cache: builder.build().expect("valid"),
            tasks: Vec::new(),
        };
        self.world.lock().note(format_args!("i{number} starts"));
        self.lives.push(life);
    }

    async fn step(&mut self) {
        let (number, kind) = {
            let mut state = self.world.lock();
            let place = state.rng.below(self.lives.len());
            (place, state.rng.below(100))
        };
        match kind {
            0..=10 if self.profile.store_fails => self.break_store(),
            11..=15 if self.profile.line_fails => self.cut(number),
            16 if self.profile.loses_data => self.lose_data(false),
            16 if self.profile.keys != Lost::Nothing => {
                let kind = self.profile.keys;
                self.world.lock().lose_key(kind);
            }
            17..=18 if self.profile.crashes => self.crash(number),
            19..=20 if self.profile.crashes => self.shut_down(number).await,
            21..=22 if self.profile.loses_data => self.sign_out_in_a_gap(number).await,
            23 => self.send_to_sleep(),
            24 => self.set_a_clock(),
            25..=49 => self.crowd(),
            _ => self.use_it(number, None),
        }
    }

    /// Puts a session value now and then, and several instances take it.
    fn use_values(&mut self) {
        let (kind, number, takers) = {
            let rng = &mut self.world.lock().rng;
            (rng.below(6), rng.below(PARTITIONS), rng.between(1, 4))
        };
        let count = match kind {
            0 => 1,
            1 => takers,
            _ => return,
        };
        for _ in 0..count {
            let (place, gives_up) = {
                let rng = &mut self.world.lock().rng;
                let gives_up = rng.percent(20).then(|| rng.between(1, 400));
                (rng.below(self.lives.len()), gives_up)
            };
            let life = &mut self.lives[place];
            let client = Client::new(&self.world, &life.cache, life.number, number);
            let task = match kind {
                0 => tokio::spawn(client.put_value()),
                _ => tokio::spawn(client.take_value(gives_up)),
            };
            life.tasks.push(task);
        }
    }

    /// Several at once, of one partition.
    fn crowd(&mut self) {
        let (number, entry, count) = {
            let rng = &mut self.world.lock().rng;
            (
                rng.below(PARTITIONS),
                rng.below(KEYS.len()),
                rng.between(2, 6),
            )
        };
        for _ in 0..count {
            let place = self.world.lock().rng.below(self.lives.len());
            self.use_it(place, Some((number, entry)));
        }
    }

    /// An instance does not hear of a sign-out, and the store loses it later.
    async fn sign_out_in_a_gap(&mut self, place: usize) {
        let (number, other, after) = {
            let rng = &mut self.world.lock().rng;
            let other = rng.below(self.lives.len());
            (rng.below(PARTITIONS), other, rng.between(7000, 9000))
        };
        if self.sleeps(place) || self.sleeps(other) {
            return;
        }
        let client = |life: &Life| Client::new(&self.world, &life.cache, life.number, number);
        let (reader, writer, ends) = (
            client(&self.lives[place]),
            client(&self.lives[other]),
            client(&self.lives[other]),
        );
        let task = tokio::spawn(async move {
            writer.write(0, true, true).await;
            reader.reload(0).await;
        });
        self.lives[place].tasks.push(task);
        pause(400).await;
        if self.is_known(place) {
            self.cut_for(place, 300, true);
        }
        self.lives[other].tasks.push(tokio::spawn(ends.sign_out()));
        if self.loss.is_none() {
            let at = self.world.lock().now + after;
            self.loss = Some((at, self.lives[place].number, number));
        }
    }

    /// The store loses everything if it is time, and whoever may have it looks later.
    fn lose_in_time(&mut self) {
        let now = self.world.lock().now;
        let Some((_, by, number)) = self.loss.take_if(|(at, ..)| *at <= now) else {
            return;
        };
        self.lose_data(true);
        if let Some(life) = self.lives.iter_mut().find(|life| life.number == by) {
            let client = Client::new(&self.world, &life.cache, by, number);
            life.tasks.push(tokio::spawn(async move {
                pause(2500).await;
                client.look(0).await;
            }));
        }
    }

    fn use_it(&mut self, place: usize, of: Option<(usize, usize)>) {
        if self.sleeps(place) {
            return;
        }
        let life = &self.lives[place];
        let mut by = life.number;
        let mut state = self.world.lock();
        let rng = &mut state.rng;
        let (number, entry) = (rng.below(PARTITIONS), rng.below(KEYS.len()));
        let (number, entry) = of.unwrap_or((number, entry));
        let kind = rng.below(100);
        let (commits, gives_up) = (
            rng.percent(50),
            rng.percent(20).then(|| rng.between(1, 400)),
        );
        let strict = rng.percent(10);
        let target = (number + 1 + rng.below(PARTITIONS - 1)) % PARTITIONS;
        let kept = rng.below(4);
        let any = rng.below(ENTRIES);
        let who = rng.below(USERS);
        drop(state);
        let mut client = Client::new(&self.world, &life.cache, life.number, number);
        if strict {
            client = client.strict();
        }
        self.old.retain(|old| {
            let state = self.world.lock();
            let lives = state.instances[old.by].ended.is_none() && state.sleeps_for(old.by) == 0;
            lives && old.began + 20_000 > state.now
        });
        let task = match kind {
            0..=9 => tokio::spawn(client.reload(any)),
            10..=29 => tokio::spawn(async move { client.look(any).await }),
            30..=44 => tokio::spawn(client.write(entry, false, commits)),
            50..=54 if self.profile.users => tokio::spawn(client.sign_in_as(entry, who)),
            45..=54 => tokio::spawn(client.write(entry, true, commits)),
            55..=59 => tokio::spawn(client.remove(entry)),
            60..=79 => tokio::spawn(client.acquire(entry, false, gives_up)),
            80..=84 => tokio::spawn(client.acquire(entry, true, gives_up)),
            85..=87 if self.profile.users => tokio::spawn(client.sign_out_user(who)),
            85..=90 => tokio::spawn(client.sign_out()),
            91..=92 if self.profile.moves => tokio::spawn(client.move_to(target, gives_up)),
            93..=95 => {
                self.old.push(client.clone());
                tokio::spawn(async move { client.look(any).await })
            }
            _ => match self.old.get(kept).cloned() {
                Some(old) => {
                    by = old.by;
                    tokio::spawn(old.write(entry, false, commits))
                }
                None => tokio::spawn(async move { client.look(any).await }),
            },
        };
        if let Some(life) = self.lives.iter_mut().find(|life| life.number == by) {
            life.tasks.push(task);
            life.tasks.retain(|task| !task.is_finished());
        }
    }

    fn break_store(&self) {
        let mut state = self.world.lock();
        let fault = [Fault::Down, Fault::Mute, Fault::Hung][state.rng.below(3)];
        let length = match state.rng.below(3) {
            0 => state.rng.between(1000, 8000),
            _ => state.rng.between(5, 600),
        };
        let everybody = state.rng.percent(40);
        let one = state.rng.below(self.lives.len());
        state.note(format_args!(
            "the store is {fault:?} for {length} ms, for {} of {one}",
            if everybody { "all" } else { "one" }
        ));
        let until = state.now + length;
        for (place, life) in self.lives.iter().enumerate() {
            if everybody || place == one {
                let instance = &mut state.instances[life.number];
                (instance.fault, instance.fault_until) = (fault, until);
            }
        }
    }

    fn trouble_database(&self) {
        let takes_over = {
            let mut state = self.world.lock();
            state.trouble(self.profile.store_fails)
        };
        if takes_over {
            self.go_down();
        }
    }

    /// The store is down for all, and the feed goes with it.
    fn go_down(&self) {
        {
            let mut state = self.world.lock();
            let down = state.rng.between(50, 1500);
            let until = state.now + down;
            for life in &self.lives {
                let instance = &mut state.instances[life.number];
                (instance.fault, instance.fault_until) = (Fault::Down, until);
                // A line that is held up ends as well, where the store that it leads to has gone.
                instance.held_up_until = 0;
            }
        }
        for place in 0..self.lives.len() {
            self.cut_for(place, 300, true);
        }
    }

    /// Whether others have heard of this instance, and notice that they no longer do.
    fn is_known(&self, place: usize) -> bool {
        let state = self.world.lock();
        state.now >= state.instances[self.lives[place].number].started + 4500
    }

    fn sleeps(&self, place: usize) -> bool {
        self.world.lock().sleeps_for(self.lives[place].number) > 0
    }

    fn send_to_sleep(&self) {
        if let Some(number) = self.one_awake() {
            self.world.lock().sleep(number);
        }
    }

    fn set_a_clock(&self) {
        if let Some(number) = self.one_awake() {
            self.world.lock().step_clock(number);
        }
    }

    fn one_awake(&self) -> Option<usize> {
        let mut state = self.world.lock();
        let awake = self.lives.iter().map(|life| life.number);
        let awake: Vec<_> = awake.filter(|one| state.sleeps_for(*one) == 0).collect();
        let place = state.rng.below(awake.len().max(1));
        awake.get(place).copied()
    }

    fn cut(&self, place: usize) {
        if !self.is_known(place) {
            return;
        }
        let (length, ends) = {
            let rng = &mut self.world.lock().rng;
            (rng.between(10, 9000), rng.percent(60))
        };
        self.cut_for(place, length, ends);
    }

    /// The connection ends, or nothing comes over it.
    fn cut_for(&self, place: usize, length: u64, ends: bool) {
        let number = self.lives[place].number;
        let mut state = self.world.lock();
        let now = state.now;
        let instance = &mut state.instances[number];
        if instance.cut || instance.held_up_until > now {
            return;
        }
        if !ends {
            instance.held_up_until = now + length;
            state.hears_nothing(number, now + length);
            state.note(format_args!("i{number} hears nothing for {length} ms"));
            return;
        }
        instance.cut = true;
        instance.redraw.notify_waiters();
        state.hears_nothing(number, now + length);
        state.note(format_args!("i{number} is cut off for {length} ms"));
        state.later(
            length,
            Box::new(move |state| {
                state.instances[number].cut = false;
                state.note(format_args!("i{number} is no longer cut off"));
            }),
        );
    }

    fn lose_data(&self, everything: bool) {
        let everything = {
            let mut state = self.world.lock();
            let last = state.rng.between(1, 3000);
            let everything = everything || state.rng.percent(50);
            (!everything).then_some(last)
        };
        self.go_down();
        self.world.lock().lose(everything);
    }

    fn crash(&mut self, place: usize) {
        if !self.is_known(place) {
            return;
        }
        {
            let mut state = self.world.lock();
            let number = self.lives[place].number;
            let now = state.now;
            state.instances[number].ended = Some(now);
            state.instances[number].redraw.notify_waiters();
            state.note(format_args!("i{number} crashes"));
        }
        let life = self.lives.remove(place);
        self.old.retain(|old| old.by != life.number);
        for task in &life.tasks {
            task.abort();
        }
        self.start();
    }

    async fn shut_down(&mut self, place: usize) {
        if !self.is_known(place) || self.sleeps(place) {
            return;
        }
        let life = self.lives.remove(place);
        self.old.retain(|old| old.by != life.number);
        for task in &life.tasks {
            task.abort();
        }
        let deadline = self.world.lock().rng.between(50, 6000);
        self.close(life, deadline).await;
        self.start();
    }

    /// Shuts an instance down; whether everything was written.
    async fn close(&self, life: Life, deadline: u64) -> bool {
        let start = self.world.lock().now;
        let report = life.cache.shutdown(Duration::from_millis(deadline)).await;
        let left = life.cache.stats().pending_changes;
        let mut state = self.world.lock();
        let number = life.number;
        state.note(format_args!("i{number} is shut down: {report:?}"));
        if report.abandoned != left {
            state.violated(format!(
                "i{number} reports {report:?}, and {left} changes are left"
            ));
        }
        if state.now - start > deadline + 60 {
            state.violated(format!(
                "i{number} took longer to shut down than {deadline} ms"
            ));
        }
        if report.abandoned == 0 {
            state.judge_shutdown(number);
        }
        let now = state.now;
        state.instances[number].ended = Some(now);
        state.instances[number].redraw.notify_waiters();
        report.abandoned == 0
    }

    /// All faults end, and everything is waited for.
    async fn heal(&mut self) {
        for life in &self.lives {
            self.world.awake(life.number).await;
        }
        {
            let mut state = self.world.lock();
            state.note(format_args!("everything heals"));
            for instance in &mut state.instances {
                (instance.fault, instance.fault_until) = (Fault::None, 0);
            }
            if let Some(sql) = &mut state.sql {
                sql.heal();
            }
        }
        for life in &mut self.lives {
            for task in life.tasks.drain(..) {
                task.await.expect("no panic");
            }
        }
        let probe = PartitionKey::session("probe").expect("a valid id");
        for _ in 0..90 {
            pause(1000).await;
            let mut well = true;
            for life in &self.lives {
                let _ = life.cache.tokens(probe.clone()).get("t").await;
                let stats = life.cache.stats();
                well &= stats.pending_changes == 0
                    && stats.l2_state == BreakerState::Closed
                    && stats.feed_alive != Some(false);
            }
            if well {
                return pause(BOUND).await;
            }
        }
        for life in &self.lives {
            let stats = life.cache.stats();
            self.world
                .lock()
                .violated(format!("i{} does not recover: {stats:?}", life.number));
        }
    }

    /// Everything is well and quiet.
    async fn look_around(&mut self) {
        if self.world.lock().model.marker_lost {
            // As long may it take until everybody has looked for the number.
            pause(65_000).await;
        }
        let lost = |state: &State| state.model.partitions.iter().any(|one| one.tainted);
        if lost(&self.world.lock()) {
            // Whoever finds that L2 has lost something writes it again.
            for life in &self.lives {
                for number in 0..PARTITIONS {
                    self.compared_read(life, number, 0).await;
                }
            }
            pause(BOUND).await;
        }
        for life in &self.lives {
            for number in 0..PARTITIONS {
                for entry in 0..ENTRIES {
                    let read = self.compared_read(life, number, entry).await;
                    if let Some(read) = read {
                        self.world.lock().judge_last_read(&read);
                    }
                }
            }
        }
        self.world.lock().judge_end();
    }

    /// A read that was compared with L2.
    async fn compared_read(&self, life: &Life, number: usize, entry: usize) -> Option<Read> {
        let client = Client::new(&self.world, &life.cache, life.number, number);
        let mut read = client.read(entry).await;
        // One slow answer, and it may have gone on with what it had.
        for _ in 0..5 {
            if read.as_ref().is_some_and(|read| !read.compared) {
                pause(SILENCE).await;
                read = client.read(entry).await;
            }
        }
        read
    }

    async fn end(&mut self) {
        let failed = self.world.lock().violation.is_some();
        for life in std::mem::take(&mut self.lives) {
            for task in &life.tasks {
                task.abort();
            }
            let number = life.number;
            if !failed && !self.close(life, 10_000).await {
                self.world
                    .lock()
                    .violated(format!("i{number} could not write everything"));
            }
        }
        self.old.clear();
        if failed {
            return;
        }
        // The longest that a task of a dropped cache lives: one that sweeps L1.
        pause(61_000).await;
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        if tasks > 1 {
            self.world
                .lock()
                .violated(format!("{tasks} tasks are left, and not one"));
        }
    }
}
