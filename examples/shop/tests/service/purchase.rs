use reqwest::{StatusCode, Url};

use crate::support::{BOTH, Service, read, soon};

#[tokio::test]
async fn a_purchase_is_in_the_database_and_in_the_analytics() {
    for path in BOTH {
        let service = Service::start().await;
        let request = service.post(&format!("{path}/purchase"), &[("item", "tea")]);
        let (status, reply) = read(request.header("user-agent", "a test")).await;
        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(reply["message"], "You have bought tea: order 2.");
        service.drained().await;

        assert_eq!(
            service.rows::<i64>("SELECT product FROM orders WHERE id > 1"),
            [1]
        );
        let events = service.received().events;
        assert_eq!(events.len(), 1);
        assert_eq!(
            (&events[0]["order"], &events[0]["item"]),
            (&2.into(), &"tea".into())
        );
        // Read in the task, when the request is over.
        assert_eq!(events[0]["user_agent"], "a test");
    }
}

#[tokio::test]
async fn what_is_not_for_sale_is_neither_bought_nor_told_to_anybody() {
    let service = Service::start().await;
    let (status, reply) = service
        .send("/purchase", &[("item", "'; DROP TABLE orders; --")])
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        reply["message"],
        "There is no product called '; DROP TABLE orders; --."
    );
    assert!(
        service
            .rows::<i64>("SELECT id FROM orders WHERE id > 1")
            .is_empty()
    );
    assert!(service.received().events.is_empty());
}

#[tokio::test]
async fn the_customer_has_an_answer_while_analytics_has_not_answered() {
    // Takes connections, and never says anything.
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", collector.local_addr().unwrap());
    let service = Service::start_with(|config| config.analytics = Url::parse(&url).ok()).await;

    let (status, _) = read(service.post("/purchase", &[("item", "tea")])).await;
    assert_eq!(status, StatusCode::CREATED);
    let (connection, _) = soon("the task's connection", collector.accept())
        .await
        .unwrap();
    assert_eq!(service.shop.runner.stats().pending, 1);

    // Its end is the task's: it fails, and that is on the account.
    drop(connection);
    drop(collector);
    service.drained().await;
    assert_eq!(service.shop.runner.stats().failed, 1);
    assert_eq!(
        service.rows::<i64>("SELECT count(*) FROM orders WHERE id > 1"),
        [1]
    );
}
