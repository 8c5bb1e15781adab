//! What a browser gets: pages, their files, and errors, with nothing of a visitor's in them that is not escaped.

use reqwest::StatusCode;

use crate::support::{Service, read};

const ATTACK: &str = "<script>alert(1)</script><img src=x onerror='alert(1)'>\"";
const ESCAPED: &str =
    "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror='alert(1)'&gt;&quot;";

async fn html(service: &Service, path: &str) -> (StatusCode, String) {
    let request = service.get(path).header("accept", "text/html,*/*;q=0.8");
    let response = request.send().await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
    (response.status(), response.text().await.unwrap())
}

#[tokio::test]
async fn what_visitors_write_is_escaped_wherever_it_is_shown() {
    let mut service = Service::start().await;
    service.sign_in("bob").await;
    service
        .send("/posts", &[("title", ATTACK), ("body", ATTACK)])
        .await;
    service
        .send("/products", &[("name", ATTACK), ("about", ATTACK)])
        .await;
    // Post, product, question, and the path of a page that is not there.
    for (path, times) in [("/posts/1", 3), ("/search?q=script", 2)] {
        let (status, page) = html(&service, path).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(page.matches(ESCAPED).count(), times, "{page}");
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
    }
    let question = service
        .client
        .get(service.url("/search"))
        .query(&[("q", ATTACK)]);
    let page = question.header("accept", "text/html").send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(
        page.contains(ESCAPED) && !page.contains("<script"),
        "{page}"
    );

    let request = service
        .post("/purchase", &[("item", ATTACK)])
        .header("accept", "text/html");
    let page = request.send().await.unwrap().text().await.unwrap();
    assert!(
        page.contains(ESCAPED) && !page.contains("<script"),
        "{page}"
    );
}

#[tokio::test]
async fn an_error_is_a_page_for_a_browser_and_json_for_a_program() {
    let service = Service::start().await;
    let (status, page) = html(&service, "/nowhere").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        page.contains("<h1>Not Found</h1>") && page.contains("There is no page /nowhere."),
        "{page}"
    );
    let (status, reply) = read(service.get("/nowhere")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(reply["message"], "There is no page /nowhere.");
}

#[tokio::test]
async fn what_the_framework_refuses_is_answered_in_the_same_way() {
    let service = Service::start().await;
    let (status, reply) = read(service.get("/purchase")).await;
    assert_eq!(
        (status, &reply["message"]),
        (
            StatusCode::METHOD_NOT_ALLOWED,
            &"Method Not Allowed.".into()
        )
    );
    let (status, reply) = read(service.post("/purchase", &[])).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        reply["message"]
            .as_str()
            .unwrap()
            .contains("missing field `item`"),
        "{reply}"
    );
    let (status, _) = read(service.post("/purchase", &[("item", &"x".repeat(70_000))])).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = read(service.get("/posts/one")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, page) = html(&service, "/posts/one").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("<h1>Bad Request</h1>"), "{page}");
}

#[tokio::test]
async fn an_error_of_ours_says_nothing_of_its_cause() {
    let service = Service::start().await;
    service.database().execute("DROP TABLE orders", ()).unwrap();
    let (status, reply) = service.send("/purchase", &[("item", "tea")]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        reply["message"],
        "This went wrong on our side. Please try again."
    );
    assert!(service.received().events.is_empty());
}

#[tokio::test]
async fn the_page_has_all_its_files_and_asks_nobody_else() {
    let service = Service::start().await;
    for file in ["/", "/style.css", "/page.js", "/chart.js", "/icon.svg"] {
        let response = service.get(file).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{file}");
        let text = response.text().await.unwrap();
        // The name of a format, and no address.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://") && !text.contains("\"//"), "{file}");
        // What the policy would refuse.
        assert!(
            !text.contains(" style=") && !text.contains(" onclick="),
            "{file}"
        );
    }
}
