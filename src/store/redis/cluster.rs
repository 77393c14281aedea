//! Commands to a cluster: each goes to the node that keeps its key.
//!
//! This is not done by the client of the `redis` crate (1.8), which is not made for slots that move
//! under load. It sends `ASKING` and what is to come right behind it one after the other on a
//! connection that all share, so that others come between; and whoever waits within it while it
//! looks for a slot may hold what it needs for that, and everybody waits until the time is up.

mod nodes;
mod slots;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{
    Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisResult, RetryMethod,
    ServerErrorKind, Value, cmd,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use self::nodes::Nodes;
pub(super) use self::slots::Place;
use self::slots::{Slots, slot, slot_of};
use super::access::Access;
use super::failure::{is_unanswered, no_connection, timed_out};
use crate::random;

/// How often a command that was sent away, or met a node that fails over, goes out again within
/// its time.
const RETRIES: u32 = 5;
/// Before it does; doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Between two looks at where the slots are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The nodes of a cluster.
///
/// Where the slots are is looked up at first, and again in the background when a command was sent
/// elsewhere or a node fails.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Inner>);

struct Inner {
    /// Those of the URL.
    seeds: Vec<Place>,
    nodes: Nodes,
    timeout: Duration,
    slots: Mutex<Arc<Slots>>,
    /// Why the last look has found none.
    failure: Mutex<Option<RedisError>>,
    /// When the last look began.
    looked: Mutex<Option<Instant>>,
    /// One at a time looks.
    looking: Arc<Semaphore>,
}

/// A command on its way.
struct Sent<'a> {
    command: &'a Cmd,
    slot: u16,
    place: Place,
    index: usize,
}

impl Cluster {
    /// Looks for the slots in the background.
    pub(super) fn new(
        nodes: Vec<ConnectionInfo>,
        access: &Access,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let seeds = nodes.iter().filter_map(place_of).collect();
        let like = nodes.into_iter().next().ok_or_else(|| {
            let kind = ErrorKind::InvalidClientConfig;
            RedisError::from((kind, "the URL names no server"))
        })?;
        let cluster = Self(Arc::new(Inner {
            seeds,
            nodes: Nodes::new(like, access.clone(), timeout),
            timeout,
            slots: Mutex::default(),
            failure: Mutex::default(),
            looked: Mutex::default(),
            looking: Arc::new(Semaphore::new(1)),
        }));
        cluster.look(None);
        Ok(cluster)
    }

    /// Sends all commands at once, those of a node in one message.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        let deadline = Instant::now() + self.0.timeout;
        let slots = self.slots(deadline).await?;
        let mut groups: Vec<Vec<Sent<'_>>> = Vec::new();
        let mut slot = 0;
        for (index, command) in pipeline.cmd_iter().enumerate() {
            // A command without a key goes where the one before it went.
            slot = slot_of(command).unwrap_or(slot);
            let place = slots.master(slot).ok_or_else(no_connection)?.clone();
            let sent = Sent {
                command,
                slot,
                place,
                index,
            };
            match groups.iter_mut().find(|group| group[0].place == sent.place) {
                Some(group) => group.push(sent),
                None => groups.push(vec![sent]),
            }
        }
        let groups = groups
            .into_iter()
            .map(|group| self.send_group(group, deadline));
        let mut answers: Vec<_> = join_all(groups).await.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// A number for the node that keeps this hash tag, as far as it is known: the same for as long as
    /// it does, whatever becomes of the others.
    pub(super) fn server(&self, tag: &[u8]) -> usize {
        let slots = self.0.slots.lock().clone();
        slots.master(slot(tag)).map_or(0, |master| {
            let mut hasher = DefaultHasher::new();
            master.hash(&mut hasher);
            hasher.finish() as usize
        })
    }

    async fn send_group(
        &self,
        group: Vec<Sent<'_>>,
        deadline: Instant,
    ) -> Vec<(usize, RedisResult<Value>)> {
        let mut pipeline = Pipeline::with_capacity(group.len());
        for sent in &group {
            pipeline.add_command(sent.command.clone());
        }
        let sending = self.0.nodes.send(&group[0].place, &pipeline);
        let answers = timeout_at(deadline, sending).await;
        let answers = match answers.unwrap_or_else(|_| Err(timed_out())) {
            Ok(answers) => answers.into_iter().map(Value::extract_error).collect(),
            Err(error) => vec![Err(error); group.len()],
        };
        let answers = group.iter().zip(answers).map(|(sent, answer)| async move {
            let answer = match answer {
                Err(error) => self.persist(sent, error, deadline).await,
                answer => answer,
            };
            (sent.index, answer)
        });
        join_all(answers).await
    }

    /// Sends a command again after this error: where it was sent on to, or where a node may do
    /// better in a moment.
    async fn persist(
        &self,
        sent: &Sent<'_>,
        error: RedisError,
        deadline: Instant,
    ) -> RedisResult<Value> {
        let mut error = error;
        let mut wait = FIRST_WAIT;
        for attempt in 0..RETRIES {
            let place = sends_on(&error, &sent.place);
            match (&place, error.retry_method()) {
                (Some(place), RetryMethod::MovedRedirect) => {
                    Arc::make_mut(&mut self.0.slots.lock()).set(sent.slot, place);
                    self.look(Some(place));
                }
                (_, RetryMethod::AskRedirect) => {}
                (_, RetryMethod::NoRetry) if !is_unanswered(&error) => return Err(error),
                _ => self.look(None),
            }
            // It is known by now where it belongs.
            if place.is_none() || attempt > 0 {
                let until = (Instant::now() + random::jittered(wait, random::WIDELY)).min(deadline);
                tokio::time::sleep_until(until).await;
                wait = LONGEST_WAIT.min(wait * 2);
            }
            if Instant::now() >= deadline {
                break;
            }
            let mut pipeline = Pipeline::with_capacity(2);
            if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) {
                // In one message: only what comes right behind it is answered.
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(sent.command.clone());
            let place = place
                .or_else(|| self.0.slots.lock().master(sent.slot).cloned())
                .unwrap_or_else(|| sent.place.clone());
            let sending = self.0.nodes.send(&place, &pipeline);
            let answers = timeout_at(deadline, sending).await;
            let answer = match answers.unwrap_or_else(|_| Err(timed_out())) {
                Ok(mut answers) => answers.pop().unwrap_or(Value::Nil).extract_error(),
                Err(error) => Err(error),
            };
            match answer {
                Err(next) => error = next,
                answer => return answer,
            }
        }
        Err(error)
    }

    /// Where the slots are, once that is known.
    async fn slots(&self, deadline: Instant) -> RedisResult<Arc<Slots>> {
        let known = || Some(self.0.slots.lock().clone()).filter(|slots| !slots.is_empty());
        if let Some(slots) = known() {
            return Ok(slots);
        }
        self.look(None);
        // Free once the look is over.
        let looking = timeout_at(deadline, self.0.looking.acquire()).await;
        drop(looking.map_err(|_| timed_out())?);
        let failure = || self.0.failure.lock().clone();
        known().ok_or_else(|| failure().unwrap_or_else(no_connection))
    }

    /// Looks in the background where the slots are, unless that was done just now. This node knows
    /// best.
    fn look(&self, first: Option<&Place>) {
        let Ok(permit) = self.0.looking.clone().try_acquire_owned() else {
            return;
        };
        let mut looked = self.0.looked.lock();
        let recently = looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        if recently && !self.0.slots.lock().is_empty() {
            return;
        }
        *looked = Some(Instant::now());
        drop(looked);
        let mut places: Vec<Place> = first.into_iter().cloned().collect();
        let mut known = self.0.slots.lock().masters().to_vec();
        if !known.is_empty() {
            // Not always the same one first: it may be cut off from the others.
            let turn = (random::fraction() * known.len() as f64) as usize % known.len();
            known.rotate_left(turn);
        }
        places.extend(known);
        places.extend(self.0.seeds.iter().cloned());
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut slots = Pipeline::with_capacity(1);
            slots.cmd("CLUSTER").arg("SLOTS");
            for place in places {
                let Some(inner) = weak.upgrade() else { return };
                let answer = timeout(inner.timeout, inner.nodes.send(&place, &slots)).await;
                let answer = answer.unwrap_or_else(|_| Err(timed_out()));
                let answer = answer
                    .and_then(|mut answers| answers.pop().unwrap_or(Value::Nil).extract_error());
                match answer {
                    Ok(answer) => {
                        if let Some(slots) = Slots::parse(&answer, &place) {
                            *inner.slots.lock() = Arc::new(slots);
                            *inner.failure.lock() = None;
                            break;
                        }
                    }
                    Err(error) => {
                        *inner.failure.lock() = Some(error);
                    }
                }
            }
            drop(permit);
        });
    }
}

/// The masters of a cluster by one of its nodes, which was reached as `from`, sorted.
pub(super) async fn masters(
    node: &mut MultiplexedConnection,
    from: &ConnectionInfo,
) -> RedisResult<Vec<Place>> {
    let from = place_of(from).ok_or_else(no_connection)?;
    let answer: Value = cmd("CLUSTER").arg("SLOTS").query_async(node).await?;
    let slots = Slots::parse(&answer, &from).ok_or_else(no_connection)?;
    let mut masters = slots.masters().to_vec();
    masters.sort_unstable();
    Ok(masters)
}

fn place_of(node: &ConnectionInfo) -> Option<Place> {
    match node.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((Arc::from(host.as_str()), *port))
        }
        _ => None,
    }
}

/// The node that this error names. One that does not know its own name is on the host that said so.
fn sends_on(error: &RedisError, from: &Place) -> Option<Place> {
    let (place, _) = error.redirect_node()?;
    let (host, port) = place.rsplit_once(':')?;
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "?" => from.0.clone(),
        host => host.into(),
    };
    Some((host, port.parse().ok()?))
}
