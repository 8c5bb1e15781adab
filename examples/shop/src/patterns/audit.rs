//! The deletion of a user, and the line in the audit log: who did it to whom, when and from where, also if it was refused.

use std::{net::SocketAddr, sync::Arc};

use after::Outcome;
use axum::{
    Form,
    extract::{ConnectInfo, State},
};
use serde::Deserialize;

use crate::{
    app::App,
    database::DatabaseError,
    reply::{Refusal, Reply},
    sessions::{User, user_agent},
    timeline,
};

#[derive(Deserialize)]
pub(crate) struct Deletion {
    target: String,
}

pub(crate) async fn delete_user(
    State(app): State<Arc<App>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Form(Deletion { target }): Form<Deletion>,
) -> Result<Reply, Refusal> {
    // Before anything can refuse the request. Of two tasks with one key only the last one counts: this one is written
    // unless the other takes its place.
    after::task("audit").key("audit").on_failure().defer(audit(
        app.clone(),
        target.clone(),
        client,
        "refused",
    ));

    authorise(&app).await?;
    delete(&app, &target).await?;
    // The user is gone, whatever becomes of the response: so on no condition.
    after::task("audit")
        .key("audit")
        .defer(audit(app, target.clone(), client, "done"));
    Ok(deleted(&target))
}

/// The same without `after`. Every way out has to be thought of; and what if the client goes first?
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Form(Deletion { target }): Form<Deletion>,
) -> Result<Reply, Refusal> {
    let deletion = async {
        authorise(&app).await?;
        delete(&app, &target).await
    };
    let ended = deletion.await;
    let result = if ended.is_ok() { "done" } else { "refused" };
    let audit = audit(app.clone(), target.clone(), client, result);
    timeline::inline("audit", audit).await?;
    ended.map(|()| deleted(&target))
}

async fn authorise(app: &App) -> Result<(), Refusal> {
    match User::of_this_request(app).await? {
        None => Err(Refusal::Unauthorized),
        Some(User { admin: false, .. }) => Err(Refusal::Forbidden(
            "Only an administrator may delete a user.",
        )),
        Some(_) => Ok(()),
    }
}

async fn delete(app: &App, target: &str) -> Result<(), Refusal> {
    let login = target.to_owned();
    let deleted = app.database.call(move |database| {
        database.execute("DELETE FROM users WHERE login = ?1 AND NOT admin", [login])
    });
    match deleted.await? {
        0 => Err(Refusal::NotFound(format!(
            "user {target} who could be deleted"
        ))),
        _ => Ok(()),
    }
}

async fn audit(
    app: Arc<App>,
    target: String,
    client: SocketAddr,
    result: &'static str,
) -> Result<(), DatabaseError> {
    // Cookies and headers can be read here as in the handler.
    let actor = User::of_this_request(&app).await?;
    let actor = actor.map_or("nobody".into(), |user| user.login);
    let agent = user_agent().unwrap_or_default();
    // Refused is what was answered so. A request whose client has gone, say, ended otherwise.
    let result = match after::outcome() {
        Some(Outcome::Cancelled) if result == "refused" => "the client has gone",
        Some(Outcome::Panicked) if result == "refused" => "failed",
        _ => result,
    };
    // Behind a proxy that is the proxy's address: take what it says in `forwarded`, if it is yours.
    let ip = client.ip().to_string();
    let line = "INSERT INTO audit (action, result, actor, target, ip, user_agent) \
                VALUES ('delete user', ?1, ?2, ?3, ?4, ?5)";
    let logged = format!("audit: deletion of {target:?} by {actor}: {result}");
    let written = app
        .database
        .call(move |database| database.execute(line, (result, actor, target, ip, agent)));
    written.await?;
    tracing::info!("{logged}");
    Ok(())
}

fn deleted(target: &str) -> Reply {
    Reply::done(format!("{target} is deleted."))
}
