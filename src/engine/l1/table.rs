//! All partitions in memory, by key.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::engine::journal::unacknowledged::SignOuts;
use crate::engine::l1::eviction::Eviction;
use crate::engine::l1::stripe::{Bucket, Stripe};
use crate::engine::namespace::{NamespaceNumber, Number};
use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::{Partition, State};
use crate::key::PartitionKey;
use crate::time::Now;

/// All partitions in memory. A key has at most one, which is *kept* in L1, or *empty*: known to have no entries, and believed
/// for a moment. Either can also be *active*, while a load or a write is under way: then it is not evicted.
///
/// Empty partitions have a bound of their own, so that unknown ids cannot evict real sessions.
pub(crate) struct Partitions {
    stripes: Box<[Mutex<Stripe>]>,
    /// The bound on kept partitions; `None` if L1 is off.
    eviction: Option<Eviction>,
    /// Per stripe.
    empty_limit: EmptyLimit,
    hasher: RandomState,
    rules: Rules,
    number: NamespaceNumber,
    sign_outs: SignOuts,
}

/// The bound on the empty partitions of one stripe.
#[derive(Clone, Copy)]
struct EmptyLimit {
    partitions: usize,
    bytes: usize,
}

const STRIPES: usize = 256;
/// Empty partitions at most, in all stripes.
const MAX_EMPTY: usize = 10_000;
/// Empty partitions take at most one sixteenth of L1's memory.
const EMPTY_PART: u64 = 16;
/// Empty partitions take at most this many bytes: enough for `MAX_EMPTY` short keys.
const MAX_EMPTY_BYTES: u64 = 10 << 20;

impl Partitions {
    pub(crate) fn new(rules: Rules, number: NamespaceNumber, sign_outs: SignOuts) -> Self {
        let max_bytes = rules.l1.max_bytes;
        let limit = max_bytes.unwrap_or_default();
        let of_empty = (limit / EMPTY_PART).min(MAX_EMPTY_BYTES);
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            eviction: max_bytes.map(|limit| Eviction::new(limit - of_empty)),
            empty_limit: EmptyLimit {
                partitions: MAX_EMPTY / STRIPES,
                bytes: usize::try_from(of_empty).unwrap_or(usize::MAX) / STRIPES,
            },
            hasher: RandomState::new(),
            rules,
            number,
            sign_outs,
        }
    }

    /// Drops all state that is under another number of the namespace. Returns how many changes are dropped.
    pub(crate) fn forget_all(&self) -> usize {
        self.forget_idle();
        let mut dropped = 0;
        for key in self.active() {
            let follow = |state: &mut State| state.follow_number(&self.number);
            dropped += self.with_known(&key, follow).unwrap_or(0);
        }
        // Partitions that became idle, and so were kept, meanwhile.
        self.forget_idle();
        dropped
    }

    fn forget_idle(&self) {
        if let Some(eviction) = &self.eviction {
            eviction.clear();
        }
        self.clear_buckets();
    }

    fn clear_buckets(&self) {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            stripe.clear_empty();
            for partition in stripe.kept.0.drain() {
                // A partition inserted since the order was cleared. If the order alone had it, no lookup
                // would find it.
                if let Some(eviction) = &self.eviction
                    && eviction.has(&partition)
                {
                    eviction.remove(&partition);
                }
            }
        }
    }

    /// Runs `look` on the partition if L1 has it: the path of a hit.
    pub(crate) fn hit<R>(
        &self,
        key: &PartitionKey,
        look: impl FnOnce(&Arc<Partition>) -> R,
    ) -> Option<R> {
        let eviction = self.eviction.as_ref()?;
        let hash = self.hash(key);
        let (result, used) = {
            let stripe = self.stripe(hash);
            let partition = stripe.kept.get(hash, key)?;
            let used = eviction.is_use_due(partition).then(|| partition.clone());
            (look(partition), used)
        };
        if let Some(used) = used {
            self.note_use(eviction, &used);
        }
        Some(result)
    }

    /// The partition if L1 has it.
    pub(crate) fn get(&self, key: &PartitionKey) -> Option<Arc<Partition>> {
        self.hit(key, Arc::clone)
    }

    /// Runs `act` on the partition of this key, which is made if need be. Every change goes this way: under
    /// the stripe's lock no other task can replace the partition.
    pub(crate) fn with<R>(
        &self,
        key: &PartitionKey,
        act: impl FnOnce(&Arc<Partition>, &mut State) -> R,
    ) -> R {
        let hash = self.hash(key);
        let mut stripe = self.stripe(hash);
        let known = stripe.active.get(hash, key).cloned();
        let was_active = known.is_some();
        let partition = known
            .or_else(|| stripe.kept.get(hash, key).cloned())
            .or_else(|| stripe.empty.get(hash, key).cloned())
            .unwrap_or_else(|| Partition::new(key.clone(), &self.number));
        let mut state = partition.lock();
        // The namespace's number may have changed since the partition was last used.
        state.follow_number(&self.number);
        let result = act(&partition, &mut state);
        if let Some(pending) = &mut state.pending {
            pending.count_sign_out(&self.sign_outs);
        }
        state.update_deadlines(&self.rules);
        let is_active = state.is_active() && !state.is_forgettable();
        match (was_active, is_active) {
            (false, true) => self.put(&mut stripe.active, hash, partition.clone()),
            (true, false) => stripe.active.remove(hash, &partition),
            _ => {}
        }
        let (weight, is_empty) = (state.footprint(key), state.is_empty());
        drop(state);
        if let Some(eviction) = &self.eviction
            && !(is_active && is_empty)
        {
            let was_kept = partition.weight() > 0;
            match !was_kept && is_empty {
                true => self.keep_empty(&mut stripe, hash, partition, weight),
                false => self.keep(eviction, stripe, hash, &partition, weight),
            }
        }
        result
    }

    /// Keeps a partition in L1, or updates its weight. It is inserted once its contents are there: repeated
    /// insertions would spread it over memory, and make hits slow.
    fn keep(
        &self,
        eviction: &Eviction,
        mut stripe: MutexGuard<'_, Stripe>,
        hash: u64,
        partition: &Arc<Partition>,
        weight: u32,
    ) {
        let is_there = stripe.kept.get(hash, &partition.key).is_some();
        let listed = partition.weight();
        // A difference in weight of up to 1/32 is ignored; such differences even out.
        if is_there && listed.abs_diff(weight) <= weight / 32 {
            let used = eviction.is_use_due(partition);
            drop(stripe);
            if used {
                self.note_use(eviction, partition);
            }
            return;
        }
        if !is_there {
            stripe.empty.remove(hash, partition);
            self.put(&mut stripe.kept, hash, partition.clone());
        }
        // Under the lock: a kept partition in the table is also in the order, or about to be removed.
        eviction.insert(partition, weight);
        drop(stripe);
        self.remove_evicted(eviction);
    }

    fn keep_empty(&self, stripe: &mut Stripe, hash: u64, partition: Arc<Partition>, weight: u32) {
        if stripe.empty.get(hash, &partition.key).is_some() {
            return;
        }
        let limit = self.empty_limit;
        let bytes = stripe.empty_bytes + weight as usize;
        if stripe.empty.0.len() >= limit.partitions || bytes > limit.bytes {
            // All of the stripe's at once: they are of use for a moment only.
            stripe.clear_empty();
        }
        stripe.empty_bytes += weight as usize;
        self.put(&mut stripe.empty, hash, partition);
    }

    fn note_use(&self, eviction: &Eviction, partition: &Arc<Partition>) {
        eviction.note_use(partition);
        self.remove_evicted(eviction);
    }

    /// Removes evicted partitions from the table. Never called under a stripe's lock, which it takes.
    fn remove_evicted(&self, eviction: &Eviction) {
        self.forget(eviction, eviction.take_evicted());
    }

    fn forget(&self, eviction: &Eviction, evicted: Vec<Arc<Partition>>) {
        for partition in evicted {
            let hash = self.hash(&partition.key);
            let mut stripe = self.stripe(hash);
            // The partition may have been inserted again meanwhile.
            if !eviction.has(&partition) {
                stripe.kept.remove(hash, &partition);
            }
        }
    }

    /// Runs `act` on the partition of this key if it is in memory.
    pub(crate) fn with_known<R>(
        &self,
        key: &PartitionKey,
        act: impl FnOnce(&mut State) -> R,
    ) -> Option<R> {
        self.knows(key)
            .then(|| self.with(key, |_, state| act(state)))
    }

    /// Runs `act` on the partition of this key if it is still under this number of the namespace: work that
    /// began under another number has no effect.
    pub(crate) fn with_under<R>(
        &self,
        key: &PartitionKey,
        under: Number,
        act: impl FnOnce(&Arc<Partition>, &mut State) -> R,
    ) -> Option<R> {
        self.with(key, |partition, state| {
            (state.number == Some(under)).then(|| act(partition, state))
        })
    }

    /// Whether the partition of this key is in memory.
    pub(crate) fn knows(&self, key: &PartitionKey) -> bool {
        let hash = self.hash(key);
        let stripe = self.stripe(hash);
        let mut buckets = [&stripe.active, &stripe.kept, &stripe.empty].into_iter();
        buckets.any(|bucket| bucket.get(hash, key).is_some())
    }

    /// The keys of the active partitions.
    pub(crate) fn active(&self) -> Vec<PartitionKey> {
        let mut keys = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.lock();
            keys.extend(
                stripe
                    .active
                    .0
                    .iter()
                    .map(|partition| partition.key.clone()),
            );
        }
        keys
    }

    /// The number of partitions in L1, and their bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.eviction.as_ref().map_or((0, 0), |eviction| {
            eviction.run_pending();
            self.remove_evicted(eviction);
            eviction.size()
        })
    }

    /// Removes expired partitions and entries, and shrinks the tables.
    pub(crate) async fn sweep(&self, now: Now) {
        for stripe in &self.stripes {
            let (over, grown): (Vec<_>, Vec<_>) = {
                let stripe = &mut *stripe.lock();
                stripe.clear_empty();
                let Stripe { active, kept, .. } = stripe;
                let is_active = |it: &Arc<Partition>| active.has(self.hash(&it.key), it);
                let over = |it: &mut Arc<Partition>| it.lock().is_over(now) && !is_active(it);
                let over = kept.0.extract_if(over).collect();
                for bucket in [active, kept, &mut stripe.empty] {
                    bucket.fit(|partition| self.hash(&partition.key));
                }
                let grown = stripe.kept.0.iter();
                let grown = grown.filter(|it| it.lock().is_to_be_pruned(now.wall));
                (over, grown.map(|it| it.key.clone()).collect())
            };
            if let Some(eviction) = &self.eviction {
                over.iter().for_each(|partition| eviction.remove(partition));
            }
            for key in grown {
                self.with_known(&key, |state| state.prune(now.wall));
            }
            tokio::task::yield_now().await;
        }
        if let Some(eviction) = &self.eviction {
            eviction.run_pending();
            self.remove_evicted(eviction);
        }
    }

    fn put(&self, bucket: &mut Bucket, hash: u64, partition: Arc<Partition>) {
        let rehash = |partition: &Arc<Partition>| self.hash(&partition.key);
        bucket.0.insert_unique(hash, partition, rehash);
    }

    fn hash(&self, key: &PartitionKey) -> u64 {
        self.hasher.hash_one(key)
    }

    fn stripe(&self, hash: u64) -> MutexGuard<'_, Stripe> {
        // The tables use the lowest and the highest bits of the hash.
        self.stripes[(hash >> 32) as usize % STRIPES].lock()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::cache::{L1, Lifetimes};
    use crate::codec::Value;
    use crate::engine::partition::links::Users;
    use crate::engine::trust::FeedTrust;
    use crate::key::TokenKey;
    use crate::time::Clock;
    use crate::token::Token;

    const LIMIT: u64 = 1 << 20;

    fn partitions() -> Partitions {
        let rules = Rules {
            l1: L1::new().max_bytes(LIMIT),
            lifetimes: Lifetimes::new(),
            trust: FeedTrust::default(),
            losses: crate::engine::partition::life::Losses::default(),
            users: Users::default(),
        };
        Partitions::new(rules, NamespaceNumber::default(), SignOuts::default())
    }

    fn user(number: usize) -> PartitionKey {
        PartitionKey::user(number.to_string()).expect("a key")
    }

    /// Inserts a token of so many bytes.
    fn keep(partitions: &Partitions, number: usize, size: usize) {
        let token = Token::new("x".repeat(size));
        let name = TokenKey::from_canonical("graph");
        let change = [(name, Some(Value::Token(token)))];
        partitions.with(&user(number), |_, state| {
            state.change(change, None, Clock::system().read());
        });
    }

    impl Partitions {
        /// The kept and the empty partitions. Every kept one has to be in the order, too.
        fn count(&self) -> (u64, usize) {
            let (booked, weight) = self.size();
            assert!(weight <= LIMIT, "{weight}");
            let eviction = self.eviction.as_ref().expect("there is L1");
            let (mut kept, mut empty) = (0, 0);
            for stripe in &self.stripes {
                let stripe = stripe.lock();
                assert!(
                    stripe
                        .kept
                        .0
                        .iter()
                        .all(|partition| eviction.has(partition))
                );
                kept += stripe.kept.0.len() as u64;
                empty += stripe.empty.0.len();
            }
            assert_eq!(kept, booked);
            (kept, empty)
        }
    }

    #[test]
    fn what_is_known_to_be_empty_is_bounded() {
        let partitions = partitions();
        for number in 0..2 * MAX_EMPTY {
            partitions.with(&user(number), |_, _| ());
            assert!(partitions.knows(&user(number)));
        }
        let (kept, empty) = partitions.count();
        assert_eq!(kept, 0);
        assert!((1..=MAX_EMPTY).contains(&empty), "{empty}");
    }

    #[test]
    fn unknown_ids_of_any_length_stay_within_the_limit() {
        let partitions = partitions();
        for number in 0..MAX_EMPTY {
            let id = format!("{number}{}", "x".repeat(900));
            partitions.with(&PartitionKey::user(id).expect("a key"), |_, _| ());
        }
        let stripes = partitions.stripes.iter();
        let empty: usize = stripes.map(|stripe| stripe.lock().empty.0.len()).sum();
        assert!(empty <= STRIPES, "{empty}: one in a stripe at most");
    }

    #[tokio::test]
    async fn what_has_left_gives_its_room_back() {
        let partitions = partitions();
        for number in 0..20_000 {
            // Active, as all are while L2 is away.
            partitions.with(&user(number), |_, state| state.pending().held += 1);
        }
        let rooms = || {
            let stripes = partitions.stripes.iter().map(|stripe| {
                let stripe = stripe.lock();
                let buckets = [&stripe.active, &stripe.kept, &stripe.empty];
                buckets
                    .map(|bucket| bucket.0.capacity())
                    .iter()
                    .sum::<usize>()
            });
            stripes.sum::<usize>()
        };
        assert!(rooms() >= 20_000);
        for number in 0..20_000 {
            partitions.with(&user(number), |_, state| state.pending().held -= 1);
        }
        partitions.sweep(Clock::system().read()).await;
        assert_eq!(partitions.count(), (0, 0));
        assert!(rooms() <= 4 * STRIPES, "{}", rooms());
    }

    #[test]
    fn who_had_to_leave_is_found_no_more() {
        let partitions = partitions();
        for number in 0..1000 {
            keep(&partitions, number, 7000);
            // A partition that is used all the time.
            assert!(partitions.get(&user(0)).is_some(), "after {number}");
        }
        let (kept, _) = partitions.count();
        assert!((120..150).contains(&kept), "{kept}");
        assert!(!partitions.knows(&user(1)));
        assert!(partitions.get(&user(999)).is_some());
    }

    #[test]
    fn a_use_counts_again_when_a_sixteenth_has_come() {
        let partitions = partitions();
        let eviction = partitions.eviction.as_ref().expect("there is L1");
        for number in 0..64 {
            keep(&partitions, number, 100);
        }
        partitions.size();
        keep(&partitions, 64, 100);
        let used = partitions.get(&user(0)).expect("there is room");
        assert!(!eviction.is_use_due(&used));
        for number in 65..68 {
            keep(&partitions, number, 100);
        }
        assert!(!eviction.is_use_due(&used));
        keep(&partitions, 68, 100);
        assert!(eviction.is_use_due(&used));
        partitions.get(&user(0));
        assert!(!eviction.is_use_due(&used));
    }

    #[test]
    fn who_comes_back_while_being_let_go_stays() {
        let partitions = partitions();
        let eviction = partitions.eviction.as_ref().expect("there is L1");
        keep(&partitions, 0, 7000);
        let first = partitions.get(&user(0)).expect("there is room");
        for number in 1..100 {
            keep(&partitions, number, 7000);
        }
        // More than fits, as another thread would insert it.
        for number in 100..200 {
            let newcomer = Partition::new(user(number), &NamespaceNumber::default());
            eviction.insert(&newcomer, 7000);
        }
        eviction.run_pending();
        let evicted = eviction.take_evicted();
        assert!(evicted.iter().any(|it| Arc::ptr_eq(it, &first)));
        keep(&partitions, 0, 9000);
        partitions.forget(eviction, evicted);
        assert!(eviction.has(&first));
        assert!(partitions.knows(&user(0)));
        assert!(!partitions.knows(&user(1)), "the others have left");
    }

    #[test]
    fn who_comes_while_all_are_forgotten_is_not_left_in_the_books() {
        let partitions = partitions();
        keep(&partitions, 0, 100);
        partitions.eviction.as_ref().expect("there is L1").clear();
        keep(&partitions, 1, 100);
        partitions.clear_buckets();
        assert_eq!(partitions.count(), (0, 0));
    }

    #[test]
    fn shelves_and_books_agree_whatever_happens_at_once() {
        let partitions = partitions();
        thread::scope(|scope| {
            for thread in 0..4 {
                let partitions = &partitions;
                scope.spawn(move || {
                    for step in 0..20_000_usize {
                        let number = (step * 7919 + thread) % 400;
                        match step % 11 {
                            0..4 => keep(partitions, number, 100 * (step % 97)),
                            4 => partitions.with(&user(number), |_, state| {
                                state.forget_entries();
                            }),
                            5 if step % 1000 == 5 => {
                                partitions.forget_all();
                            }
                            6 if step % 100 == 6 => {
                                partitions.size();
                            }
                            _ => drop(partitions.get(&user(number))),
                        }
                    }
                });
            }
        });
        let (kept, _) = partitions.count();
        assert!(kept > 0);
    }
}
