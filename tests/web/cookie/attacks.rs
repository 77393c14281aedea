//! Cookies that are not as they were set: each is a counted miss, and the request goes on.

use tower_token_cache::cookie::CookieStore;
use tower_token_cache::{KeyRing, Stats};

use super::jar::Jar;
use super::server::{Server, builder, text};

/// A server, and a browser with a session of two chunks.
async fn setup() -> (Server, Jar) {
    let server = Server::new(builder()).await;
    let jar = session(&server).await;
    (server, jar)
}

async fn session(server: &Server) -> Jar {
    let mut jar = Jar::default();
    jar.post(server.address, "/tokens/a", &text(6_000)).await;
    assert_eq!(jar.0.len(), 2);
    jar
}

fn chunk(jar: &mut Jar, number: usize) -> &mut String {
    jar.0
        .get_mut(&format!("__Host-tokens.{number}"))
        .expect("a chunk")
}

/// The request finds nothing, its cookies are removed, and it can begin anew.
async fn missed(server: &Server, mut jar: Jar, what: &str) -> Stats {
    let before = server.cache.stats().unopenable;
    let answer = jar.get(server.address, "/tokens/a").await;
    assert!(answer.status.is_success(), "{what}: {answer:?}");
    assert_eq!(answer.body, "Absent", "{what}");
    assert!(jar.0.is_empty(), "{what}: {jar:?}");
    let stats = server.cache.stats();
    assert_eq!(stats.unopenable, before + 1, "{what}");
    jar.post(server.address, "/tokens/a", "new").await;
    assert_eq!(jar.get(server.address, "/tokens/a").await.body, "new");
    stats
}

#[tokio::test]
async fn changed_characters_and_cut_off_chunks() {
    let (server, jar) = setup().await;
    let lengths = [0, 1].map(|number| chunk(&mut jar.clone(), number).len());
    for (number, length) in lengths.into_iter().enumerate() {
        for at in (0..length).step_by(97).chain(0..8) {
            let mut changed = jar.clone();
            let text = chunk(&mut changed, number);
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            text.replace_range(at..=at, other);
            missed(&server, changed, &format!("{number}, {at}")).await;
            let mut cut = jar.clone();
            chunk(&mut cut, number).truncate(at);
            missed(&server, cut, &format!("{number}, cut off at {at}")).await;
        }
    }
    assert!(server.cache.stats().unopenable_reasons.tampered > 0);
    assert_eq!(
        jar.clone()
            .get(server.address, "/tokens/a")
            .await
            .body
            .len(),
        6_000
    );
}

#[tokio::test]
async fn missing_foreign_and_surplus_chunks() {
    let (server, jar) = setup().await;
    for number in 0..2 {
        let mut missing = jar.clone();
        missing.0.remove(&format!("__Host-tokens.{number}"));
        missed(&server, missing, "missing").await;
    }
    for text in [
        "", "1.", "x", "1.x", "99.x", "0.x", "-1.x", "2. \"", "1.AAAA",
    ] {
        let mut foreign = Jar::default();
        foreign.0.insert("__Host-tokens.0".into(), text.into());
        missed(&server, foreign, text).await;
    }
    let mut long = jar.clone();
    for number in 0..30 {
        long.0
            .insert(format!("__Host-tokens.{number}"), "A".repeat(2_000));
    }
    chunk(&mut long, 0).insert_str(0, "30.");
    let stats = missed(&server, long, "too long").await;
    assert_eq!(stats.unopenable_reasons.too_large, 1);
    // Names that no chunk has: they could not be removed, and would be in the way for ever.
    let mut padded = jar.clone();
    for name in ["00", "01", "+1", "", "32", "-0", "1x"] {
        padded.0.insert(format!("__Host-tokens.{name}"), "x".into());
    }
    let found = padded.get(server.address, "/tokens/a").await;
    assert_eq!(found.body.len(), 6_000);
    // What was left by a larger session is not looked at, and removed when cookies are set.
    let mut surplus = jar.clone();
    let name = "__Host-tokens.2".to_owned();
    surplus.0.insert(name.clone(), "stale".into());
    let found = surplus.get(server.address, "/tokens/a").await;
    assert_eq!(found.body.len(), 6_000);
    surplus.post(server.address, "/tokens/b", "t").await;
    assert!(!surplus.0.contains_key(&name));
}

#[tokio::test]
async fn chunks_of_another_session_and_of_another_time() {
    let (server, jar) = setup().await;
    let other = session(&server).await;
    let mut later = jar.clone();
    later.post(server.address, "/tokens/b", "t").await;
    for (number, source) in [(0, &other), (1, &other), (0, &later), (1, &later)] {
        let mut swapped = jar.clone();
        *chunk(&mut swapped, number) = chunk(&mut source.clone(), number).clone();
        missed(&server, swapped, &format!("{number}")).await;
    }
}

#[tokio::test]
async fn cookies_of_another_name_and_another_ring() {
    let ring = KeyRing::generate().unwrap();
    let server = Server::new(CookieStore::builder(ring.clone())).await;
    let other = Server::new(CookieStore::builder(ring).name("others")).await;
    let mut jar = Jar::default();
    jar.post(other.address, "/tokens/a", "t").await;
    let (name, value) = jar.0.pop_first().expect("a cookie");
    assert_eq!(name, "__Host-others.0");
    jar.0.insert("__Host-tokens.0".into(), value);
    let stats = missed(&server, jar, "another name").await;
    assert_eq!(stats.unopenable_reasons.tampered, 1);

    // Another ring's are left alone: perhaps this instance is behind.
    let elsewhere = session(&Server::new(builder()).await).await;
    let mut jar = elsewhere.clone();
    let answer = jar.get(server.address, "/tokens/a").await;
    assert_eq!((answer.body.as_str(), &jar.0), ("Absent", &elsewhere.0));
    assert_eq!(server.cache.stats().unopenable_reasons.unknown_key, 1);
    // Until there is something to put in their place.
    jar.post(server.address, "/tokens/a", "t").await;
    assert_eq!(jar.0.len(), 1);
    assert_eq!(jar.get(server.address, "/tokens/a").await.body, "t");
}
