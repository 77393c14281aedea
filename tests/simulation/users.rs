//! Users, and which sessions are over because their user was signed out.

use super::model::BOUND;
use super::verdict::{Answer, Read};
use super::world::State;

/// Users of a world.
pub const USERS: usize = 2;

pub fn user(number: usize) -> String {
    format!("u{number}")
}

#[derive(Default)]
pub struct User {
    links: Vec<Link>,
    sign_outs: Vec<SignOut>,
    /// When the store lost the epoch.
    losses: Vec<u64>,
}

/// That a session belongs to a user.
struct Link {
    by: usize,
    partition: usize,
    start: u64,
    /// The generation in which the store is known to have it, and since when.
    stored: Option<(u64, u64)>,
}

struct SignOut {
    by: usize,
    start: u64,
    /// When its instance held to it, and when the store was known to have it.
    held: Option<u64>,
    stored: Option<u64>,
}

impl State {
    /// A link begins; its place in the list.
    pub fn begin_link(&mut self, by: usize, user: usize, partition: usize) -> usize {
        let start = self.now;
        let links = &mut self.model.users[user].links;
        links.push(Link {
            by,
            partition,
            start,
            stored: None,
        });
        links.len() - 1
    }

    /// A link is known to be stored, in the generation that there has been all the time.
    pub fn end_link(&mut self, user: usize, place: usize) {
        let now = self.now;
        let link = &mut self.model.users[user].links[place];
        let partition = &self.model.partitions[link.partition];
        // Also the sign-out of an earlier life, of which L2 hears only now.
        if !partition.cleared_since(link.start) && !partition.tainted {
            link.stored = Some((partition.revision.0, now));
        }
    }

    pub fn begin_user_sign_out(&mut self, by: usize, user: usize) -> usize {
        let start = self.now;
        let sign_outs = &mut self.model.users[user].sign_outs;
        sign_outs.push(SignOut {
            by,
            start,
            held: None,
            stored: None,
        });
        sign_outs.len() - 1
    }

    pub fn end_user_sign_out(&mut self, user: usize, place: usize, stored: bool) {
        let now = self.now;
        let sign_out = &mut self.model.users[user].sign_outs[place];
        sign_out.held = Some(now);
        sign_out.stored = stored.then_some(now);
    }

    pub fn lose_user(&mut self, user: usize) {
        let now = self.now;
        self.model.users[user].losses.push(now);
    }

    /// Since when a session of this generation is known to be over.
    pub fn over_since(&self, partition: usize, generation: u64) -> Option<u64> {
        let over = self.model.users.iter().flat_map(|user| {
            let links = user.links.iter().filter(move |link| {
                link.partition == partition && link.stored.is_some_and(|it| it.0 == generation)
            });
            links.flat_map(|link| {
                let linked = link.stored.map(|it| it.1);
                let sign_outs = user.sign_outs.iter();
                sign_outs.filter_map(move |one| one.stored.filter(|_| Some(one.start) > linked))
            })
        });
        over.min()
    }

    /// Whether a session may be over: somebody has linked it, and the user was signed out or lost then.
    pub fn may_be_over(&self, partition: usize) -> bool {
        self.model.users.iter().any(|user| {
            let mut links = user.links.iter().filter(|link| link.partition == partition);
            links.any(|link| {
                let mut sign_outs = user.sign_outs.iter();
                sign_outs.any(|one| one.stored.is_none_or(|at| at >= link.start))
                    || user.losses.iter().any(|at| *at >= link.start)
            })
        })
    }

    /// Whether anything of a user ended since then.
    pub fn users_ended_since(&self, time: u64) -> bool {
        self.model.users.iter().any(|user| {
            let mut sign_outs = user.sign_outs.iter();
            sign_outs.any(|one| one.stored.is_none_or(|at| at >= time))
                || user.losses.iter().any(|at| *at >= time)
        })
    }

    /// What a session had is not served once its user is signed out.
    pub fn problem_with_linked_hit(&self, read: &Read, number: usize) -> Option<String> {
        let generation = self.model.values[number].generation?;
        let partition = read.partition;
        if let Some(since) = self.over_since(partition, generation)
            && read.clean
            && read.start > since + BOUND
        {
            return Some(format!("v{number} is of a user who was signed out"));
        }
        let value = &self.model.values[number];
        let here = self.model.users.iter().any(|user| {
            let links = user.links.iter().filter(|link| {
                let of = link.stored.is_some_and(|it| it.0 == generation);
                link.partition == partition && link.by == read.by && of
            });
            let mut linked = links.filter_map(|link| link.stored.map(|it| it.1));
            linked.any(|linked| {
                let mut sign_outs = user.sign_outs.iter();
                sign_outs.any(|one| {
                    let held = one.held.is_some_and(|at| at < read.start);
                    // What it wrote since, without the store, may be of the next session: L1 need not
                    // have kept that this one was linked.
                    let since = value.blind && value.by == read.by && value.written >= one.start;
                    one.by == read.by && one.start > linked && held && !since
                })
            })
        });
        here.then(|| format!("v{number} is of a user whom this instance has signed out"))
    }

    /// What a session had does not go on in a later one.
    pub fn problem_with_linked_commit(&self, partition: usize, number: usize) -> Option<String> {
        let generation = self.model.values[number].generation?;
        let later = self.model.partitions[partition].revision.0 > generation;
        let over = later && self.over_since(partition, generation).is_some();
        over.then(|| format!("v{number} of a user who was signed out is back in p{partition}"))
    }

    /// What an instance has to say in the end of a session that is over.
    pub fn expected_of_linked(&self, partition: usize) -> Option<Answer> {
        let generation = self.model.partitions[partition].revision.0;
        self.over_since(partition, generation)
            .map(|_| Answer::Absent)
    }
}
