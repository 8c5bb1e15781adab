//! A product, and its entry in the index of the search.

use std::sync::Arc;

use axum::{
    Form, Json,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::html;
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    database::DatabaseError,
    reply::{Refusal, Reply, page, wants_html},
    timeline,
};

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Product {
    name: String,
    about: String,
}

pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Form(product): Form<Product>,
) -> Result<Reply, Refusal> {
    let id = save(&app, &product).await?;
    let name = product.name.clone();
    after::task("index").defer_blocking(move || index(&app, id, &product));
    Ok(added(id, &name))
}

/// The same without `after`.
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    Form(product): Form<Product>,
) -> Result<Reply, Refusal> {
    let id = save(&app, &product).await?;
    let name = product.name.clone();
    let indexed = async {
        let indexed = tokio::task::spawn_blocking(move || index(&app, id, &product)).await;
        indexed.map_err(DatabaseError::Stopped)?
    };
    timeline::inline("index", indexed).await?;
    Ok(added(id, &name))
}

async fn save(app: &App, product: &Product) -> Result<i64, Refusal> {
    if product.name.trim().is_empty() {
        return Err(Refusal::Unprocessable("A product needs a name."));
    }
    let Product { name, about } = product.clone();
    let saved = app.database.call(move |database| {
        let query = "INSERT INTO products (name, about) VALUES (?1, ?2) \
                     ON CONFLICT (name) DO UPDATE SET about = excluded.about RETURNING id";
        database.query_row(query, (name, about), |row| row.get(0))
    });
    Ok(saved.await?)
}

fn index(app: &App, id: i64, product: &Product) -> Result<(), DatabaseError> {
    app.database.call_blocking(|database| {
        let entry = (id, &product.name, &product.about);
        let query = "INSERT OR REPLACE INTO search (rowid, name, about) VALUES (?1, ?2, ?3)";
        database.execute(query, entry)
    })?;
    tracing::info!("product {id} is in the index");
    Ok(())
}

#[derive(Deserialize)]
pub(crate) struct Question {
    q: String,
}

pub(crate) async fn search(
    State(app): State<Arc<App>>,
    Query(Question { q }): Query<Question>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // In quotes nothing is an operator of the search's own language.
    let phrase = format!("\"{}\"", q.replace('"', "\"\""));
    let found = app.database.call(move |database| {
        let query = "SELECT name, about FROM search WHERE search MATCH ?1 ORDER BY rank LIMIT 20";
        let mut query = database.prepare(query)?;
        let found = query.query_map([phrase], |row| {
            Ok(Product {
                name: row.get(0)?,
                about: row.get(1)?,
            })
        })?;
        found.collect::<Result<Vec<_>, _>>()
    });
    let found = found.await?;
    if !wants_html(&headers) {
        return Ok(Json(found).into_response());
    }
    let list = html! {
        @if found.is_empty() { p { "Nothing." } }
        dl {
            @for product in &found { dt { (product.name) } dd { (product.about) } }
        }
    };
    Ok(page(&format!("What there is of “{q}”"), list).into_response())
}

fn added(id: i64, name: &str) -> Reply {
    Reply::created(id, format!("There is {name} now: product {id}."))
}
