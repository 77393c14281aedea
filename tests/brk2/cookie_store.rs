//! `CookieStore` at its limits.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::cookie::{CookieStore, CookieStoreBuilder};
use tower_token_cache::{Error, KeyRing, Token, TokenCacheLayer, Tokens};

fn builder() -> CookieStoreBuilder {
    CookieStore::builder(KeyRing::generate().unwrap())
}

/// So many letters that hardly compress.
fn text(size: usize, mut state: u64) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state >> 33) as usize % 64])
    };
    (0..size).map(letter).collect()
}

/// A request with these cookies: the lines of the response, and what the handler has returned.
async fn visit<R, F>(
    layer: &TokenCacheLayer,
    cookies: &str,
    handler: impl FnOnce(Tokens) -> F,
) -> (Vec<String>, R)
where
    F: Future<Output = R>,
{
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut handler = Some(handler);
    let request = Request::post("/").header(COOKIE, cookies).body(()).unwrap();
    let inner = service_fn(|request: Request<()>| {
        let tokens = request.extensions().get::<Tokens>().unwrap().clone();
        let (working, sender) = (handler.take().unwrap()(tokens), sender.clone());
        async move {
            sender.send(working.await).unwrap();
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let lines = response.headers().get_all(SET_COOKIE).iter();
    let lines = lines.map(|line| line.to_str().unwrap().to_owned());
    (lines.collect(), receiver.try_recv().unwrap())
}

/// What a browser sends after these lines.
fn sent(lines: &[String]) -> String {
    let pairs = lines.iter().map(|line| line.split(';').next().unwrap());
    let pairs: Vec<_> = pairs.filter(|pair| !pair.ends_with('=')).collect();
    pairs.join("; ")
}

/// max_size: "How many bytes the cookies may add to a request's head: 1 KiB to 64 KiB. A change that makes them larger is
/// `Error::TooLarge`", and what was there before is still sent.
#[tokio::test]
async fn the_limit_is_that_of_what_browsers_send() {
    for max_size in [1024, 1025, 1500, 4096, 7168, 16384, 65536] {
        for name in ["t", &"n".repeat(64)] {
            let store = builder().name(name).max_size(max_size).build().unwrap();
            let layer = store.layer().unwrap();
            let mut cookies = String::new();
            let (mut size, mut step, mut largest) = (16, max_size / 2, 0);
            while step > 8 {
                let token = Token::new(text(size + step, 7 + size as u64));
                let (lines, inserted) = visit(&layer, &cookies, async |tokens: Tokens| {
                    tokens.insert("api", token).await
                })
                .await;
                match inserted {
                    Ok(()) => {
                        cookies = sent(&lines);
                        size += step;
                        let added = "Cookie: ".len() + cookies.len() + 2;
                        assert!(
                            added <= max_size + "Cookie: ".len(),
                            "{added} of {max_size}"
                        );
                        largest = added;
                    }
                    Err(Error::TooLarge { limit, .. }) => {
                        assert_eq!(limit, max_size);
                        step /= 2;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            println!("{max_size} {}: {largest}", name.len());
            let (_, found) = visit(&layer, &cookies, async |tokens: Tokens| {
                tokens.get("api").await.unwrap().is_hit()
            })
            .await;
            assert!(found || size == 16, "{max_size} {name}");
        }
    }
}

/// Stats::superseded_changes: "Acquired tokens dropped because others had replaced what they were to replace."
#[tokio::test]
async fn what_is_too_large_is_not_superseded() {
    let layer = builder().max_size(1024).build().unwrap().layer().unwrap();
    let token = Token::new(text(4000, 3));
    let (_, inserted) = visit(&layer, "", async |tokens: Tokens| {
        tokens.insert("api", token).await
    })
    .await;
    assert!(
        matches!(inserted, Err(Error::TooLarge { .. })),
        "{inserted:?}"
    );
    let stats = layer.cache().stats();
    assert_eq!(stats.superseded_changes, 0, "{stats:?}");
}

/// max_age: "Copied ones that are not used are good for as long; those that are used are set anew, up to
/// `MAX_SESSION_AGE`." A session that is read every day, and never changed.
#[tokio::test]
async fn cookies_that_are_used_are_set_anew() {
    use std::time::Duration;
    use tower_token_cache::{Clock, Lifetimes, Timestamp};
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let clock = Clock::manual(Timestamp::now());
    let store = builder().clock(clock.clone()).build().unwrap();
    let forever = Lifetimes::new().after_write(None);
    let layer = store
        .layer_with(|builder| builder.lifetimes(forever))
        .unwrap();
    let (lines, inserted) = visit(&layer, "", async |tokens: Tokens| {
        tokens.insert("api", Token::new("t")).await
    })
    .await;
    inserted.unwrap();
    let mut cookies = sent(&lines);
    for day in 1..20 {
        clock.advance(DAY);
        let (lines, found) = visit(&layer, &cookies, async |tokens: Tokens| {
            tokens.get("api").await.unwrap().is_hit()
        })
        .await;
        assert!(found, "used every day, and gone on day {day}");
        if !lines.is_empty() {
            cookies = sent(&lines);
        }
    }
}
