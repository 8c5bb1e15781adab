//! A picture, and the small one that is made of it: work for a processor, so on a thread that may block.

use std::{fmt, io::Cursor, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Multipart, Path, State},
    http::header::CONTENT_TYPE,
    response::IntoResponse,
};
use image::{ImageError, ImageFormat, ImageReader, Limits};
use rusqlite::OptionalExtension as _;
use tokio::task::spawn_blocking;

use crate::{
    app::App,
    database::DatabaseError,
    reply::{Refusal, Reply},
    timeline,
};

/// Of an upload, with what a form has around a picture.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// A few kilobytes can say that they are a picture of gigabytes.
const MAX_SIDE: u32 = 6000;
const SIDE: u32 = 160;

pub(crate) async fn upload(State(app): State<Arc<App>>, form: Multipart) -> Result<Reply, Refusal> {
    let picture = picture(form).await?;
    let id = save(&app, &picture).await?;
    after::task("thumbnail").defer_blocking(move || shrink(&app, id, &picture));
    Ok(saved(id))
}

/// The same without `after`.
pub(crate) async fn without(
    State(app): State<Arc<App>>,
    form: Multipart,
) -> Result<Reply, Refusal> {
    let picture = picture(form).await?;
    let id = save(&app, &picture).await?;
    let shrunk = async {
        let shrunk = spawn_blocking(move || shrink(&app, id, &picture)).await;
        shrunk.unwrap_or_else(|stopped| Err(NoThumbnail::Database(DatabaseError::Stopped(stopped))))
    };
    if let Err(error) = timeline::inline("thumbnail", shrunk).await {
        tracing::error!("{error}");
    }
    Ok(saved(id))
}

/// The one in the form, if it is a PNG or a JPEG, whatever its name and its declared type say.
async fn picture(mut form: Multipart) -> Result<Bytes, Refusal> {
    while let Some(field) = form.next_field().await.map_err(Refusal::Upload)? {
        if field.name() == Some("picture") {
            let picture = field.bytes().await.map_err(Refusal::Upload)?;
            let reader = reader(&picture).ok_or(Refusal::UnsupportedPicture)?;
            reader.into_dimensions().map_err(|error| match error {
                ImageError::Limits(_) => {
                    Refusal::Unprocessable("A picture has at most 6000 by 6000 pixels.")
                }
                _ => Refusal::UnsupportedPicture,
            })?;
            return Ok(picture);
        }
    }
    Err(Refusal::Unprocessable("The form has no picture."))
}

fn reader(picture: &[u8]) -> Option<ImageReader<Cursor<&[u8]>>> {
    let format = image::guess_format(picture).ok()?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg) {
        return None;
    }
    let mut reader = ImageReader::with_format(Cursor::new(picture), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    Some(reader)
}

async fn save(app: &App, picture: &Bytes) -> Result<i64, Refusal> {
    let picture = picture.clone();
    let saved = app.database.call(move |database| {
        let query = "INSERT INTO pictures (original) VALUES (?1) RETURNING id";
        database.query_row(query, [&*picture], |row| row.get(0))
    });
    Ok(saved.await?)
}

/// Computes for a while: not for a thread that other requests need.
fn shrink(app: &App, id: i64, picture: &[u8]) -> Result<(), NoThumbnail> {
    let reader = reader(picture).ok_or(NoThumbnail::Unreadable)?;
    let small = reader.decode()?.thumbnail(SIDE, SIDE);
    let mut png = Cursor::new(Vec::new());
    small.write_to(&mut png, ImageFormat::Png)?;
    let png = png.into_inner();
    app.database.call_blocking(move |database| {
        database.execute(
            "UPDATE pictures SET thumbnail = ?1 WHERE id = ?2",
            (png, id),
        )
    })?;
    tracing::info!(
        "picture {id} has a thumbnail of {} by {}",
        small.width(),
        small.height()
    );
    Ok(())
}

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<impl IntoResponse, Refusal> {
    let thumbnail = app.database.call(move |database| {
        let query = "SELECT thumbnail FROM pictures WHERE id = ?1";
        let thumbnail = database.query_row(query, [id], |row| row.get::<_, Option<Vec<u8>>>(0));
        thumbnail.optional()
    });
    // Of a picture that is there it may not be made yet.
    let thumbnail = thumbnail.await?.flatten();
    let thumbnail = thumbnail.ok_or(Refusal::NotFound(format!("thumbnail {id}")))?;
    Ok(([(CONTENT_TYPE, "image/png")], thumbnail))
}

#[derive(Debug)]
enum NoThumbnail {
    Unreadable,
    Image(ImageError),
    Database(DatabaseError),
}

impl From<ImageError> for NoThumbnail {
    fn from(error: ImageError) -> Self {
        NoThumbnail::Image(error)
    }
}

impl From<DatabaseError> for NoThumbnail {
    fn from(error: DatabaseError) -> Self {
        NoThumbnail::Database(error)
    }
}

impl fmt::Display for NoThumbnail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoThumbnail::Unreadable => write!(f, "no thumbnail: neither a PNG nor a JPEG"),
            NoThumbnail::Image(error) => write!(f, "no thumbnail: {error}"),
            NoThumbnail::Database(error) => write!(f, "no thumbnail: {error}"),
        }
    }
}

impl std::error::Error for NoThumbnail {}

fn saved(id: i64) -> Reply {
    Reply::created(id, format!("Your picture is saved as picture {id}."))
}
