//! A profile that changes, and the copies of it that are then out of date: ours in memory, and the CDN's.

use std::sync::Arc;

use axum::{
    Form, Json,
    extract::{Path, State},
};
use reqwest::{Method, Url};
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    database::DatabaseError,
    reply::{Refusal, Reply},
    sessions::User,
    timeline,
};

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Profile {
    name: String,
    about: String,
}

pub(crate) async fn update(
    State(app): State<Arc<App>>,
    user: User,
    Form(profile): Form<Profile>,
) -> Result<Reply, Refusal> {
    set_name(&app, user.id, profile.name).await?;
    set_about(&app, user.id, profile.about).await?;
    Ok(updated())
}

/// Knows nothing of who else changes the same profile in the same request.
async fn set_name(app: &Arc<App>, id: i64, name: String) -> Result<(), DatabaseError> {
    let set = app.database.call(move |database| {
        database.execute("UPDATE users SET name = ?1 WHERE id = ?2", (name, id))
    });
    set.await?;
    invalidate(app, id);
    Ok(())
}

async fn set_about(app: &Arc<App>, id: i64, about: String) -> Result<(), DatabaseError> {
    let set = app.database.call(move |database| {
        database.execute("UPDATE users SET about = ?1 WHERE id = ?2", (about, id))
    });
    set.await?;
    invalidate(app, id);
    Ok(())
}

/// Once a request for each profile, however often it was changed: the key sees to that.
fn invalidate(app: &Arc<App>, id: i64) {
    after::task("purge")
        .key(format!("purge profile {id}"))
        .defer(purge(app.clone(), id));
}

/// Until this has run, readers may get the profile as it was. One who must see his own change at once needs the first line
/// of this before the answer.
async fn purge(app: Arc<App>, id: i64) -> Result<(), reqwest::Error> {
    app.profiles.invalidate(&id);
    let url = cdn(&app.cdn, id);
    let method = Method::from_bytes(b"PURGE").expect("letters are a method");
    app.http
        .request(method, url)
        .send()
        .await?
        .error_for_status()
        .map(drop)
}

fn cdn(base: &Url, id: i64) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["profiles", &id.to_string()]);
    }
    url
}

/// The same without `after`: a purge for each change, one after the other.
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    user: User,
    Form(profile): Form<Profile>,
) -> Result<Reply, Refusal> {
    for (column, value) in [("name", profile.name), ("about", profile.about)] {
        let id = user.id;
        let set = app.database.call(move |database| {
            let update = format!("UPDATE users SET {column} = ?1 WHERE id = ?2");
            database.execute(&update, (value, id))
        });
        set.await?;
        if let Err(error) = timeline::inline("purge", purge(app.clone(), id)).await {
            tracing::error!("not purged: {error}");
        }
    }
    Ok(updated())
}

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Json<Profile>, Refusal> {
    if let Some(profile) = app.profiles.get(&id) {
        return Ok(Json(profile));
    }
    let profile = app.database.call(move |database| {
        let query = "SELECT name, about FROM users WHERE id = ?1";
        let profile = database.query_row(query, [id], |row| {
            Ok(Profile {
                name: row.get(0)?,
                about: row.get(1)?,
            })
        });
        profile.optional()
    });
    let profile = profile
        .await?
        .ok_or(Refusal::NotFound(format!("profile {id}")))?;
    app.profiles.insert(id, profile.clone());
    Ok(Json(profile))
}

fn updated() -> Reply {
    Reply::done("Your profile is saved.")
}
