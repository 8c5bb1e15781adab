use reqwest::{StatusCode, Url};

use crate::support::{BOTH, Service, read};

const CHANGE: [(&str, &str); 2] = [("name", "Robert"), ("about", "Drinks tea.")];

#[tokio::test]
async fn a_change_reaches_the_database_and_both_caches() {
    for path in BOTH {
        let mut service = Service::start().await;
        service.sign_in("bob").await;
        // From here on it is in the cache.
        assert_eq!(read(service.get("/profiles/2")).await.1["name"], "Bob");

        let (status, _) = service.send(&format!("{path}/profile"), &CHANGE).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            service.rows::<String>("SELECT name FROM users WHERE id = 2"),
            ["Robert"]
        );
        let (_, profile) = read(service.get("/profiles/2")).await;
        assert_eq!(
            (&profile["name"], &profile["about"]),
            (&"Robert".into(), &"Drinks tea.".into())
        );
        let purges = service.received().purges;
        match path {
            // Two changes, and one purge: the first one was discarded.
            "" => {
                assert_eq!(purges, ["/profiles/2"]);
                let stats = service.shop.runner.stats();
                assert_eq!(
                    (stats.deferred, stats.completed, stats.discarded),
                    (2, 1, 1)
                );
            }
            _ => assert_eq!(purges, ["/profiles/2", "/profiles/2"]),
        }
    }
}

#[tokio::test]
async fn profiles_come_from_the_cache() {
    let service = Service::start().await;
    assert_eq!(read(service.get("/profiles/2")).await.1["name"], "Bob");
    // Behind its back.
    let changed = service
        .database()
        .execute("UPDATE users SET name = 'Rob' WHERE id = 2", ());
    assert_eq!(changed, Ok(1));
    assert_eq!(read(service.get("/profiles/2")).await.1["name"], "Bob");
}

#[tokio::test]
async fn a_cdn_that_is_away_does_not_hurt_the_change() {
    // Nobody listens there any more.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/cdn", gone.local_addr().unwrap());
    drop(gone);
    for path in BOTH {
        let mut service = Service::start_with(|config| config.cdn = Url::parse(&url).ok()).await;
        service.sign_in("bob").await;
        assert_eq!(read(service.get("/profiles/2")).await.1["name"], "Bob");
        let (status, _) = service.send(&format!("{path}/profile"), &CHANGE).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(read(service.get("/profiles/2")).await.1["name"], "Robert");
    }
}

#[tokio::test]
async fn nobody_changes_a_profile_without_a_session() {
    let service = Service::start().await;
    let (status, _) = service.send("/profile", &CHANGE).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        service.rows::<String>("SELECT name FROM users WHERE id < 3"),
        ["Ada", "Bob"]
    );
    assert!(service.received().purges.is_empty());
}
