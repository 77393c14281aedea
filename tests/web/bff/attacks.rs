//! Requests and answers that no browser and no sound API sends, byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::browser::Browser;
use common::support::eventually;
use oauth2::url::Url;
use reqwest::Method;

use super::Example;

const EXAMPLES: [&str; 2] = ["bff", "bff_actix"];
const COOKIE: &str = "__Host-sid";

/// An API that answers what it is told to, and keeps the heads and bodies of what it was sent.
#[derive(Clone)]
struct Api {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
            answer: Arc::new(Mutex::new(ok("{}"))),
        };
        let serving = api.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let api = serving.clone();
                std::thread::spawn(move || api.serve(stream));
            }
        });
        api
    }

    /// One request of a connection.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if reader.read_line(&mut request).ok()? == 0 {
                return None;
            }
        }
        let mut lines = request.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        request.push_str(std::str::from_utf8(&body).unwrap());
        self.seen.lock().unwrap().push(request);
        let answer = self.answer.lock().unwrap().clone();
        stream.write_all(answer.as_bytes()).ok()
    }

    /// What it was sent since it was last asked.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn answers(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn ok(body: &str) -> String {
    answer("200 OK", "content-type: application/json\r\n", body)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

/// An example, and alice's browser.
struct Site {
    api: Api,
    example: Example,
    browser: Browser,
}

impl Site {
    async fn start(example: &str) -> Self {
        let api = Api::start();
        let example = Example::start(example, Some(&api.url));
        eventually("the example answers", async || {
            reqwest::get(&example.base).await.is_ok()
        })
        .await;
        let mut browser = Browser::new();
        let url = Url::parse(&example.base).unwrap();
        let page = browser.go(Method::GET, url.join("/login").unwrap()).await;
        assert_eq!(page.at.path(), "/");
        Self {
            api,
            example,
            browser,
        }
    }

    fn at(&self, path: &str) -> Url {
        Url::parse(&self.example.base).unwrap().join(path).unwrap()
    }

    fn sid(&self) -> String {
        self.browser.cookie(&self.at("/"), COOKIE).unwrap()
    }

    /// The answer to these requests on one connection, each with alice's cookie and the header of the page's script.
    fn raw(&self, requests: &[(&str, &str, &str)]) -> String {
        let address = self.at("/").socket_addrs(|| None).unwrap()[0];
        let mut stream = TcpStream::connect(address).unwrap();
        let sid = self.sid();
        let mut text = String::new();
        for (index, (line, headers, body)) in requests.iter().enumerate() {
            let last = index + 1 == requests.len();
            let close = if last { "connection: close\r\n" } else { "" };
            let own = format!("host: x\r\ncookie: {COOKIE}={sid}\r\nx-csrf: 1\r\n{close}");
            text += &format!("{line} HTTP/1.1\r\n{own}{headers}\r\n{body}");
        }
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A server that refuses a body may close on it.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn ask(&self, line: &str) -> Answer {
        Answer::of(&self.raw(&[(line, "", "")]))
    }

    /// The status of the session with this cookie.
    async fn status_with(&self, sid: &str) -> u16 {
        let request = reqwest::Client::new().get(self.at("/bff/session"));
        let request = request.header("cookie", format!("{COOKIE}={sid}"));
        let answer = request.header("x-csrf", "1").send().await;
        answer.unwrap().status().as_u16()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    text: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, _) = text.split_once("\r\n\r\n").expect("an answer");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            text: text.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(own, value)| (own == name).then_some(&**value))
    }
}

/// The names of the headers of a request or an answer.
fn names(text: &str) -> Vec<String> {
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut names = Vec::from_iter(lines.map(|(name, _)| name.to_ascii_lowercase()));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_sent_the_request_and_the_token_and_nothing_else() {
    for example in EXAMPLES {
        let site = Site::start(example).await;
        let headers = "authorization: Bearer mine\r\ntransfer-encoding: chunked\r\ncontent-type: text/plain\r\n\
            x-forwarded-for: 1.2.3.4\r\nte: trailers\r\nx-http-method-override: DELETE\r\nforwarded: for=me\r\n\
            proxy-authorization: Basic eDp5\r\norigin: http://x\r\nreferer: http://x/secret\r\nuser-agent: me\r\n\
            range: bytes=0-1\r\nexpect: 100-continue\r\nif-match: \"a\"\r\naccept: text/plain\r\n";
        let answer = site.raw(&[("POST /bff/api/a?b=c", headers, "5\r\nhello\r\n0\r\n\r\n")]);
        assert!(answer.contains(" 200 "), "{example}: {answer}");
        let seen = site.api.seen();
        let [sent] = &seen[..] else {
            panic!("{example}: {seen:?}")
        };
        assert!(sent.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{sent}");
        assert!(sent.ends_with("\r\n\r\nhello"), "{sent}");
        assert!(!sent.contains("mine") && !sent.contains(COOKIE), "{sent}");
        assert!(sent.contains("authorization: Bearer "), "{sent}");
        let expected = [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "if-match",
        ];
        assert_eq!(names(sent), expected, "{example}");

        for method in ["TRACE", "OPTIONS", "HEAD", "PROPFIND", "get"] {
            let answer = site.ask(&format!("{method} /bff/api/a"));
            assert!(answer.status == 405, "{example}: {answer:?}");
        }
        // Where this server is asked to be a proxy of another kind.
        let address = site.api.url.trim_start_matches("http://");
        let refused = site.ask(&format!("CONNECT {address}"));
        assert!(refused.status >= 400, "{example}: {refused:?}");
        assert_eq!(site.api.seen(), [""; 0], "{example}");

        for (path, expected) in [
            ("/bff/api/a", Some("/a")),
            ("/bff/api/@evil.example", Some("/@evil.example")),
            ("/bff/api/:80/a", Some("/:80/a")),
            ("/bff/api/a%2Fb%3Fc%20d", Some("/a%2Fb%3Fc%20d")),
            ("/bff/api/a%0d%0ab?c=%0d%0a", Some("/a%0d%0ab?c=%0d%0a")),
            ("/bff/api/a?/../b", Some("/a?/../b")),
            ("http://evil.example/bff/api/a", Some("/a")),
            ("/bff/api@evil.example/", None),
            ("/bff/api.evil.example/a", None),
            ("/bff/%61pi/a", None),
            ("/bff/api/../a", None),
            ("/bff/api/%2e%2e/a", None),
            ("/bff/api/a/.%2E/b", None),
            ("/bff/api/..%2fa", None),
            ("/bff/api/..;/a", None),
            ("/bff/api/..%5ca", None),
            ("/bff/api/\\..\\a", None),
            ("/bff/../bff/api/a", None),
        ] {
            let status = site.ask(&format!("GET {path}")).status;
            let seen = site.api.seen();
            let seen = seen.first().and_then(|it| it.split(' ').nth(1));
            assert_eq!(seen, expected, "{example}: {path}");
            assert_eq!(
                status == 200,
                expected.is_some(),
                "{example}: {path}: {status}"
            );
        }

        // Of two lengths none is believed; a body that is too long goes nowhere.
        let smuggled = "0\r\n\r\nGET /bff/api/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
        let both = "content-length: 5\r\ntransfer-encoding: chunked\r\n";
        site.raw(&[("POST /bff/api/a", both, smuggled)]);
        let seen = site.api.seen();
        assert!(!seen.iter().any(|it| it.contains("smuggled")), "{example}");
        let long = "x".repeat(3 << 20);
        let length = format!("content-length: {}\r\n", long.len());
        site.raw(&[("POST /bff/api/a", &length, &long)]);
        assert_eq!(site.api.seen(), [""; 0], "{example}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_is_told_the_answer_and_nothing_else() {
    let odd = "content-type: text/html\r\netag: \"a\"\r\nset-cookie: __Host-sid=evil; Path=/; Secure\r\n\
        cache-control: public, max-age=99\r\nclear-site-data: \"*\"\r\nlocation: http://evil.example/\r\n\
        access-control-allow-origin: *\r\nwww-authenticate: Basic realm=\"x\"\r\nrefresh: 0; url=http://evil.example\r\n\
        content-security-policy: default-src *\r\nservice-worker-allowed: /\r\nlink: </x>; rel=preload\r\n\
        strict-transport-security: max-age=0\r\nalt-svc: h3=\"evil.example:443\"\r\nx-powered-by: x\r\n";
    for example in EXAMPLES {
        let site = Site::start(example).await;
        let own = [
            "cache-control",
            "connection",
            "content-length",
            "content-security-policy",
            "content-type",
            "date",
            "etag",
            "transfer-encoding",
            "x-content-type-options",
        ];
        for status in [
            "200 OK",
            "201 Created",
            "304 Not Modified",
            "401 No",
            "403 No",
            "418 T",
            "500 E",
        ] {
            let body = if status.starts_with('3') { "" } else { "hi" };
            site.api.answers(answer(status, odd, body));
            let told = site.ask("GET /bff/api/a");
            assert!(
                status.starts_with(&told.status.to_string()),
                "{example}: {told:?}"
            );
            for name in names(&told.text) {
                // A 401 asks for a session, in a scheme for which no browser opens a dialog.
                let asks = told.status == 401 && told.header("www-authenticate") == Some("Session");
                let is_own = own.contains(&&*name) || (asks && name == "www-authenticate");
                assert!(is_own, "{example}: {status}: {name}");
            }
            assert_eq!(told.header("cache-control"), Some("no-store"), "{example}");
            assert_eq!(
                told.header("x-content-type-options"),
                Some("nosniff"),
                "{example}"
            );
            assert!(
                told.header("content-security-policy")
                    .unwrap()
                    .contains("'self'")
            );
        }
        site.api.seen();

        // Where the API points to, nobody goes: only this server may be able to.
        let inside = Api::start();
        for status in ["301 M", "302 F", "303 S", "307 T", "308 P"] {
            let to = format!("location: {}/inside\r\n", inside.url);
            site.api.answers(answer(status, &to, ""));
            let told = site.ask("GET /bff/api/a");
            assert!(
                status.starts_with(&told.status.to_string()),
                "{example}: {told:?}"
            );
            assert_eq!(told.header("location"), None, "{example}");
        }
        assert_eq!(inside.seen(), [""; 0], "{example}");

        // Answers that are none, or not whole.
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort";
        let cut_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort";
        let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nraw";
        let long = answer("200 OK", "", &"x".repeat(9 << 20));
        for odd in [cut, cut_chunk, upgrade, "nonsense\r\n\r\n", "", &long] {
            site.api.answers(odd.to_owned());
            let told = site.ask("GET /bff/api/a");
            assert_eq!(told.status, 502, "{example}: {odd:.40}");
            assert!(!told.text.contains("http://"), "{example}: {told:?}");
        }

        // What has no body leaves nothing on the connection that the next answer comes by.
        for status in ["204 No Content", "304 Not Modified"] {
            site.api
                .answers(format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n"));
            let line = "DELETE /bff/api/a";
            let told = site.raw(&[(line, "", ""), (line, "", "")]);
            let (_, after) = told.split_once("\r\n\r\n").unwrap();
            assert!(
                after.starts_with("HTTP/1.1 "),
                "{example}: {status}: {told:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_demands_without_end_is_asked_twice_at_most() {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let claims = |json: &str| {
        let encoded = encode(json);
        format!(r#"Bearer error="insufficient_claims", claims="{encoded}""#)
    };
    let scope = |scope: &str| format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
    let mfa = r#"Bearer error="insufficient_user_authentication", acr_values="mfa""#;
    let long = "x".repeat(11_000);
    for example in EXAMPLES {
        let site = Site::start(example).await;
        for (challenge, status, expected, is_passed_on) in [
            (mfa.to_owned(), "401 No", 401, true),
            (mfa.to_owned(), "403 No", 401, true),
            (mfa.to_owned(), "200 OK", 200, false),
            (scope("write"), "403 No", 403, true),
            // Longer than a key can be, and than what can be passed on.
            (scope(&"s".repeat(2900)), "403 No", 403, true),
            (scope(&long), "403 No", 403, false),
            (claims("{}"), "401 No", 401, true),
            (claims("7"), "401 No", 401, false),
            (
                claims(&format!(r#"{{"a":"{long}"}}"#)),
                "401 No",
                401,
                false,
            ),
            (
                format!("Bearer a={}", "\"x".repeat(50_000)),
                "401 No",
                401,
                false,
            ),
        ] {
            let field = format!("www-authenticate: {challenge}\r\n");
            site.api.answers(answer(status, &field, "no"));
            for _ in 0..2 {
                let told = site.ask("GET /bff/api/a");
                let case = format!("{example}: {challenge:.60}: {:?}", told.headers);
                assert_eq!(told.status, expected, "{case}");
                let asked = told.header("www-authenticate") == Some(&challenge);
                assert_eq!(asked, is_passed_on, "{case}");
                assert!(told.text.len() < 4096, "{case}");
                assert!((1..=2).contains(&site.api.seen().len()), "{case}");
            }
        }
        // It ends nothing.
        assert_eq!(site.status_with(&site.sid()).await, 200, "{example}");
    }
}

/// A link of an attacker's cannot say what a login asks for, and what an API has said is asked for until it is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_asks_for_what_the_api_has_demanded_and_for_nothing_that_a_link_says() {
    const MFA: &str = "urn:example:mfa";
    for example in EXAMPLES {
        let mut site = Site::start(example).await;
        let asks_for = async |browser: &mut Browser, login: Url| {
            let to = browser.step(Method::GET, login).await.1.unwrap();
            let mut pairs = to.query_pairs();
            let scope = pairs.find(|(name, _)| name == "scope").unwrap().1;
            assert_eq!(scope, "openid offline_access", "{example}");
            let mut pairs = to.query_pairs();
            pairs.find_map(|(name, value)| (name == "acr_values").then(|| value.into_owned()))
        };
        let login = site.at("/login");
        let forged = site.at("/login?acr_values=evil&scope=evil&challenge=evil");
        assert_eq!(asks_for(&mut site.browser, forged).await, None, "{example}");
        let challenge = |class: &str| {
            format!(
                "www-authenticate: Bearer error=insufficient_user_authentication, acr_values={class:?}\r\n"
            )
        };
        // Scopes could be another API's.
        for scopes in [
            r#"Bearer error="insufficient_scope", scope="evil""#,
            r#"Bearer error="insufficient_user_authentication", acr_values="a", scope="evil""#,
        ] {
            let field = format!("www-authenticate: {scopes}\r\n");
            site.api.answers(answer("403 No", &field, ""));
            let told = site.ask("GET /bff/api/a");
            assert_eq!(told.header("www-authenticate"), Some(scopes), "{example}");
            assert_eq!(
                asks_for(&mut site.browser, login.clone()).await,
                None,
                "{example}"
            );
        }
        for class in ["other", MFA, MFA] {
            let refused = answer("401 No", &challenge(class), "");
            site.api.answers(refused);
            assert_eq!(site.ask("GET /bff/api/a").status, 401, "{example}");
            let asked = asks_for(&mut site.browser, login.clone()).await;
            assert_eq!(asked.as_deref(), Some(class), "{example}");
        }
        let mut other = Browser::new();
        assert_eq!(asks_for(&mut other, login.clone()).await, None, "{example}");
        let done = site.browser.go(Method::GET, login.clone()).await;
        assert_eq!(done.at.query(), None, "{example}");
        assert_eq!(asks_for(&mut site.browser, login).await, None, "{example}");
    }
}

/// Where the provider sends the browser back to for the login that begins at this URL.
async fn back(browser: &mut Browser, url: Url) -> Url {
    let mut next = url;
    loop {
        next = browser.step(Method::GET, next).await.1.expect("a redirect");
        if next.path() == "/callback" {
            return next;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_counts_once_and_for_the_login_of_this_browser() {
    for example in EXAMPLES {
        let mut site = Site::start(example).await;
        let before = site.sid();
        let login = site.at("/login");
        let first = back(&mut site.browser, login.clone()).await;
        let second = back(&mut site.browser, login.clone()).await;
        let ends = async |browser: &mut Browser, url: &Url| {
            let (answer, next) = browser.step(Method::GET, url.clone()).await;
            assert_eq!(answer.status, 303, "{example}");
            next.unwrap().query() != Some("failed")
        };
        // The code of one tab with the state of the other.
        let param = |url: &Url, name: &str| {
            let mut pairs = url.query_pairs();
            pairs.find(|(own, _)| own == name).unwrap().1.into_owned()
        };
        let third = back(&mut site.browser, login.clone()).await;
        let mut mixed = third.clone();
        let pairs = third.query_pairs().map(|(name, value)| match &*name {
            "code" => (name, param(&second, "code").into()),
            _ => (name, value),
        });
        let pairs = Vec::from_iter(pairs);
        mixed.query_pairs_mut().clear().extend_pairs(pairs);
        assert!(!ends(&mut site.browser, &mixed).await, "{example}");
        assert_eq!(site.sid(), before, "{example}");
        // Of an attacker's login in the browser of a victim who has no session, or one of their own.
        let mut attacker = Browser::new();
        let planted = back(&mut attacker, login.clone()).await;
        let mut stranger = Browser::new();
        assert!(!ends(&mut stranger, &planted).await, "{example}");
        assert_eq!(stranger.cookie(&site.at("/"), COOKIE), None, "{example}");
        assert!(!ends(&mut site.browser, &planted).await, "{example}");
        assert_eq!(site.sid(), before, "{example}");
        // Once; and the id of the session is another one then.
        assert!(ends(&mut site.browser, &first).await, "{example}");
        assert_ne!(site.sid(), before, "{example}");
        assert_eq!(site.status_with(&before).await, 401, "{example}");
        for repeated in [&first, &second] {
            assert!(!ends(&mut site.browser, repeated).await, "{example}");
        }
        assert_eq!(site.status_with(&site.sid()).await, 200, "{example}");
        // An id that an attacker has planted is no session's.
        let mut victim = Browser::new();
        victim.set_cookie(&site.at("/"), COOKIE, "A".repeat(43));
        victim.go(Method::GET, login).await;
        let sid = victim.cookie(&site.at("/"), COOKIE).unwrap();
        assert!(!sid.starts_with("AAAA"), "{example}");
        assert_eq!(site.status_with(&"A".repeat(43)).await, 401, "{example}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_kept_or_framed_whatever_it_is() {
    for example in EXAMPLES {
        let site = Site::start(example).await;
        for (line, status) in [
            ("GET /", 200),
            ("GET /page.js", 200),
            ("GET /login", 303),
            ("GET /login?return_to=//evil.example", 303),
            ("GET /callback", 303),
            ("GET /callback?error=access_denied", 303),
            ("GET /callback?code=a&code=b&state=c", 400),
            ("GET /nothing", 404),
            ("GET //", 404),
            ("GET /%ff", 404),
            ("GET /bff/session", 200),
            ("GET /bff/api/a", 200),
            ("TRACE /bff/api/a", 405),
            ("GET /bff/api/../a", 400),
        ] {
            let told = site.ask(line);
            assert_eq!(told.status, status, "{example}: {line}");
            let kept = told.header("cache-control").unwrap();
            assert!(kept.contains("no-store"), "{example}: {line}: {kept}");
            let policy = told.header("content-security-policy").unwrap();
            assert!(
                policy.contains("frame-ancestors 'none'"),
                "{example}: {line}"
            );
            if let Some(to) = told.header("location") {
                let sound = to == "/?failed" || to.starts_with(site.example.provider.issuer());
                assert!(sound && !to.contains("evil"), "{example}: {line}: {to}");
            }
        }
    }
}
