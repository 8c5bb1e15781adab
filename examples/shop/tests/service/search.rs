use reqwest::StatusCode;
use serde_json::json;

use crate::support::{BOTH, Service, read};

#[tokio::test]
async fn a_new_product_is_found() {
    for path in BOTH {
        let service = Service::start().await;
        let mug = [("name", "mug"), ("about", "Blue, with a handle.")];
        let (status, _) = service.send(&format!("{path}/products"), &mug).await;
        assert_eq!(status, StatusCode::CREATED);
        let (_, found) = read(service.get("/search?q=handle")).await;
        assert_eq!(
            found,
            json!([{ "name": "mug", "about": "Blue, with a handle." }])
        );
        assert_eq!(
            service.rows::<i64>("SELECT rowid FROM search WHERE search MATCH 'mug'"),
            [3]
        );

        // The same one again changes its entry.
        let mug = [("name", "mug"), ("about", "Red.")];
        service.send(&format!("{path}/products"), &mug).await;
        assert_eq!(read(service.get("/search?q=handle")).await.1, json!([]));
        assert_eq!(read(service.get("/search?q=red")).await.1[0]["name"], "mug");
    }
}

#[tokio::test]
async fn a_question_is_no_program() {
    let service = Service::start().await;
    for question in [
        "%22",
        "tea%22%20OR%20%22teapot",
        "NEAR(",
        "*",
        "'; DROP TABLE search",
        "",
    ] {
        let (status, found) = read(service.get(&format!("/search?q={question}"))).await;
        assert_eq!((status, found), (StatusCode::OK, json!([])), "{question}");
    }
    assert_eq!(read(service.get("/search?q=tea")).await.1[0]["name"], "tea");
}
