//! Decides what is known of the channel: a machine without I/O or a clock of its own.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::inbox::Inbox;
use super::wire::{Body, Heartbeat, InstanceId, Message};
use super::{Event, KeepAlive};

/// Instances that are watched at most, against a flood of invented ones. The messages of others
/// count as gaps.
const MAX_PEERS: usize = 1024;
/// Own heartbeats that have not come back at most.
const MAX_BEATS: usize = 64;

pub(super) struct Monitor {
    me: InstanceId,
    keep_alive: KeepAlive,
    link: Link,
    /// When the heartbeat was sent that last came back; at first when the monitor was made.
    proven: Instant,
    /// Own heartbeats under way, oldest first.
    beats: VecDeque<(u64, Instant)>,
    next_beat: u64,
    peers: HashMap<InstanceId, Peer>,
    /// Something was missed up to then.
    missed_until: Instant,
    alive: bool,
    inbox: Inbox,
    pub(super) gaps: u64,
    pub(super) foreign: u64,
    pub(super) received: u64,
}

#[derive(Debug)]
enum Link {
    Down,
    Unproven {
        joined: Instant,
    },
    /// The first heartbeat that came back was sent then.
    Proven {
        first: Instant,
    },
}

/// Another instance.
#[derive(Debug)]
struct Peer {
    /// The number of its last message.
    sequence: u64,
    /// When its last heartbeat arrived.
    heard: Instant,
    /// How long it may be silent.
    patience: Duration,
    /// It has said goodbye: a message that comes late is no sign of life.
    gone: bool,
}

impl Peer {
    fn is_silent(&self, now: Instant) -> bool {
        !self.gone && now.saturating_duration_since(self.heard) >= self.patience
    }
}

impl Monitor {
    pub(super) fn new(me: InstanceId, keep_alive: KeepAlive, now: Instant) -> Self {
        Self {
            me,
            keep_alive,
            link: Link::Down,
            proven: now,
            beats: VecDeque::new(),
            next_beat: 0,
            peers: HashMap::new(),
            missed_until: now,
            alive: false,
            inbox: Inbox::default(),
            gaps: 0,
            foreign: 0,
            received: 0,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.inbox.pop()
    }

    /// Until when everything was heard.
    pub(super) fn heard_until(&self) -> Instant {
        let peers = self.peers.values().filter(|peer| !peer.gone);
        let heard = peers.map(|peer| peer.heard).min();
        heard.map_or(self.proven, |heard| heard.min(self.proven))
    }

    /// There is a link, of which nothing is known yet.
    pub(super) fn joined(&mut self, now: Instant) {
        self.beats.clear();
        self.link = Link::Unproven { joined: now };
        self.settle(now);
    }

    /// The link is gone.
    pub(super) fn left(&mut self, now: Instant) {
        self.link = Link::Down;
        self.settle(now);
    }

    /// Whether the link has been without proof for too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let since = match self.link {
            Link::Down => return false,
            Link::Unproven { joined } => joined,
            Link::Proven { .. } => self.proven,
        };
        now.saturating_duration_since(since) >= self.keep_alive.timeout()
    }

    /// A heartbeat that is sent now.
    pub(super) fn beat(&mut self, now: Instant) -> Heartbeat {
        let number = self.next_beat;
        self.next_beat += 1;
        if self.beats.len() == MAX_BEATS {
            self.beats.pop_front();
        }
        self.beats.push_back((number, now));
        Heartbeat {
            number,
            interval: self.keep_alive.interval(),
        }
    }

    /// A message has arrived; whether it is the first proof of the link.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> bool {
        let proven = self.proof(now).is_some();
        let Ok(message) = Message::decode(bytes) else {
            self.foreign += 1;
            return false;
        };
        self.received += 1;
        if message.sender == self.me {
            if let Body::Heartbeat(heartbeat) = message.body {
                self.came_back(heartbeat.number);
            }
        } else {
            self.note(&message, now);
            match message.body {
                Body::Invalidated(batch) => {
                    if !self.inbox.push_batch(batch) {
                        self.gap(now, now);
                    }
                }
                Body::EverythingChanged(generation) => {
                    self.inbox.push(Event::EverythingChanged { generation });
                }
                Body::Heartbeat(_) | Body::Goodbye => {}
                Body::Unknown => self.gap(now, now),
            }
        }
        self.settle(now);
        !proven && self.proof(now).is_some()
    }

    /// Time has passed.
    pub(super) fn settle(&mut self, now: Instant) {
        self.forget_the_dead(now);
        let silent = self.peers.values().any(|peer| peer.is_silent(now));
        match (self.proof(now), silent) {
            (Some(first), false) if !self.alive => {
                self.alive = true;
                let since = first.max(self.missed_until);
                self.inbox.push(Event::Alive { since });
            }
            (Some(_), false) => {}
            _ if self.alive => {
                self.alive = false;
                self.gaps += 1;
                let since = self.heard_until();
                self.inbox.push(Event::Lost { since });
            }
            _ => {}
        }
    }

    /// Since when the link is known to carry everything, while it is.
    fn proof(&self, now: Instant) -> Option<Instant> {
        let age = now.saturating_duration_since(self.proven);
        match self.link {
            Link::Proven { first } if age < self.keep_alive.timeout() => Some(first),
            _ => None,
        }
    }

    /// One of our own heartbeats has come back. It proves the channel for the time when it was
    /// sent, so one that is late proves little, and the same one again nothing.
    fn came_back(&mut self, number: u64) {
        let Some(position) = self.beats.iter().position(|(sent, _)| *sent == number) else {
            return;
        };
        let Some((_, sent)) = self.beats.drain(..=position).next_back() else {
            return;
        };
        self.proven = self.proven.max(sent);
        if !matches!(self.link, Link::Proven { .. }) {
            self.link = Link::Proven { first: sent };
        }
    }

    /// Notes what a message of another instance says besides its content.
    fn note(&mut self, message: &Message, now: Instant) {
        // The number that its sender's last message must have had.
        let previous = match message.body.is_numbered() {
            true => message.sequence.saturating_sub(1),
            false => message.sequence,
        };
        let Some(peer) = self.peers.get_mut(&message.sender) else {
            return self.meet(message, previous, now);
        };
        let missed = previous > peer.sequence;
        let heard = peer.heard;
        peer.sequence = peer.sequence.max(message.sequence);
        match &message.body {
            Body::Heartbeat(heartbeat) if !peer.gone => {
                if peer.is_silent(now) {
                    self.missed_until = now;
                }
                peer.heard = now;
                peer.patience = self.keep_alive.patience(heartbeat.interval);
            }
            Body::Goodbye if !peer.gone => {
                if peer.is_silent(now) {
                    self.missed_until = now;
                }
                peer.gone = true;
                peer.heard = now;
            }
            _ => {}
        }
        if missed {
            self.gap(heard, now);
        }
    }

    /// Notes an instance that was not heard before. It is given the benefit of the doubt for as
    /// long as it may be silent.
    fn meet(&mut self, message: &Message, previous: u64, now: Instant) {
        let interval = match &message.body {
            Body::Heartbeat(heartbeat) => heartbeat.interval,
            _ => Duration::ZERO,
        };
        let known = self.peers.len() < MAX_PEERS;
        if known {
            let peer = Peer {
                sequence: message.sequence,
                heard: now,
                patience: self.keep_alive.patience(interval),
                gone: message.body == Body::Goodbye,
            };
            self.peers.insert(message.sender, peer);
        }
        if !known || previous > 0 {
            self.gap(self.heard_until(), now);
        }
    }

    /// Something was missed.
    fn gap(&mut self, since: Instant, now: Instant) {
        self.missed_until = now;
        if self.alive {
            self.gaps += 1;
            self.inbox.push(Event::Lost { since });
            self.inbox.push(Event::Alive { since: now });
        }
    }

    fn forget_the_dead(&mut self, now: Instant) {
        let (keep_alive, missed_until) = (&self.keep_alive, &mut self.missed_until);
        self.peers.retain(|_, peer| {
            let silence = now.saturating_duration_since(peer.heard);
            let keep = silence < keep_alive.forget(peer.patience);
            if !keep && !peer.gone {
                *missed_until = now;
            }
            keep
        });
    }
}
