use reqwest::StatusCode;

use crate::support::{BOTH, Service};

#[tokio::test]
async fn each_follower_gets_a_mail_although_one_of_them_has_no_mailbox() {
    for path in BOTH {
        let mut service = Service::start().await;
        service.sign_in("bob").await;
        let post = [("title", "New tea"), ("body", "It is green.")];
        let (status, reply) = service.send(&format!("{path}/posts"), &post).await;
        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(reply["message"], "“New tea” is published as post 1.");

        let mails = service.received().mails;
        let mut to: Vec<_> = mails.iter().flat_map(|mail| mail.to.clone()).collect();
        to.sort();
        assert_eq!(
            to,
            ["chloe@example.com", "dan@example.com", "erin@example.com"]
        );
        for mail in &mails {
            assert!(
                mail.message.contains("Subject: New tea\r\n"),
                "{}",
                mail.message
            );
            assert!(mail.message.contains("It is green."), "{}", mail.message);
        }
        if path.is_empty() {
            let stats = service.shop.runner.stats();
            assert_eq!((stats.deferred, stats.completed, stats.failed), (4, 3, 1));
        }
    }
}

#[tokio::test]
async fn nobody_posts_without_a_session() {
    for path in BOTH {
        let service = Service::start().await;
        let post = [("title", "Spam"), ("body", "Buy!")];
        let (status, _) = service.send(&format!("{path}/posts"), &post).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(service.received().mails.is_empty());
        assert!(service.rows::<i64>("SELECT id FROM posts").is_empty());
    }
}

#[tokio::test]
async fn a_title_adds_no_header_to_a_mail() {
    let mut service = Service::start().await;
    service.sign_in("bob").await;
    let post = [
        ("title", "News\r\nBcc: everybody@example.com"),
        ("body", "Text"),
    ];
    service.send("/posts", &post).await;
    let mails = service.received().mails;
    assert_eq!(mails.len(), 3);
    for mail in mails {
        assert_eq!(mail.to.len(), 1);
        assert!(
            !mail.message.to_lowercase().contains("\nbcc:"),
            "{}",
            mail.message
        );
    }
}

#[tokio::test]
async fn a_post_without_a_title_is_refused_and_mailed_to_nobody() {
    let mut service = Service::start().await;
    service.sign_in("bob").await;
    let (status, reply) = service
        .send("/posts", &[("title", " "), ("body", "Text")])
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(reply["message"], "A post needs a title.");
    assert_eq!(service.shop.runner.stats().deferred, 0);
}
