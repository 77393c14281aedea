//! Sessions of another crate in Redis that become ours.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_token_cache::import::{Found, Import};

use super::evidence::Evidence;
use super::*;

pub(crate) async fn run(evidence: &Evidence, server: &RedisServer) {
    server.query::<()>("FLUSHALL");
    let answer = json!({"access_token": ACCESS, "refresh_token": REFRESH, "id_token": ID});
    let record = Record {
        id: Id::default(),
        data: [
            ("tokens".to_owned(), answer),
            ("user".to_owned(), json!(USER)),
        ]
        .into(),
        expiry_date: OffsetDateTime::now_utc() + Duration::from_secs(3600),
    };
    let bytes = rmp_serde::to_vec(&record).unwrap();
    server.command(&[b"SET", record.id.to_string().as_bytes(), &bytes]);
    // What is no session, and one that is cut off.
    server.command(&[
        b"SET",
        Id::default().to_string().as_bytes(),
        &bytes[..bytes.len() / 2],
    ]);
    server.command(&[
        b"SET",
        Id::default().to_string().as_bytes(),
        indiscretion().as_bytes(),
    ]);
    server.command(&[b"SET", b"another", indiscretion().as_bytes()]);
    let redis = redis_store(server).await;
    let store = TestStore::default();
    for down in [false, true] {
        store.set_down(down);
        for import in [
            Import::tower_sessions(&redis),
            Import::actix_session(&redis).prefix("a*"),
        ] {
            evidence.debug("an import", &import);
            let cache = build(store.clone(), FailurePolicy::Degrade, false).await;
            let shown = Mutex::new(String::new());
            let done = import.into_cache(&cache, |found| {
                shown
                    .lock()
                    .unwrap()
                    .push_str(&format!("{found:?} {found:#?}"));
                let set: TokenSet = found.get("tokens")?;
                let found = Found::new(session(SESSION), "api", set).user(USER);
                shown
                    .lock()
                    .unwrap()
                    .push_str(&format!("{found:?} {found:#?}"));
                Some(found)
            });
            evidence.outcome("an import", done.await);
            evidence.text("a session", &shown.lock().unwrap());
        }
    }
    server.query::<()>("FLUSHALL");
}
