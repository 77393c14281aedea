//! Requests that are no logout requests, and both frameworks.

use actix_web::{App, HttpServer, web};
use axum::Router;
use axum::body::Body;
use axum::routing::post_service;
use http::{Request, header};
use tokio::net::TcpListener;

use super::issuer::{Site, form, send};

const FORM: &str = "application/x-www-form-urlencoded";

fn post(content_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/").header(header::CONTENT_TYPE, content_type);
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn what_is_no_logout_request_is_told_so() {
    let site = Site::start().await;
    let token = site.token("a", "1");
    let mut get = form(&token);
    *get.method_mut() = http::Method::GET;
    let twice = format!("logout_token={token}&logout_token={token}");
    let json = format!(r#"{{"logout_token":"{token}"}}"#);
    let long = format!("logout_token={}", "x".repeat(64 * 1024));
    let cases = [
        ("a GET", get, 405),
        ("JSON", post("application/json", json), 415),
        ("no type", Request::post("/").body("x".into()).unwrap(), 415),
        ("too long", post(FORM, long), 413),
        ("no token", post(FORM, "token=x"), 400),
        ("nothing", post(FORM, ""), 400),
        ("two tokens", post(FORM, twice), 400),
        ("no JWT", post(FORM, "logout_token=%FF%00"), 400),
    ];
    for (what, request, status) in cases {
        assert_eq!(send(&site.logout, request).await.status, status, "{what}");
    }
    assert_eq!(site.issuer.fetches(), 0);
}

#[tokio::test]
async fn it_is_mounted_in_axum_and_in_actix_web() {
    let site = Site::start().await;
    let logout = site.logout.clone();
    let router = Router::new().route("/logout", post_service(logout.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let axum = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let server =
        HttpServer::new(move || App::new().route("/logout", web::post().to(logout.clone())));
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0");
    let server = server.unwrap();
    let actix = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);

    let client = reqwest::Client::new();
    for (framework, address) in [("axum", axum), ("actix", actix)] {
        site.sign_in(framework, framework, "ada").await;
        let url = format!("http://{address}/logout");
        let post = async |body: String| {
            let request = client.post(&url).header("content-type", FORM);
            let response = request.body(body).send().await.unwrap();
            let status = response.status().as_u16();
            let cache = response.headers()["cache-control"].clone();
            assert_eq!(cache, "no-store", "{framework}");
            let kind = response.headers().get("content-type").cloned();
            let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
            (status, kind, response.text().await.unwrap())
        };
        let (status, kind, body) = post("logout_token=x".to_owned()).await;
        assert_eq!((status, kind.as_deref()), (400, Some("application/json")));
        assert!(body.starts_with(r#"{"error":"invalid_request","#), "{body}");
        let (status, _, body) =
            post(format!("logout_token={}", site.token(framework, framework))).await;
        assert_eq!((status, &*body), (200, ""), "{framework}");
        assert!(site.alive(&[framework]).await.is_empty());
    }
    handle.stop(false).await;
}

/// What a server has answered, as far as it is this handler's.
async fn answered(request: reqwest::RequestBuilder) -> String {
    let response = request.send().await.unwrap();
    let headers = ["cache-control", "content-type", "allow", "retry-after"];
    let headers = headers.map(|name| response.headers().get(name).cloned());
    let status = response.status();
    format!("{status} {headers:?} {}", response.text().await.unwrap())
}

/// By whatever route it is mounted, and whatever limit the application has for bodies.
#[tokio::test]
async fn both_frameworks_answer_alike() {
    let site = Site::start().await;
    site.sign_in("phone", "1", "ada").await;
    let logout = site.logout.clone();
    let router = Router::new().route_service("/logout", logout.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let axum = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let server = HttpServer::new(move || {
        let app = App::new().app_data(web::PayloadConfig::new(16));
        app.route("/logout", web::to(logout.clone()))
    });
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0");
    let server = server.unwrap();
    let actix = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);

    let client = reqwest::Client::new();
    let long = |size: usize| format!("logout_token={}", "x".repeat(size));
    let token = format!("logout_token={}", site.token("a", "1"));
    let cases = [
        ("GET", FORM, token.clone(), "405"),
        ("PUT", FORM, token.clone(), "405"),
        ("HEAD", FORM, String::new(), "405"),
        ("POST", FORM, long(10), "400"),
        ("POST", FORM, long(60_000), "400"),
        ("POST", FORM, long(70_000), "413"),
        ("POST", FORM, long(300_000), "413"),
        ("POST", "text/plain", long(10), "415"),
        ("POST", "text/plain", long(300_000), "413"),
    ];
    for (method, kind, body, status) in cases {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answers = [axum, actix].map(|address| {
            let request = client.request(method.clone(), format!("http://{address}/logout"));
            answered(request.header("content-type", kind).body(body.clone()))
        });
        let [by_axum, by_actix] = answers;
        let (by_axum, by_actix) = (by_axum.await, by_actix.await);
        assert!(by_axum.starts_with(status), "{method} {kind}: {by_axum}");
        assert!(by_axum.contains("no-store"), "{method} {kind}: {by_axum}");
        assert_eq!(by_axum, by_actix, "{method} {kind} {}", body.len());
    }
    handle.stop(false).await;
    assert_eq!(site.alive(&["phone"]).await, ["phone"]);
}
