//! Ten thousand users of 7 KiB.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tower_token_cache::{Token, TokenSet};

pub const USERS: usize = 10_000;
/// From one request's user to the next: prime to their number, so that all have their turn, in an
/// order that has nothing to do with the one in which they came.
pub const STRIDE: usize = 3_779;
pub const ACCESS: usize = 4096;
pub const REFRESH: usize = 2048;
pub const ID: usize = 1024;
/// Bytes of text per user.
pub const PAYLOAD: usize = ACCESS + REFRESH + ID;

static TEXT: [u8; ACCESS] = [b'x'; ACCESS];

fn text(len: usize) -> &'static str {
    std::str::from_utf8(&TEXT[..len]).expect("ASCII")
}

/// What the peers keep per user.
#[derive(Clone, Serialize, Deserialize)]
pub struct UserTokens {
    pub access_token: String,
    pub expires_at: u64,
    pub refresh_token: String,
    pub id_token: String,
}

impl UserTokens {
    /// As a token endpoint has just issued them.
    pub fn issue() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        Self {
            access_token: text(ACCESS).into(),
            expires_at: now.as_secs() + 3600,
            refresh_token: text(REFRESH).into(),
            id_token: text(ID).into(),
        }
    }

    pub fn footprint(&self) -> u32 {
        (self.access_token.len() + self.refresh_token.len() + self.id_token.len() + 512) as u32
    }
}

/// The same for ours.
pub fn issue_set() -> TokenSet {
    scaled_set(1)
}

/// A set of a part of the usual size.
pub fn scaled_set(divisor: usize) -> TokenSet {
    let token = Token::new(text(ACCESS / divisor)).with_expires_in(Duration::from_secs(3600));
    TokenSet::from(token)
        .with_refresh_token(text(REFRESH / divisor))
        .with_id_token(text(ID / divisor))
}

/// A session id: 22 characters, as 128 bits in base64.
pub fn session_id(user: usize) -> String {
    format!(
        "{:022x}",
        (user as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)
    )
}
