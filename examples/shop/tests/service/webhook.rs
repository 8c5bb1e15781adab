use reqwest::StatusCode;
use shop::neighbours::verify;

use crate::support::{BOTH, Service, client};

#[tokio::test]
async fn a_delivery_gets_through_at_the_third_attempt_and_is_signed() {
    for path in BOTH {
        let service = Service::start_with(|config| config.webhook_secret = "s3cret".into()).await;
        let (status, reply) = service
            .send(&format!("{path}/shipments"), &[("order", "1")])
            .await;
        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(reply["message"], "Order 1 is on its way.");
        service.delivered().await;

        assert_eq!(service.rows::<i64>("SELECT purchase FROM shipments"), [1]);
        let received = service.received();
        assert_eq!(received.attempts["shipment-1"], 3);
        assert_eq!(received.deliveries.len(), 1);
        let delivery = &received.deliveries[0];
        assert_eq!(delivery.body, r#"{"event":"shipped","order":1}"#);
        assert!(verify("s3cret", delivery));
        assert!(!verify("guessed", delivery));
        let changed = |change: fn(&mut shop::neighbours::Delivery)| {
            let mut delivery = delivery.clone();
            change(&mut delivery);
            delivery
        };
        assert!(!verify(
            "s3cret",
            &changed(|delivery| delivery.body.push(' '))
        ));
        assert!(!verify(
            "s3cret",
            &changed(|delivery| delivery.timestamp.push('0'))
        ));
        assert!(!verify(
            "s3cret",
            &changed(|delivery| delivery.id = "shipment-2".into())
        ));
        assert!(!verify(
            "s3cret",
            &changed(|delivery| delivery.signature.clear())
        ));
    }
}

#[tokio::test]
async fn the_receiver_refuses_what_is_not_signed() {
    let service = Service::start().await;
    let url = format!("http://{}/webhook", service.shop.neighbours.http);
    let request = client()
        .post(url)
        .header("webhook-id", "shipment-1")
        .body("{}");
    assert_eq!(
        request.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert!(service.received().deliveries.is_empty());
}

/// Whoever ships is not told: the log is. The job stays, with what the receiver has said.
#[tokio::test]
async fn a_delivery_that_the_receiver_refuses_is_tried_again() {
    let receiver = Service::start().await;
    let url = format!("http://{}/webhook", receiver.shop.neighbours.http);
    let service = Service::start_with(|config| {
        config.webhook = url.parse().ok();
        config.webhook_secret = "another".into();
    });
    let service = service.await;
    let (status, _) = service.send("/shipments", &[("order", "1")]).await;
    assert_eq!(status, StatusCode::CREATED);
    let refused =
        "SELECT id FROM Jobs WHERE attempts = 2 AND status = 'Failed' AND last_result LIKE '%401%'";
    service.until("the second attempt", refused).await;
    assert!(receiver.received().deliveries.is_empty());
}

#[tokio::test]
async fn an_order_that_is_not_there_is_not_shipped() {
    let service = Service::start().await;
    let (status, _) = service.send("/shipments", &[("order", "7")]).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = service.send("/shipments", &[("order", "seven")]).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(service.rows::<i64>("SELECT count(*) FROM Jobs"), [0]);
}

/// In one transaction: if there is no job, there is no shipment either.
#[tokio::test]
async fn a_job_that_is_refused_takes_the_shipment_along() {
    let service = Service::start().await;
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON Jobs BEGIN SELECT RAISE(ABORT, 'no room'); END";
    service.database().execute_batch(refuse).unwrap();
    let (status, _) = service.send("/shipments", &[("order", "1")]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(service.rows::<i64>("SELECT count(*) FROM shipments"), [0]);
}
