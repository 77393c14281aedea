//! What is stored in the clear is said to be, unless it is meant.

use std::io;

use tower_token_cache::{Builder, MemoryStore, RedisStore, SqliteStore};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// The warnings of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// How often this is warned of meanwhile.
fn warnings<T>(text: &str, during: impl FnOnce() -> T) -> (T, usize) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    let subscriber = subscriber.with_writer(log.clone()).finish();
    let result = tracing::subscriber::with_default(subscriber, during);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (result, log.matches(text).count())
}

fn built(builder: Builder) -> usize {
    warnings("stored in the clear", || builder.build().unwrap()).1
}

#[tokio::test]
async fn tokens_in_the_clear_are_one_warning_unless_they_are_meant() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(folder.path().join("cache.db"))
        .await
        .unwrap();
    let redis = RedisStore::builder("redis://127.0.0.1:1").build().unwrap();
    assert_eq!(built(TokenCache::builder(sqlite.clone())), 1);
    assert_eq!(built(TokenCache::builder(redis)), 1);
    let builder = || TokenCache::builder(sqlite.clone());
    assert_eq!(built(builder().plaintext()), 0);
    assert_eq!(built(builder().key_ring(KeyRing::generate().unwrap())), 0);
    // It does not leave the process.
    assert_eq!(built(TokenCache::builder(MemoryStore::new())), 0);
}

#[tokio::test]
async fn a_connection_in_the_clear_to_another_machine_is_a_warning() {
    for (url, expected) in [
        ("redis://redis.example", 1),
        ("redis://10.0.0.1:6379/1", 1),
        ("redis+cluster://127.0.0.1:1,redis.example:2", 1),
        ("redis+sentinel://redis.example/service", 1),
        ("redis://127.0.0.1:1", 0),
        ("redis://localhost:1", 0),
        ("redis://[::1]:1", 0),
        ("unix:///nowhere/redis.sock", 0),
        ("rediss://redis.example", 0),
    ] {
        let build = || RedisStore::builder(url).build().map(drop);
        let (built, found) = warnings("not encrypted", build);
        built.unwrap();
        assert_eq!(found, expected, "{url}");
    }
}
