//! What the page's chart is made of.

use serde_json::Value;

use crate::support::{Events, Service};

fn time(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

async fn watched(path: &str, form: &[(&str, &str)]) -> (Value, u64) {
    let mut service = Service::start().await;
    service.sign_in("bob").await;
    let mut events = Events::watch(&service.client, service.url("/events")).await;
    let response = service.post(path, form).send().await.unwrap();
    let id = response.headers()["x-request"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    events
        .until("the end of the request", |events| events.is_over(path))
        .await;
    (events.request(path).unwrap().clone(), id)
}

const POST: [(&str, &str); 2] = [("title", "New tea"), ("body", "It is green.")];

#[tokio::test]
async fn with_after_the_tasks_begin_when_the_response_has_ended() {
    let (request, id) = watched("/posts", &POST).await;
    assert_eq!(
        (&request["id"], &request["status"]),
        (&id.into(), &201.into())
    );
    assert!(time(&request, "began") < time(&request, "answered"));
    let tasks = request["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 4);
    let mut began = 0.0;
    for task in tasks {
        assert_eq!(task["name"], "mail");
        assert!(
            time(task, "began") >= time(&request, "answered"),
            "{request}"
        );
        assert!(time(task, "ended") >= time(task, "began"), "{request}");
        // In the order in which they were deferred.
        assert!(time(task, "began") >= began, "{request}");
        began = time(task, "began");
    }
    let ends: Vec<_> = tasks
        .iter()
        .map(|task| task["end"].as_str().unwrap())
        .collect();
    assert_eq!(ends.iter().filter(|end| **end == "completed").count(), 3);
    assert_eq!(ends.iter().filter(|end| **end == "failed").count(), 1);
}

#[tokio::test]
async fn without_after_they_end_before_the_response_does() {
    let (request, _) = watched("/without/posts", &POST).await;
    let tasks = request["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 4);
    for task in tasks {
        assert!(time(task, "began") >= time(&request, "began"), "{request}");
        assert!(
            time(task, "ended") <= time(&request, "answered"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn a_task_that_does_not_run_is_shown_as_discarded() {
    let (request, _) = watched("/profile", &[("name", "Rob"), ("about", "")]).await;
    let ends: Vec<_> = request["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["end"])
        .collect();
    assert_eq!(ends, ["discarded", "completed"]);
    assert!(request["tasks"][0]["began"].is_null());
}

#[tokio::test]
async fn the_account_is_told_until_it_is_right() {
    let mut service = Service::start().await;
    service.sign_in("bob").await;
    let mut events = Events::watch(&service.client, service.url("/events")).await;
    service.post("/posts", &POST).send().await.unwrap();
    // Four mails, and the line for the page that has begun to watch.
    let settled = |events: &Events| {
        let Value::Object(account) = &events.account else {
            return false;
        };
        account["completed"] == 4 && account["failed"] == 1 && account["pending"] == 0
    };
    events.until("the account", settled).await;
    assert_eq!(events.account["deferred"], 5);
}

#[tokio::test]
async fn a_page_that_comes_late_gets_what_there_was() {
    let service = Service::start().await;
    service.send("/purchase", &[("item", "tea")]).await;
    let mut events = Events::watch(&service.client, service.url("/events")).await;
    events
        .until("what there was", |events| events.is_over("/purchase"))
        .await;
}
