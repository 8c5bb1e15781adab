//! A report that is written to a temporary file and sent from there. Its destructor removes the file when the last byte is
//! sent, or when the client has gone; and `Drop` is not async.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::State,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    response::IntoResponse,
};
use tokio::{
    fs::{self, File},
    io::{AsyncRead, ReadBuf},
};
use tokio_util::io::ReaderStream;

use crate::{app::App, database::DatabaseError, reply::Refusal, timeline};

/// A file that goes with its value.
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let removal = fs::remove_file(std::mem::take(&mut self.path));
        // Outside a request nobody would run it: a file in a temporary folder is the smaller evil then. `defer` would
        // panic, and in a destructor that may end the process.
        let _ = after::task("remove file").try_defer(removal);
    }
}

pub(crate) async fn export(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Refusal> {
    let file = Temporary {
        path: new_path(&app),
    };
    write(&app, &file.path).await?;
    let reader = File::open(&file.path).await.map_err(internal)?;
    // The body owns both, and is dropped in the request's scope: its destructors may defer.
    let body = Body::from_stream(ReaderStream::new(Sent {
        reader,
        _file: file,
    }));
    Ok((HEADERS, body))
}

/// The same without `after`: read as a whole, and removed before anybody gets a byte. If the client goes meanwhile, the
/// file stays.
pub(crate) async fn without(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Refusal> {
    let path = new_path(&app);
    write(&app, &path).await?;
    let report = fs::read(&path).await.map_err(internal)?;
    let removed = timeline::inline("remove file", fs::remove_file(&path)).await;
    removed.map_err(internal)?;
    Ok((HEADERS, report))
}

const HEADERS: [(axum::http::HeaderName, &str); 2] = [
    (CONTENT_TYPE, "text/csv; charset=utf-8"),
    (CONTENT_DISPOSITION, "attachment; filename=orders.csv"),
];

fn new_path(app: &App) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    app.folder.path().join(format!("orders-{number}.csv"))
}

async fn write(app: &App, path: &Path) -> Result<(), Refusal> {
    let report = app.database.call(|database| {
        let query = "SELECT orders.id, name FROM orders JOIN products ON products.id = product";
        let mut query = database.prepare(query)?;
        let lines = query.query_map((), |row| {
            let (order, name): (i64, String) = row.try_into()?;
            Ok(format!("{order},\"{}\"\r\n", cell(&name)))
        })?;
        lines.collect::<Result<String, _>>()
    });
    let report: Result<String, DatabaseError> = report.await;
    let report = format!("order,product\r\n{}", report?);
    fs::write(path, report).await.map_err(internal)
}

/// What stands between quotes. A spreadsheet would take some first letters for the beginning of a formula.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = text.replace('"', "\"\"");
    if formula { format!("'{text}") } else { text }
}

fn internal(error: io::Error) -> Refusal {
    Refusal::Internal(error.into())
}

/// Reads the file, and holds it.
struct Sent {
    // Dropped first: some systems remove no file that is open.
    reader: File,
    _file: Temporary,
}

impl AsyncRead for Sent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}
