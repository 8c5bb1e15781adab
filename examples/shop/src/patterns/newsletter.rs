//! A new post, and an e-mail to each follower: a task each, so that one that fails stops no other.

use std::sync::Arc;

use after::BoxError;
use axum::{
    Form,
    extract::{Path, State},
    response::Html,
};
use futures_util::future::join_all;
use lettre::{AsyncTransport as _, Message, message::header::ContentType};
use maud::html;
use rusqlite::OptionalExtension as _;
use serde::Deserialize;

use crate::{
    app::App,
    database::DatabaseError,
    reply::{Refusal, Reply, page},
    sessions::User,
    timeline,
};

#[derive(Deserialize)]
pub(crate) struct Post {
    title: String,
    body: String,
}

pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    user: User,
    Form(post): Form<Post>,
) -> Result<Reply, Refusal> {
    let id = save(&app, &user, &post).await?;
    let post = Arc::new(post);
    for follower in followers(&app).await? {
        after::task("mail").defer(send(app.clone(), follower, post.clone()));
    }
    Ok(published(id, &post))
}

/// The same without `after`: all mails at once, and the author waits for them.
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    user: User,
    Form(post): Form<Post>,
) -> Result<Reply, Refusal> {
    let id = save(&app, &user, &post).await?;
    let post = Arc::new(post);
    let mails = followers(&app).await?.into_iter().map(|follower| {
        let sent = send(app.clone(), follower, post.clone());
        timeline::inline("mail", sent)
    });
    for sent in join_all(mails).await {
        if let Err(error) = sent {
            tracing::error!("{error}");
        }
    }
    Ok(published(id, &post))
}

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Html<String>, Refusal> {
    let post = app.database.call(move |database| {
        let query = "SELECT title, body FROM posts WHERE id = ?1";
        let post = database.query_row(query, [id], |row| {
            Ok(Post {
                title: row.get(0)?,
                body: row.get(1)?,
            })
        });
        post.optional()
    });
    let post = post.await?.ok_or(Refusal::NotFound(format!("post {id}")))?;
    Ok(page(&post.title, html! { p { (post.body) } }))
}

async fn save(app: &App, user: &User, post: &Post) -> Result<i64, Refusal> {
    if post.title.trim().is_empty() {
        return Err(Refusal::Unprocessable("A post needs a title."));
    }
    let row = (user.id, post.title.clone(), post.body.clone());
    let saved = app.database.call(move |database| {
        let query = "INSERT INTO posts (author, title, body) VALUES (?1, ?2, ?3) RETURNING id";
        database.query_row(query, row, |row| row.get(0))
    });
    Ok(saved.await?)
}

async fn followers(app: &App) -> Result<Vec<String>, DatabaseError> {
    let followers = app.database.call(|database| {
        let mut query = database.prepare("SELECT email FROM followers ORDER BY rowid")?;
        let emails = query.query_map((), |row| row.get(0))?;
        emails.collect()
    });
    followers.await
}

async fn send(app: Arc<App>, follower: String, post: Arc<Post>) -> Result<(), NotSent> {
    let sent = async {
        let mail = Message::builder()
            .from("The shop <news@example.com>".parse()?)
            .to(follower.parse()?)
            .subject(&post.title)
            .header(ContentType::TEXT_PLAIN)
            .body(post.body.clone())?;
        app.mailer.send(mail).await?;
        Ok(())
    };
    sent.await.map_err(|cause| NotSent { follower, cause })
}

/// Says whose mail it was: the name of a task is the same for all.
#[derive(Debug)]
struct NotSent {
    follower: String,
    cause: BoxError,
}

impl std::fmt::Display for NotSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no mail for {}: {}", self.follower, self.cause)
    }
}

impl std::error::Error for NotSent {}

fn published(id: i64, post: &Post) -> Reply {
    Reply::created(id, format!("“{}” is published as post {id}.", post.title))
}
