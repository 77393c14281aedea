//! Sessions whose ids the layer issues.

mod cookie;
mod extract;
mod issue;
mod same_site;
mod sign_in;

pub use self::cookie::Cookie;
pub(crate) use self::cookie::new_session;
pub(crate) use self::issue::Issue;
pub use self::same_site::SameSite;
pub use self::sign_in::SignIn;
