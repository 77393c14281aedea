//! A provider that rotates refresh tokens strictly: each can be redeemed once, and another attempt
//! ends its whole family.

use std::time::Duration;

use tokio::time::sleep;
use tower_token_cache::{Prior, ProviderError, Timestamp, Token, TokenSet};

use super::model::{Grant, Value, parse, text};
use super::names::REFRESH;
use super::world::{BASE, State, World};

/// Before a redemption its flight may have had trouble for so long: it has waited for a lease, and
/// looked at L2.
const BEFORE: u64 = 5000;

/// An acquisition takes no longer.
pub const LONGEST: u64 = 12_000;

#[derive(Default)]
pub struct Provider {
    families: Vec<Family>,
    /// Which family a refresh token is of.
    members: Vec<(usize, usize)>,
    redemptions: Vec<Redemption>,
    pub count: u64,
}

struct Family {
    current: usize,
    ended: bool,
}

struct Redemption {
    token: usize,
    by: usize,
    asked: u64,
    at: u64,
    /// The answer never came.
    lost: bool,
}

/// Who asks for what.
#[derive(Clone, Copy)]
pub struct Request {
    pub by: usize,
    pub partition: usize,
    pub entry: usize,
    /// This provider gives tokens without a refresh token, too.
    pub open: bool,
}

impl State {
    /// A user has signed in: the value is the first refresh token of a family.
    pub fn begin_family(&mut self, value: usize) {
        self.provider.families.push(Family {
            current: value,
            ended: false,
        });
        let family = self.provider.families.len() - 1;
        self.provider.members.push((value, family));
    }

    fn redeem(
        &mut self,
        request: Request,
        spent: Option<usize>,
        asked: u64,
        lost: bool,
    ) -> Result<TokenSet, ProviderError> {
        let refused = || ProviderError::refused("invalid_grant");
        let Request { by, entry, .. } = request;
        let Some(spent) = spent else {
            return match request.open {
                true => Ok(self.issue(request, None, asked)),
                false => Err(refused()),
            };
        };
        let member = self.provider.members.iter().find(|(one, _)| *one == spent);
        let family = member.expect("it was issued").1;
        let redemptions = &self.provider.redemptions;
        if let Some(earlier) = redemptions.iter().position(|one| one.token == spent) {
            self.provider.families[family].ended = true;
            let earlier = &self.provider.redemptions[earlier];
            let (first, at) = (earlier.by, earlier.at);
            match self.is_excused(earlier, by) {
                true => self.note(format_args!(
                    "v{spent} is redeemed again, by i{by}, excused"
                )),
                false => self.violated(format!(
                    "v{spent} is redeemed by i{by}, and was at {at} ms by i{first}"
                )),
            }
            return Err(refused());
        }
        if self.provider.families[family].ended {
            return Err(refused());
        }
        self.provider.count += 1;
        let set = self.issue(request, Some(spent), asked);
        let next = self.new_value(Value {
            entry: REFRESH,
            expires: None,
            ..self.granted(request, Some(spent), asked)
        });
        self.provider.families[family].current = next;
        self.provider.members.push((next, family));
        self.provider.redemptions.push(Redemption {
            token: spent,
            by,
            asked,
            at: self.now,
            lost,
        });
        self.note(format_args!("i{by} redeems v{spent} for e{entry}: v{next}"));
        Ok(set.with_refresh_token(text('r', next)))
    }

    fn issue(&mut self, request: Request, prior: Option<usize>, asked: u64) -> TokenSet {
        let life = self.rng.between(1500, 20_000);
        let expires = self.now + life;
        let value = self.new_value(Value {
            expires: Some(expires),
            ..self.granted(request, prior, asked)
        });
        let token = Token::new(text('a', value));
        let token = token.with_expires_at(Timestamp::from_millis(BASE + expires));
        TokenSet::from(token)
    }

    fn granted(&self, request: Request, prior: Option<usize>, asked: u64) -> Value {
        Value {
            partition: request.partition,
            entry: request.entry,
            by: request.by,
            expires: None,
            began: asked,
            written: asked,
            ready: Some(asked),
            blind: false,
            grant: Some(Grant { prior, asked }),
            moved: false,
            applied: None,
            generation: None,
            number: None,
        }
    }

    /// Whether a second redemption could not be prevented: whoever redeemed first did not live to
    /// write it down or to hear the answer, or L2 could not be asked or has lost it.
    fn is_excused(&self, earlier: &Redemption, by: usize) -> bool {
        let since = earlier.asked.saturating_sub(BEFORE);
        let partitions = &self.model.partitions;
        let mut moves = partitions.iter().flat_map(|one| &one.sign_outs);
        earlier.lost
            || self.ended_since(earlier.by, since)
            || self.disturbed_since(earlier.by, since)
            || self.disturbed_since(by, since)
            || partitions.iter().any(|one| one.tainted)
            || self.users_ended_since(since)
            || moves.any(|one| one.moved_to.is_some() && one.start >= since)
    }

    /// Why this should not be what L2 has in the end.
    pub fn problem_with_last_refresh_token(&self, value: usize) -> Option<String> {
        let mut redemptions = self.provider.redemptions.iter();
        let spent = redemptions.find(|one| one.token == value)?;
        let moves = self.model.partitions.iter().flat_map(|one| &one.sign_outs);
        let moved = moves
            .clone()
            .any(|one| one.moved_to.is_some() && one.start + 10_000 >= spent.asked);
        // A flight of the life after a sign-out that L2 had yet to hear of, of a partition that it
        // was never asked for: whose life it is cannot be told.
        let mut sign_outs = moves.filter(|one| one.by == spent.by && one.start <= spent.at);
        let blind = sign_outs.any(|one| one.acknowledged.is_none());
        // Its time was over before its machine was awake again.
        let slept = self.instances[spent.by].sleeps.iter().any(|(from, until)| {
            *from <= spent.at + LONGEST && until + BEFORE >= spent.asked + LONGEST
        });
        let excused = self.may_be_over(self.model.values[value].partition)
            || spent.lost
            || slept
            || self.ended_since(spent.by, spent.asked)
            || moved
            || blind;
        (!excused).then(|| format!("it was spent at {} ms by i{}", spent.at, spent.by))
    }
}

/// Asks the provider.
pub async fn ask(world: World, request: Request, prior: Prior) -> Result<TokenSet, ProviderError> {
    let spent = prior.refresh_token().map(|token| {
        let value = parse(token.expose().as_bytes());
        value.expect("one of ours")
    });
    let (before, after, asked, fails, lost) = {
        let mut state = world.lock();
        state.note(format_args!(
            "i{} asks the provider with {spent:?}",
            request.by
        ));
        let now = state.now;
        let rng = &mut state.rng;
        let wait = |rng: &mut super::rng::Rng| match rng.percent(25) {
            true => rng.between(500, 4500),
            false => rng.between(1, 60),
        };
        let (before, after) = (wait(rng), wait(rng));
        (before, after, now, rng.percent(5), rng.percent(2))
    };
    let unreachable = || ProviderError::unreachable("the wire is cut");
    sleep(Duration::from_millis(before)).await;
    world.awake(request.by).await;
    let set = {
        let mut state = world.lock();
        if fails || state.instances[request.by].ended.is_some() {
            return Err(unreachable());
        }
        state.redeem(request, spent, asked, lost)
    };
    sleep(Duration::from_millis(after)).await;
    world.awake(request.by).await;
    let ended = world.lock().instances[request.by].ended.is_some();
    match lost || ended {
        true => Err(unreachable()),
        false => set,
    }
}
