use reqwest::StatusCode;

use crate::support::{BOTH, Service, read};

const ROUTES: [&str; 7] = [
    "/purchase",
    "/users/delete",
    "/posts",
    "/profile",
    "/shipments",
    "/products",
    "/pictures",
];

/// Fits all of them, besides the one for pictures.
const FORM: [(&str, &str); 8] = [
    ("item", "tea"),
    ("target", "guest-1"),
    ("title", "a"),
    ("body", "b"),
    ("name", "mug"),
    ("about", "c"),
    ("order", "1"),
    ("user", "ada"),
];

#[tokio::test]
async fn what_another_site_sends_is_refused_on_every_route() {
    let mut service = Service::start().await;
    service.sign_in("ada").await;
    let sessions = || service.rows::<i64>("SELECT count(*) FROM sessions");
    assert_eq!(sessions(), [1]);

    let mut routes = vec!["/login".to_owned(), "/logout".to_owned()];
    for with in BOTH {
        routes.extend(ROUTES.iter().map(|route| format!("{with}{route}")));
    }
    let foreign = [
        ("sec-fetch-site", "cross-site"),
        // A sister of ours may be in wrong hands.
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "http://127.0.0.1:1"),
        ("origin", "null"),
    ];
    for route in &routes {
        for (name, value) in foreign {
            let (status, reply) = read(service.post(route, &FORM).header(name, value)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{route} {name}: {value}");
            assert_eq!(reply["message"], "This request came from another site.");
        }
    }
    service.drained().await;
    assert_eq!(service.shop.runner.stats().deferred, 0);
    assert_eq!(sessions(), [1]);
    assert!(
        service
            .rows::<i64>("SELECT id FROM orders WHERE id > 1")
            .is_empty()
    );
}

#[tokio::test]
async fn what_the_page_sends_and_what_no_browser_sends_is_served() {
    let service = Service::start().await;
    let own = format!("http://{}", service.shop.address);
    let headers = [
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "none"),
        ("origin", &own),
        ("accept", "*/*"),
    ];
    for (name, value) in headers {
        let (status, _) = read(service.post("/purchase", &FORM).header(name, value)).await;
        assert_eq!(status, StatusCode::CREATED, "{name}: {value}");
    }
}

#[tokio::test]
async fn other_sites_may_link_to_what_changes_nothing() {
    let service = Service::start().await;
    let request = service
        .get("/search?q=tea")
        .header("sec-fetch-site", "cross-site");
    assert_eq!(read(request).await.0, StatusCode::OK);
}
