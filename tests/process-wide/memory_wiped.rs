//! The memory of this process holds no token of a user who has signed out or was evicted from L1.
//! Read as an attacker with a core dump would: every writable page.
//!
//! What is looked for are the buffers of this crate. The client of Redis and SQLite have buffers of
//! their own that nobody wipes; with encryption those hold sealed bytes only, so with encryption
//! the whole process is clean. One test in one process: nothing else may hold the tokens.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom};

use tower::{Layer, ServiceExt};
use tower_token_cache::{
    BoxError, CookieStore, Error, KeyRing, L1, MemoryStore, Prior, SqliteStore, TokenCache,
    TokenCacheLayer, TokenSet, Tokens,
};
use zeroize::Zeroizing;

use common::own_process::is_own;
use common::support::*;

/// Bytes of each secret that are looked for.
const NEEDLE: usize = 48;

/// A secret that stands nowhere: it is made anew each time from its number.
#[derive(Clone, Copy, Debug)]
struct Canary(u64);

impl Canary {
    /// The byte at a place, one at a time, so that the whole stands nowhere.
    fn byte(self, at: usize) -> u8 {
        let seed = self.0 ^ (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = black_box(seed)
            .wrapping_mul(0xBF58_476D_1CE4_E5B9)
            .rotate_left(29);
        b'a' + (mixed.wrapping_mul(0x94D0_49BB_1331_11EB) >> 59) as u8 % 26
    }

    /// In a buffer of the right size, which is wiped.
    fn text(self, length: usize) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.extend((0..length).map(|at| char::from(self.byte(at))));
        text
    }

    fn is_at(self, bytes: &[u8], start: usize) -> bool {
        (0..NEEDLE).all(|at| bytes.get(start + at) == Some(&self.byte(at)))
    }
}

/// How often each of these stands in memory.
fn counts(canaries: [Canary; 4]) -> [usize; 4] {
    let mut counts = [0; 4];
    let firsts = canaries.map(|canary| canary.byte(0));
    each_writable_page(|bytes| {
        for (start, byte) in bytes.iter().enumerate() {
            if !firsts.contains(byte) {
                continue;
            }
            for (count, canary) in counts.iter_mut().zip(canaries) {
                *count += usize::from(canary.is_at(bytes, start));
            }
        }
    });
    counts
}

/// A chunk at a time, into one buffer, whose own pages are passed over.
fn each_writable_page(mut look: impl FnMut(&[u8])) {
    const CHUNK: usize = 1 << 16;
    let mut buffer = Zeroizing::new(vec![0_u8; CHUNK + NEEDLE]);
    let zeros = vec![0_u8; CHUNK + NEEDLE];
    let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
    let mut maps = String::new();
    File::open("/proc/self/maps")
        .unwrap()
        .read_to_string(&mut maps)
        .unwrap();
    let mut memory = File::open("/proc/self/mem").unwrap();
    for line in maps.lines() {
        let mut parts = line.split(' ');
        let (range, rights) = (parts.next().unwrap(), parts.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let end = u64::from_str_radix(to, 16).unwrap();
        let mut at = u64::from_str_radix(from, 16).unwrap();
        while at < end {
            if own.contains(&at) {
                at = own.end;
                continue;
            }
            let limit = if at < own.start {
                end.min(own.start)
            } else {
                end
            };
            let size = usize::try_from(limit - at).unwrap().min(buffer.len());
            memory.seek(SeekFrom::Start(at)).unwrap();
            // A mapping may go meanwhile.
            if memory.read_exact(&mut buffer[..size]).is_err() {
                break;
            }
            // Most of it was never touched.
            if buffer[..size] != zeros[..size] {
                look(&buffer[..size]);
            }
            // Chunks overlap, so that nothing is cut in two.
            let step = if limit - at > size as u64 {
                size - NEEDLE
            } else {
                size
            };
            at += step as u64;
        }
    }
}

/// What one user has: an access, a refresh and an id token, and another field.
#[derive(Clone, Copy)]
struct User([Canary; 4]);

impl User {
    fn new(number: u64) -> Self {
        Self([1, 2, 3, 4].map(|kind| Canary(number << 8 | kind)))
    }

    /// Short ones and long ones; each allocation is of another size.
    fn set(&self) -> TokenSet {
        let [access, refresh, id, extra] = self.0;
        let access = token(&access.text(900))
            .with_extra("extra", &extra.text(300).as_str())
            .unwrap();
        TokenSet::from(access)
            .with_refresh_token(refresh.text(1200).as_str())
            .with_id_token(id.text(100).as_str())
    }

    fn counts(&self) -> [usize; 4] {
        counts(self.0)
    }
}

/// The same as an answer of a token endpoint, in a buffer that is wiped.
fn answer(user: &User) -> TokenSet {
    let [access, refresh, id, extra] = user.0;
    let mut json = Zeroizing::new(String::with_capacity(4096));
    for part in [
        r#"{"access_token":""#,
        &access.text(900),
        r#"","expires_in":3600,"refresh_token":""#,
        &refresh.text(1200),
        r#"","id_token":""#,
        &id.text(100),
        r#"","extra":""#,
        &extra.text(300),
        r#""}"#,
    ] {
        json.push_str(part);
    }
    serde_json::from_str(&json).unwrap()
}

/// Everything that a user does, up to the moment before the sign-out.
async fn use_tokens(cache: &TokenCache, sid: &str, user: &User, next: &User) {
    let tokens = cache.tokens(session(sid));
    tokens.insert("graph", user.set()).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    assert!(tokens.get("graph").await.unwrap().is_hit());
    assert!(tokens.reload().await.unwrap());
    assert!(tokens.refresh_token().await.unwrap().is_hit());
    let shown = user.counts();
    assert!(
        shown.iter().all(|count| *count > 0),
        "they can be seen: {shown:?}"
    );

    // All of them are replaced by an acquisition.
    let set = answer(next);
    let acquire = async move |_: Prior| Ok::<_, BoxError>(set);
    let acquisition = tokens.acquire("graph").unwrap().force_refresh();
    acquisition.with(acquire).await.unwrap();
    let shown = next.counts();
    assert!(
        shown.iter().all(|count| *count > 0),
        "they can be seen: {shown:?}"
    );
}

fn assert_gone(what: &str, users: &[&User]) {
    for user in users {
        let left = user.counts();
        assert_eq!(
            left, [0; 4],
            "{what}: access, refresh, id token, extra field"
        );
    }
}

/// Puts others in the place of everybody who is in L1.
async fn evict(cache: &TokenCache, before: usize) {
    for number in 0..before {
        let tokens = cache.tokens(session(&format!("other-{number}")));
        let other = token(&"o".repeat(2000));
        tokens.insert("graph", other).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    cache.stats();
}

fn settings(store: impl tower_token_cache::TokenStore) -> tower_token_cache::Builder {
    builder(store).l1(L1::new().max_bytes(64 << 10))
}

/// What a request does, and sees in memory.
enum Step {
    Insert(User),
    Acquire(User),
    SignOut,
}

async fn handle(request: http::Request<Step>) -> Result<http::Response<String>, Error> {
    let tokens = request.extensions().get::<Tokens>().unwrap().clone();
    let shown = match request.into_body() {
        Step::Insert(user) => {
            tokens.insert("graph", user.set()).await?;
            user.counts()
        }
        Step::Acquire(user) => {
            let set = answer(&user);
            let acquire = async move |_: Prior| Ok::<_, BoxError>(set);
            let acquisition = tokens.acquire("graph")?.force_refresh();
            acquisition.with(acquire).await?;
            user.counts()
        }
        Step::SignOut => {
            assert_stored(tokens.sign_out().await?);
            [1; 4]
        }
    };
    assert!(
        shown.iter().all(|count| *count > 0),
        "they can be seen: {shown:?}"
    );
    Ok(http::Response::new(String::new()))
}

/// Sends a request with these cookies, and gives those of the response.
async fn in_cookies(layer: &TokenCacheLayer, cookies: &str, step: Step) -> String {
    let request = http::Request::builder().header("cookie", cookies);
    let service = layer.layer(tower::service_fn(handle));
    let response = service.oneshot(request.body(step).unwrap()).await.unwrap();
    let lines = response.headers().get_all("set-cookie").iter();
    let pairs = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned());
    pairs.collect::<Vec<_>>().join("; ")
}

/// Sessions that live in cookies are here while a request works on them.
async fn cookies_leave_nothing() {
    let store = || CookieStore::builder(KeyRing::generate().unwrap());
    let forgetful = store().memory(0).build().unwrap().layer().unwrap();
    let [first, next] = [1, 2].map(|number| User::new(100 + number));
    let cookies = in_cookies(&forgetful, "", Step::Insert(first)).await;
    assert_gone("cookies, responded", &[&first]);
    in_cookies(&forgetful, &cookies, Step::Acquire(next)).await;
    assert_gone("cookies, responded", &[&first, &next]);

    let layer = store().build().unwrap().layer().unwrap();
    let [first, next] = [3, 4].map(|number| User::new(100 + number));
    let cookies = in_cookies(&layer, "", Step::Insert(first)).await;
    let cookies = in_cookies(&layer, &cookies, Step::Acquire(next)).await;
    assert_gone("cookies, replaced", &[&first]);
    in_cookies(&layer, &cookies, Step::SignOut).await;
    assert_gone("cookies, signed out", &[&first, &next]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_wiped() {
    if !is_own("memory_wiped::tokens_are_wiped") {
        return;
    }
    cookies_leave_nothing().await;
    let ring = || KeyRing::generate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = RedisServer::start();
    let sqlite = SqliteStore::open(folder.path().join("t.db")).await.unwrap();
    let caches = [
        ("memory", settings(MemoryStore::new()).build(), false),
        (
            "memory, sealed",
            settings(MemoryStore::new()).key_ring(ring()).build(),
            true,
        ),
        (
            "sqlite, sealed",
            settings(sqlite).key_ring(ring()).build(),
            true,
        ),
        (
            "redis, sealed",
            settings(redis_store(&server).await)
                .key_ring(ring())
                .build(),
            true,
        ),
    ];
    for (number, (what, cache, sealed)) in caches.into_iter().enumerate() {
        let cache = cache.unwrap();
        let number = 10 * (number as u64 + 1);
        let [first, next] = [1, 2].map(|one| User::new(number + one));
        use_tokens(&cache, "a", &first, &next).await;
        if sealed {
            assert_gone(&format!("{what}, replaced"), &[&first]);
        }
        assert_stored(cache.tokens(session("a")).sign_out().await.unwrap());
        assert_gone(&format!("{what}, signed out"), &[&first, &next]);

        // In L2 in plain they are in this process too, where L2 is memory.
        if sealed {
            let [first, next] = [3, 4].map(|one| User::new(number + one));
            use_tokens(&cache, "b", &first, &next).await;
            evict(&cache, 200).await;
            assert_gone(&format!("{what}, evicted"), &[&first, &next]);
        }

        let [first, next] = [5, 6].map(|one| User::new(number + one));
        use_tokens(&cache, "c", &first, &next).await;
        drop(cache);
        eventually("the cache is gone", async || {
            [&first, &next].iter().all(|user| user.counts() == [0; 4])
        })
        .await;
    }
}
