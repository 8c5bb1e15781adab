use reqwest::StatusCode;

use crate::support::{BOTH, Events, Service};

/// The temporary files that are there.
fn reports(service: &Service) -> usize {
    let files = std::fs::read_dir(&service.shop.folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".csv")).count()
}

#[tokio::test]
async fn a_report_leaves_no_file_behind() {
    for path in BOTH {
        let service = Service::start().await;
        service.send("/purchase", &[("item", "tea")]).await;
        let formula = [("name", "=HYPERLINK(\"x\")"), ("about", "")];
        service.send("/products", &formula).await;
        service
            .send("/purchase", &[("item", "=HYPERLINK(\"x\")")])
            .await;

        let request = service.get(&format!("{path}/orders.csv"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["content-type"],
            "text/csv; charset=utf-8"
        );
        let report = response.text().await.unwrap();
        // What a spreadsheet would take for a formula is none any more.
        let expected =
            "order,product\r\n1,\"teapot\"\r\n2,\"tea\"\r\n3,\"'=HYPERLINK(\"\"x\"\")\"\r\n";
        assert_eq!(report, expected);
        service.drained().await;
        assert_eq!(reports(&service), 0);
    }
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_leaves_no_file_behind() {
    let service = Service::start().await;
    // More than a socket takes at once.
    let long = "x".repeat(10_000);
    service
        .send("/products", &[("name", &long), ("about", "")])
        .await;
    let fill = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2000) \
                INSERT INTO orders (product) SELECT 3 FROM number";
    assert_eq!(service.database().execute(fill, ()), Ok(2000));
    let mut events = Events::watch(&service.client, service.url("/events")).await;

    let mut response = service.get("/orders.csv").send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(reports(&service), 1);
    drop(response);
    events
        .until("the end of the request", |events| {
            events.is_over("/orders.csv")
        })
        .await;
    assert_eq!(
        events.request("/orders.csv").unwrap()["tasks"][0]["end"],
        "completed"
    );
    service.drained().await;
    assert_eq!(reports(&service), 0);
}
