//! Session values: each is taken once at most, and none from before a sign-out that is over.

use std::time::Duration;

use tower_token_cache::{Error, Lookup};

use super::client::{Client, HARD};
use super::world::State;

const NAME: &str = "value";
/// Long enough to be taken, and short enough to expire now and then.
const LIFETIME: Duration = Duration::from_secs(15);

/// Every value that was put.
#[derive(Default)]
pub struct Values(Vec<Put>);

struct Put {
    partition: usize,
    /// When its handle had it.
    ready: Option<u64>,
    taken: bool,
}

impl Client {
    pub async fn put_value(self) {
        let (start, number) = {
            let mut state = self.world.lock();
            let number = state.values.0.len();
            state.values.0.push(Put {
                partition: self.number,
                ready: None,
                taken: false,
            });
            state.note(format_args!(
                "i{} puts s{number} in p{}",
                self.by, self.number
            ));
            (state.now, number)
        };
        self.errors();
        let put = self.tokens.put(NAME, &number, LIFETIME).await;
        self.errors();
        let Some(mut state) = self.ended("a put", start, 2 * HARD) else {
            return;
        };
        match put {
            Ok(()) => state.values.0[number].ready = Some(state.now),
            Err(Error::SignedOut) => self.expect_sign_out(&mut state),
            Err(Error::Unavailable(_)) => {}
            Err(error) => state.violated(format!("i{}: a put failed: {error:?}", self.by)),
        }
    }

    /// Takes a value; who gives up does not learn which.
    pub async fn take_value(self, gives_up: Option<u64>) {
        let start = self.world.lock().now;
        self.errors();
        let patience = Duration::from_millis(gives_up.unwrap_or(100_000));
        let takes = self.tokens.take::<usize>(NAME);
        let Ok(taken) = tokio::time::timeout(patience, takes).await else {
            return;
        };
        self.errors();
        let Some(mut state) = self.ended("a take", start, 2 * HARD) else {
            return;
        };
        state.note(format_args!(
            "i{} takes from p{} since {start}: {taken:?}",
            self.by, self.number
        ));
        match taken {
            Ok(Lookup::Hit(number)) => state.judge_take(&self, start, number),
            Ok(Lookup::Absent | Lookup::Unavailable) | Err(Error::Unavailable(_)) => {}
            Err(Error::SignedOut) => self.expect_sign_out(&mut state),
            other => state.violated(format!("i{}: a take failed: {other:?}", self.by)),
        }
    }
}

impl State {
    fn judge_take(&mut self, client: &Client, start: u64, number: usize) {
        // What a store that has lost data brings back can be taken again.
        if self.model.partitions.iter().any(|one| one.tainted) {
            return;
        }
        let (by, place) = (client.by, client.number);
        let value = &mut self.values.0[number];
        let twice = std::mem::replace(&mut value.taken, true);
        let ready = value.ready.unwrap_or(u64::MAX);
        let elsewhere = value.partition != place;
        let sign_outs = &self.model.partitions[place].sign_outs;
        let ended = sign_outs.iter().any(|one| {
            let over = one.acknowledged.is_some_and(|at| at < start);
            over && one.start > ready && one.moved_to.is_none()
        });
        if twice {
            self.violated(format!("i{by} takes s{number} of p{place} again"));
        } else if ended && !elsewhere {
            self.violated(format!(
                "i{by} takes s{number} of p{place}, which was signed out"
            ));
        }
    }
}
