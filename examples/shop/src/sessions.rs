//! Who is signed in: a random token in a cookie, and its hash in the database.
//!
//! There are no passwords here: this shop is for looking at what comes after an answer, and its visitors choose who they
//! are. In a real one they prove it, in `login`.

use std::sync::Arc;

use after::{context, tower::RequestHead};
use axum::{
    Form, Json,
    extract::{FromRequestParts, State},
    http::{HeaderValue, header::SET_COOKIE, request::Parts},
    response::{IntoResponse as _, Response},
};
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    app::App,
    database::DatabaseError,
    reply::{Refusal, Reply},
};

const HOURS: i64 = 12;

/// The user whose session's cookie came with the request. As an extractor it refuses requests without one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) login: String,
    pub(crate) admin: bool,
}

impl User {
    /// Reads the cookie where the layer has kept it, so this works in a handler and in what it has deferred.
    pub(crate) async fn of_this_request(app: &App) -> Result<Option<User>, DatabaseError> {
        let request = context::get::<RequestHead>();
        let Some(token) = request
            .as_ref()
            .and_then(|request| request.cookie("session"))
        else {
            return Ok(None);
        };
        let token = hash(token);
        let query = "SELECT users.id, login, admin FROM sessions JOIN users ON users.id = user \
                     WHERE token_sha256 = ?1 AND expires > unixepoch()";
        let user = app.database.call(move |database| {
            let found = database.query_row(query, [token], |row| {
                Ok(User {
                    id: row.get(0)?,
                    login: row.get(1)?,
                    admin: row.get(2)?,
                })
            });
            found.optional()
        });
        user.await
    }
}

impl FromRequestParts<Arc<App>> for User {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let user = User::of_this_request(app).await?;
        user.ok_or(Refusal::Unauthorized)
    }
}

/// What the client of this request says it is. For handlers and tasks, too.
pub(crate) fn user_agent() -> Option<String> {
    let request = context::get::<RequestHead>()?;
    let agent = request.headers().get("user-agent")?;
    agent.to_str().ok().map(Into::into)
}

#[derive(Deserialize)]
pub(crate) struct Login {
    user: String,
}

/// A new token each time: one that somebody has planted before is worth nothing.
pub(crate) async fn login(
    State(app): State<Arc<App>>,
    Form(login): Form<Login>,
) -> Result<Response, Refusal> {
    let token = new_token().map_err(|error| Refusal::Internal(error.to_string().into()))?;
    let hash = hash(&token);
    let user = login.user.clone();
    let signed_in = app.database.call(move |database| {
        database.execute("DELETE FROM sessions WHERE expires <= unixepoch()", ())?;
        database.execute(
            "INSERT INTO sessions (token_sha256, user, expires) \
             SELECT ?1, id, unixepoch() + ?2 FROM users WHERE login = ?3",
            (hash, HOURS * 3600, user),
        )
    });
    match signed_in.await? {
        0 => Err(Refusal::NotFound(format!("user {}", login.user))),
        _ => {
            let reply = Reply::done(format!("You are signed in as {}.", login.user));
            Ok(with_cookie(reply, &token, HOURS * 3600))
        }
    }
}

pub(crate) async fn logout(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let request = context::get::<RequestHead>();
    if let Some(token) = request
        .as_ref()
        .and_then(|request| request.cookie("session"))
    {
        let token = hash(token);
        let ended = app.database.call(move |database| {
            database.execute("DELETE FROM sessions WHERE token_sha256 = ?1", [token])
        });
        ended.await?;
    }
    Ok(with_cookie(Reply::done("You are signed out."), "", 0))
}

#[derive(Serialize)]
pub(crate) struct Visitor {
    user: Option<User>,
    /// Whom an administrator may delete next.
    guest: Option<String>,
}

/// What the page shows of its visitor.
pub(crate) async fn visitor(State(app): State<Arc<App>>) -> Result<Json<Visitor>, Refusal> {
    let user = User::of_this_request(&app).await?;
    let guest = app.database.call(|database| {
        let query = "SELECT login FROM users WHERE id > 100 ORDER BY id LIMIT 1";
        database.query_row(query, (), |row| row.get(0)).optional()
    });
    Ok(Json(Visitor {
        user,
        guest: guest.await?,
    }))
}

/// Not for scripts, and not for what other sites send. Behind HTTPS `Secure` belongs here too.
fn with_cookie(reply: Reply, token: &str, seconds: i64) -> Response {
    let cookie = format!("session={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}");
    let mut response = reply.into_response();
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn new_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Whoever reads the database can't sign in with what stands there. The token is random, so nothing slower is needed.
fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
