//! What the provider knows: who has signed in, and which refresh tokens are spent.

use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) serial: u64,
    pub(super) families: HashMap<String, Family>,
    /// Every refresh token there ever was, and whose it is.
    pub(super) refresh_tokens: HashMap<String, String>,
    pub(super) calls: u64,
    pub(super) reuses: u64,
    pub(super) applications: u64,
    pub(super) under_way: u64,
    pub(super) most_under_way: u64,
}

#[derive(Default)]
pub(super) struct Family {
    /// The one that can be redeemed.
    pub(super) refresh_token: String,
    pub(super) access_tokens: Vec<String>,
    pub(super) redemptions: u64,
    pub(super) revoked: bool,
}

impl Ledger {
    /// The user's next access and refresh tokens; the earlier refresh token is spent.
    pub(super) fn rotate(&mut self, user: &str) -> (String, String) {
        self.serial += 1;
        let access_token = format!("access-{}-{user}", self.serial);
        let refresh_token = format!("refresh-{}-{user}", self.serial);
        self.refresh_tokens
            .insert(refresh_token.clone(), user.to_owned());
        let family = self.families.get_mut(user).expect("has signed in");
        family.refresh_token.clone_from(&refresh_token);
        family.access_tokens.push(access_token.clone());
        (access_token, refresh_token)
    }

    /// The answer to a refresh token: the next two, or the error code.
    pub(super) fn redeem(&mut self, refresh_token: &str) -> Result<(String, String), &'static str> {
        let user = self.refresh_tokens.get(refresh_token).cloned();
        let user = user.ok_or("invalid_grant")?;
        let family = self.families.get_mut(&user).expect("has signed in");
        if family.refresh_token != refresh_token {
            family.revoked = true;
            self.reuses += 1;
        }
        if family.revoked {
            return Err("invalid_grant");
        }
        family.redemptions += 1;
        Ok(self.rotate(&user))
    }
}
