//! A lease as its holder sees it: it is renewed while the work runs, and the work runs only while it is held.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::engine::acquire::gate::Gate;
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::partition::refresh::RefreshState;
use crate::engine::sync::allowance::Allowance;
use crate::engine::sync::until::Until;
use crate::key::{PartitionKey, TokenKey};
use crate::mutation::{self, Mutation};
use crate::race::{Either, race};
use crate::random;
use crate::store::{Lease, LeaseState, PartitionId};

/// The longest pause between two reads of L2 while another instance holds the lease.
pub(crate) const LAST_POLL: Duration = Duration::from_millis(250);

/// The longest time that a lease is kept beyond its need.
const LONGEST_KEEP: Duration = Duration::from_secs(1);

/// A lease in the store, as the one who asks for it sees it. Released on drop, if it may be held.
pub(crate) struct OwnLease {
    pub(super) engine: Arc<Engine>,
    lease: Lease,
    /// Until then this process holds it. A sleep of the machine ends it at once.
    until: Until,
    /// Whether this process may hold it, and must release it.
    held: bool,
}

/// What guarded work concerns.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) partition: &'a PartitionKey,
    pub(crate) name: &'a TokenKey,
    pub(crate) seen: &'a RefreshState,
    pub(crate) allowance: &'a Allowance,
}

/// How guarded work has ended.
pub(crate) enum Guarded<T> {
    Done(T),
    /// It was stopped, because another instance may be doing the same.
    Overtaken,
}

/// Work that can be guarded.
pub(crate) type GuardedFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The work panicked.
pub(crate) struct Panicked;

impl OwnLease {
    /// The lease of the entry `name`, for a session of this generation: work for a session that was signed
    /// out does not keep the next session waiting.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        partition: PartitionId,
        name: &TokenKey,
        generation: u64,
        owner: [u8; 16],
    ) -> Self {
        let entry = match generation {
            0 => engine.l2.entry_id(name.as_ref()),
            _ => {
                let name: &str = name.as_ref();
                let name = format!("\u{1}lease\u{1}{generation}\u{1}{name}");
                engine.l2.entry_id(&name)
            }
        };
        Self {
            engine: engine.clone(),
            lease: Lease {
                partition,
                entry,
                owner,
            },
            until: Until::now(&engine.clock),
            held: false,
        }
    }

    /// Asks for the lease once: it is granted, or another owner has it for a while. May be repeated.
    pub(crate) async fn request(&mut self) -> Result<LeaseState, L2Error> {
        let ttl = self.engine.acquisitions.lease_ttl;
        let asked = Until::now(&self.engine.clock);
        if mutation::is(Mutation::LeaseNotTaken) {
            self.until = asked.plus(ttl);
            return Ok(LeaseState::Granted);
        }
        // If the reply is lost, the lease may have been granted.
        self.held = true;
        let state = self.engine.l2.acquire_lease(&self.lease, ttl).await?;
        match state {
            LeaseState::Granted => self.until = asked.plus(ttl),
            LeaseState::Held { .. } => self.held = false,
        }
        Ok(state)
    }

    /// Runs `work` while this lease is held, and renews the lease. A process that was paused for longer than
    /// its lease notices that before the work is polled again. Then the work waits until no other owner has
    /// the lease, and continues only if L2 has the entry that it concerns as it was seen.
    pub(crate) async fn guard<T>(
        &mut self,
        mut work: GuardedFuture<'_, T>,
        about: About<'_>,
        gate: &Gate,
    ) -> Guarded<Result<T, Panicked>> {
        let (engine, lease) = (self.engine.clone(), self.lease.clone());
        let ttl = engine.acquisitions.lease_ttl;
        loop {
            let until = self.until.clone();
            gate.allow_until(Some(until.clone()));
            let renewal = Box::pin(async {
                sleep_until(until.at() - ttl * 2 / 3).await;
                let asked = Until::now(&engine.clock);
                // Past its end the lease is taken again, and the work stands still until then.
                let renewed = match mutation::is(Mutation::LeaseNotRenewed) {
                    true => Ok(Ok(true)),
                    false => timeout_at(until.at(), engine.l2.renew_lease(&lease, ttl)).await,
                };
                (asked, renewed.unwrap_or_else(|_| Err(L2Error::lost())))
            });
            let (asked, renewed) = match race(renewal, step(&mut work, &until)).await {
                Either::First(renewal) => renewal,
                Either::Second(done) => return Guarded::Done(done),
            };
            match renewed {
                Ok(true) => self.until = asked.plus(ttl),
                Err(_) if !until.is_over() => {
                    let pause = sleep_until(until.at().min(Instant::now() + ttl / 10));
                    if let Either::Second(done) = race(pause, step(&mut work, &until)).await {
                        return Guarded::Done(done);
                    }
                }
                _ => {
                    // L2 may have lost the lease before its end, and another owner may have it.
                    gate.shut();
                    match Box::pin(self.regain(about)).await {
                        Ok(true) => {}
                        Ok(false) => return Guarded::Overtaken,
                        // L2 cannot be reached from here. What has begun continues: its answer may be the only
                        // successor of a refresh token that is spent.
                        Err(failure) => {
                            gate.allow_without_lease(failure);
                            return Guarded::Done(run(work).await);
                        }
                    }
                }
            }
        }
    }

    /// Renews the lease until `work` ends, which continues whatever becomes of the lease.
    pub(crate) async fn renew_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        let (engine, ttl) = (&self.engine, self.engine.acquisitions.lease_ttl);
        let until = &mut self.until;
        let lease = &self.lease;
        let renewal = Box::pin(async {
            loop {
                sleep_until(until.at() - ttl * 2 / 3).await;
                let asked = Until::now(&engine.clock);
                match engine.l2.renew_lease(lease, ttl).await {
                    Ok(true) => *until = asked.plus(ttl),
                    Err(_) if !until.is_over() => sleep(ttl / 10).await,
                    _ => return std::future::pending::<()>().await,
                }
            }
        });
        match race(renewal, Box::pin(work)).await {
            Either::First(()) => unreachable!("it is pending"),
            Either::Second(done) => done,
        }
    }

    /// Takes an expired lease again. Returns whether the entry is unchanged. While another owner has the
    /// lease, this waits: if that owner fails, the tokens that the provider has given here may be the only
    /// ones left.
    async fn regain(&mut self, about: About<'_>) -> Result<bool, L2Error> {
        let (engine, allowance) = (self.engine.clone(), about.allowance);
        let pause = (engine.acquisitions.lease_ttl / 10).min(LAST_POLL);
        loop {
            let asked = async {
                let state = self.request().await?;
                Ok::<_, L2Error>((state, self.is_untouched(about).await?))
            };
            let answer = engine.wait_for_busy_l2(allowance, about.partition, asked);
            let answer = answer.await;
            let answer = answer.and_then(|answer| answer);
            if let Ok((state, _)) = &answer {
                allowance.pause(held_for(*state));
            }
            match answer {
                Ok((LeaseState::Held { remaining }, true)) => sleep(remaining.min(LAST_POLL)).await,
                Ok((_, untouched)) => return Ok(untouched),
                Err(_) if allowance.lasts() => {
                    allowance.spend_deferred();
                    // Where the time is up, the next question is the last one.
                    let _ = engine.wait_for_l2(allowance, sleep(pause)).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Whether L2 still has the entry as it was seen.
    async fn is_untouched(&self, about: About<'_>) -> Result<bool, L2Error> {
        let now = self.engine.look(about.partition, about.name, None).await?;
        let entry = about.seen.guarded_entry(about.name);
        let entry = self.engine.l2.entry_id(entry.as_ref());
        // A lower version means that the store has lost data.
        Ok(now.version(entry) <= about.seen.version(entry))
    }

    /// Holds the lease until L2 has the new tokens, so that no other instance redeems the spent refresh
    /// token. Holds only a `Weak` engine meanwhile.
    pub(crate) async fn keep_until_written(mut self, partition: PartitionKey, name: TokenKey) {
        self.held = false;
        let (lease, ttl) = (self.lease.clone(), self.engine.acquisitions.lease_ttl);
        let engine = Arc::downgrade(&self.engine);
        drop(self);
        loop {
            sleep((ttl / 3).min(LONGEST_KEEP)).await;
            let Some(engine) = engine.upgrade() else {
                return;
            };
            if engine.has_written(&partition, &name) {
                let _ = engine.l2.release_lease(&lease).await;
                return;
            }
            // Another owner may have it by now, or L2 may still be unavailable: neither can be helped.
            let _ = engine.l2.acquire_lease(&lease, ttl).await;
        }
    }

    pub(crate) async fn release(mut self) {
        self.held = false;
        // A lease that cannot be released expires.
        let _ = self.engine.l2.release_lease(&self.lease).await;
    }
}

impl Drop for OwnLease {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        let (engine, lease) = (self.engine.clone(), self.lease.clone());
        self.engine.runtime.spawn(async move {
            let _ = engine.l2.release_lease(&lease).await;
        });
    }
}

/// How long another owner has the lease.
pub(crate) fn held_for(state: LeaseState) -> Duration {
    match state {
        LeaseState::Granted => Duration::ZERO,
        LeaseState::Held { remaining } => remaining,
    }
}

/// A unique owner of leases.
pub(crate) fn owner(number: u64) -> [u8; 16] {
    let random = random::number().unwrap_or_default();
    (u128::from(random) << 64 | u128::from(number)).to_be_bytes()
}

/// Polls the work, but no longer than until `until`.
async fn step<T>(work: &mut GuardedFuture<'_, T>, until: &Until) -> Result<T, Panicked> {
    poll_fn(|context| match until.is_over() {
        false => poll(work, context),
        true => Poll::Pending,
    })
    .await
}

/// Runs work to its end, without a lease.
pub(crate) async fn finish<T>(work: GuardedFuture<'_, T>, gate: &Gate) -> Result<T, Panicked> {
    gate.allow_until(None);
    run(work).await
}

async fn run<T>(mut work: GuardedFuture<'_, T>) -> Result<T, Panicked> {
    poll_fn(|context| poll(&mut work, context)).await
}

fn poll<T>(
    work: &mut GuardedFuture<'_, T>,
    context: &mut std::task::Context<'_>,
) -> Poll<Result<T, Panicked>> {
    // Work that panicked is not polled again.
    match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
        Err(_) => Poll::Ready(Err(Panicked)),
    }
}
