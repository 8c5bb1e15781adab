use reqwest::StatusCode;

use crate::support::{BOTH, Events, Service, read};

/// Result, actor, target, IP and user agent of each line.
fn lines(service: &Service) -> Vec<[String; 5]> {
    let database = service.database();
    let query = "SELECT result, actor, target, ip, user_agent FROM audit \
                 WHERE action = 'delete user' AND at LIKE '20__-__-__T__:__:__.___Z' ORDER BY id";
    let mut query = database.prepare(query).unwrap();
    let lines = query.query_map((), |row| {
        Ok([
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
        ])
    });
    lines.unwrap().collect::<Result<_, _>>().unwrap()
}

async fn delete(service: &Service, path: &str, target: &str) -> StatusCode {
    let request = service.post(&format!("{path}/users/delete"), &[("target", target)]);
    let (status, _) = read(request.header("user-agent", "a test")).await;
    service.drained().await;
    status
}

fn exists(service: &Service, login: &str) -> bool {
    let query = format!("SELECT 1 FROM users WHERE login = '{login}'");
    !service.rows::<i64>(&query).is_empty()
}

#[tokio::test]
async fn a_deletion_is_in_the_audit_log_once() {
    for path in BOTH {
        let mut service = Service::start().await;
        service.sign_in("ada").await;
        assert_eq!(delete(&service, path, "guest-1").await, StatusCode::OK);
        assert!(!exists(&service, "guest-1"));
        let line = ["done", "ada", "guest-1", "127.0.0.1", "a test"];
        assert_eq!(lines(&service), [line.map(String::from)]);
    }
}

#[tokio::test]
async fn a_refusal_is_in_the_audit_log_too() {
    for path in BOTH {
        let mut service = Service::start().await;
        assert_eq!(
            delete(&service, path, "guest-1").await,
            StatusCode::UNAUTHORIZED
        );
        service.sign_in("bob").await;
        assert_eq!(
            delete(&service, path, "guest-1").await,
            StatusCode::FORBIDDEN
        );
        assert!(exists(&service, "guest-1"));
        service.sign_in("ada").await;
        assert_eq!(
            delete(&service, path, "nobody we know").await,
            StatusCode::NOT_FOUND
        );

        let expected = [
            ["refused", "nobody", "guest-1", "127.0.0.1", "a test"],
            ["refused", "bob", "guest-1", "127.0.0.1", "a test"],
            ["refused", "ada", "nobody we know", "127.0.0.1", "a test"],
        ];
        assert_eq!(lines(&service), expected.map(|line| line.map(String::from)));
    }
}

#[tokio::test]
async fn a_client_that_goes_before_its_answer_is_in_the_audit_log_too() {
    let mut service = Service::start().await;
    service.sign_in("ada").await;
    let mut events = Events::watch(&service.client, service.url("/events")).await;
    // The deletion has to wait for this one.
    let database = service.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let request = service.post("/users/delete", &[("target", "guest-1")]);
    let request = tokio::spawn(request.header("user-agent", "a test").send());
    let come = |events: &Events| events.request("/users/delete").is_some();
    events.until("the request", come).await;
    request.abort();
    let gone = |events: &Events| !events.request("/users/delete").unwrap()["answered"].is_null();
    events.until("the end of the request", gone).await;
    assert!(events.request("/users/delete").unwrap()["status"].is_null());
    database.execute_batch("COMMIT").unwrap();
    service.drained().await;
    let line = [
        "the client has gone",
        "ada",
        "guest-1",
        "127.0.0.1",
        "a test",
    ];
    assert_eq!(lines(&service), [line.map(String::from)]);
}

#[tokio::test]
async fn an_administrator_is_not_deleted() {
    let mut service = Service::start().await;
    service.sign_in("ada").await;
    assert_eq!(delete(&service, "", "ada").await, StatusCode::NOT_FOUND);
    assert!(exists(&service, "ada"));
}

#[tokio::test]
async fn a_cookie_that_was_made_up_signs_nobody_in() {
    let service = Service::start().await;
    let request = service.post("/users/delete", &[("target", "guest-1")]);
    let (status, _) = read(request.header("cookie", "session=0123456789abcdef")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_that_was_ended_or_has_expired_is_none() {
    let mut service = Service::start().await;
    service.sign_in("ada").await;
    assert_eq!(service.send("/logout", &[]).await.0, StatusCode::OK);
    // The cookie is still sent.
    assert_eq!(
        delete(&service, "", "guest-1").await,
        StatusCode::UNAUTHORIZED
    );

    service.sign_in("ada").await;
    let ended = service
        .database()
        .execute("UPDATE sessions SET expires = unixepoch()", ());
    assert_eq!(ended, Ok(1));
    assert_eq!(
        delete(&service, "", "guest-1").await,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn the_session_cookie_is_for_this_site_alone_and_not_for_scripts() {
    let service = Service::start().await;
    let response = service
        .post("/login", &[("user", "ada")])
        .send()
        .await
        .unwrap();
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let attributes: Vec<_> = cookie.split("; ").skip(1).collect();
    assert_eq!(
        attributes,
        ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"]
    );
    // The database knows a hash of it, and not the token.
    let token = cookie.split([';', '=']).nth(1).unwrap();
    assert_eq!(token.len(), 64);
    let kept = service.rows::<Vec<u8>>("SELECT token_sha256 FROM sessions");
    assert_eq!(kept.len(), 1);
    assert_ne!(kept[0], token.as_bytes());
}
