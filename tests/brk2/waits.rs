//! How long a request waits while L2 hangs.

use std::time::Duration;

use common::store::TestStore;
use common::support::*;
use tokio::time::Instant;
use tower_token_cache::{FailurePolicy, Tokens};

use crate::browser::*;

const HOUR: Duration = Duration::from_secs(3600);

/// README: "With Redis hung or dead, users in memory are served as before, no request waits longer than a second". A
/// request of a user in memory does one thing, or two; L2 hangs at its start, or from the first commit on.
#[tokio::test(start_paused = true)]
async fn no_request_waits_longer_than_a_second() {
    let mut slow = Vec::new();
    for (policy, hangs) in [
        (FailurePolicy::Degrade, "all"),
        (FailurePolicy::Degrade, "commits"),
        (FailurePolicy::Strict, "all"),
        (FailurePolicy::Strict, "commits"),
    ] {
        for how in [
            "get",
            "absent",
            "insert",
            "put",
            "take",
            "sign_in",
            "sign_in of a user",
            "sign_out",
            "move_to",
            "remove and get",
            "insert and take",
            "sign_out and insert",
            "link_user",
            "acquire",
            "commit",
            "two values",
            "keys and put",
        ] {
            let store = TestStore::default();
            let cache = cache(store.clone());
            let layer = issuing(&cache).failure_policy(policy);
            let mut browser = Browser::default();
            browser.sign_in(&layer, "ada").await;
            browser
                .visit(&layer, async |tokens: Tokens| {
                    tokens.put("login", "state", HOUR).await
                })
                .await;
            match hangs {
                "all" => store.hang(),
                _ => store.hold_group(1),
            }
            let began = Instant::now();
            let visit = browser
                .visit(&layer, async |tokens: Tokens| match how {
                    "get" => drop(tokens.get("api").await),
                    "absent" => drop(tokens.get("absent").await),
                    "insert" => drop(tokens.insert("api", token("n")).await),
                    "put" => drop(tokens.put("v", "x", HOUR).await),
                    "take" => drop(tokens.take::<String>("login").await),
                    "sign_in" => drop(tokens.sign_in(sign_in("bob")).await),
                    "sign_in of a user" => drop(tokens.sign_in(sign_in("bob").user("bob")).await),
                    "sign_out" => drop(tokens.sign_out().await),
                    "move_to" => drop(tokens.move_to(session("new")).await),
                    "remove and get" => {
                        drop(tokens.remove("api").await);
                        drop(tokens.get("api").await);
                    }
                    "insert and take" => {
                        drop(tokens.insert("api", token("n")).await);
                        drop(tokens.take::<String>("login").await);
                    }
                    "sign_out and insert" => {
                        drop(tokens.sign_out().await);
                        drop(tokens.insert("api", token("n")).await);
                    }
                    "link_user" => drop(tokens.link_user("ada").await),
                    "acquire" => {
                        let acquire = async |_| Ok::<_, std::io::Error>(answer("x"));
                        drop(tokens.get_or_acquire("other", acquire).await);
                    }
                    "two values" => {
                        drop(tokens.value::<String>("a").await);
                        drop(tokens.value::<String>("b").await);
                    }
                    "keys and put" => {
                        drop(tokens.keys().await);
                        drop(tokens.put("v", "x", HOUR).await);
                    }
                    _ => drop(tokens.commit().await),
                })
                .await;
            let waited = began.elapsed();
            if waited > Duration::from_millis(1050) {
                slow.push(format!(
                    "{policy:?}, {hangs} hang, {how}: {waited:?}, {}",
                    visit.status
                ));
            }
            store.wake();
            store.release_group();
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
