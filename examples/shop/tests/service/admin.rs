use reqwest::{StatusCode, Url};
use serde_json::json;

use crate::{
    program::Collector,
    support::{Service, read},
};

#[tokio::test]
async fn an_administrator_sees_which_tasks_are_running() {
    let mut collector = Collector::start().await;
    let url = Url::parse(&collector.url).unwrap();
    let mut service = Service::start_with(|config| config.analytics = Some(url)).await;
    let (status, _) = read(service.post("/purchase", &[("item", "tea")])).await;
    assert_eq!(status, StatusCode::CREATED);
    collector.asked().await;

    let (status, _) = read(service.get("/admin/unfinished")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    service.sign_in("bob").await;
    let (status, _) = read(service.get("/admin/unfinished")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    service.sign_in("ada").await;
    let (status, tasks) = read(service.get("/admin/unfinished")).await;
    assert_eq!(status, StatusCode::OK);
    let [task] = &tasks.as_array().unwrap()[..] else {
        panic!("one task: {tasks}")
    };
    assert_eq!(
        (&task["name"], &task["key"]),
        (&json!("analytics"), &json!(null))
    );
    let place = task["place"].as_str().unwrap();
    assert!(place.contains("patterns/purchase.rs:"), "{place}");
    assert!(task["age_ms"].is_u64(), "{task}");

    collector.answer();
    service.drained().await;
    assert_eq!(read(service.get("/admin/unfinished")).await.1, json!([]));
}
