//! A partition's sign-out: it begins here, is sent to L2 as [`clear`](crate::TokenStore::clear), and is pending
//! until L2 says that the generation is *cleared*.

use crate::engine::limits::CLOCK_SKEW;
use crate::engine::partition::pending::PendingSignOut;
use crate::engine::partition::state::{SignOut, State};
use crate::engine::revocations::Revocations;
use crate::store::CommitId;
use crate::time::{Moment, Now};

impl State {
    /// Empties the partition. Until L2 acknowledges the sign-out, nothing that L2 has counts. Returns how
    /// many pending changes are dropped.
    pub(crate) fn sign_out(&mut self, id: CommitId, since: Moment) -> usize {
        let dropped = self.drop_changes();
        self.forget_entries();
        self.sign_out = SignOut::next();
        let earlier = self.pending_sign_out();
        let ends = earlier.map_or(self.generation, |earlier| earlier.ends);
        // L2 may have applied the earlier one already. With the same id this one would count as a repetition,
        // and spare what has begun since.
        self.pending().sign_out = Some(PendingSignOut {
            id,
            since,
            ends,
            is_confirmed: false,
        });
        dropped
    }

    /// To be called before [`sign_out`](Self::sign_out): the refresh tokens in memory are to be revoked, also those
    /// that no reader sees yet, and those that L2 has.
    pub(crate) fn revoke(&mut self, revocations: &Revocations) {
        if !revocations.are_on() {
            return;
        }
        let entries = self
            .entries
            .iter()
            .map(|(name, entry)| (name, &entry.value));
        let mut tokens = revocations.among(entries);
        let pending = self.pending();
        let acquired = pending
            .all_named()
            .filter_map(|(name, change)| Some((name, change.value.as_ref()?)));
        tokens.extend(revocations.among(acquired));
        pending.revoke.get_or_insert_default().extend(tokens);
    }

    pub(crate) fn pending_sign_out(&self) -> Option<PendingSignOut> {
        self.pending.as_ref().and_then(|pending| pending.sign_out)
    }

    pub(crate) fn is_signing_out(&self) -> bool {
        self.pending_sign_out().is_some()
    }

    /// Sets the generation that the pending sign-out is to end, as L2 has it. If another instance has signed
    /// the partition out after this process did, what has begun here in between is refused. Returns how many
    /// changes of that time are dropped.
    pub(crate) fn confirm_sign_out(
        &mut self,
        latest: Option<u64>,
        cleared_at: Option<Moment>,
    ) -> usize {
        let Some(pending) = self.pending_sign_out() else {
            return 0;
        };
        self.pending().sign_out = Some(PendingSignOut {
            ends: latest,
            is_confirmed: true,
            ..pending
        });
        self.cleared_at = cleared_at;
        let ended = latest > pending.ends.or(Some(0));
        if ended && self.cleared_since(pending.since) {
            self.sign_out = SignOut::next();
        }
        let since = self.pending().since();
        match ended && since.is_some_and(|since| self.cleared_since(since)) {
            true => self.drop_changes(),
            false => 0,
        }
    }

    /// Changes the pending sign-out, if there is still one.
    pub(crate) fn amend_sign_out(&mut self, amend: impl FnOnce(&mut PendingSignOut)) {
        if let Some(sign_out) = &mut self.pending().sign_out {
            amend(sign_out);
        }
    }

    /// Other instances have signed the partition out, perhaps after work has begun here since the pending
    /// sign-out. Returns how many changes are dropped; work that is still in progress is refused.
    pub(crate) fn signed_out_elsewhere(&mut self) -> usize {
        self.sign_out = SignOut::next();
        self.drop_changes()
    }

    /// L2 has ended the generation before this one, by the sign-out `id`. A later sign-out stays pending: L2
    /// may have applied it as well, or not.
    pub(crate) fn cleared(&mut self, id: CommitId, generation: u64, now: Now) {
        let later = self.pending_sign_out().filter(|pending| pending.id != id);
        self.pending().sign_out = later.map(|later| PendingSignOut {
            ends: Some(generation),
            is_confirmed: false,
            ..later
        });
        self.generation = Some(generation);
        self.cleared_at = Some(now.moment);
        self.touched_at = now.moment;
        self.forget_life();
    }

    /// Whether L2 has ended a generation since this time, as far as clocks can tell. In doubt it has.
    pub(crate) fn cleared_since(&self, time: Moment) -> bool {
        let cleared = self.cleared_at.map(|at| at.saturating_add(CLOCK_SKEW));
        cleared.is_some_and(|at| at >= time)
    }
}
