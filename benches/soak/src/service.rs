//! The server's handlers, and the tasks that they defer.

use std::{
    convert::Infallible,
    future::pending,
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use after::{
    Runner,
    tower::{AfterLayer, RunAfter},
};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderName, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{sync::mpsc::Sender, time::sleep};
use tokio_util::task::TaskTracker;

use crate::{
    kind::{Deliberate, KINDS, Kind},
    tally::{add, read},
    witness::Row,
};

/// The answer's header that says which request it belongs to.
pub(crate) const REQUEST: HeaderName = HeaderName::from_static("x-request");

/// Where clients may ask, and how often of a hundred times.
pub(crate) const ROUTES: [(&str, u32); 7] = [
    ("/plain", 50),
    ("/fails", 10),
    ("/panics", 5),
    ("/slow", 15),
    ("/stream", 10),
    ("/written/stream", 5),
    ("/written/file", 5),
];

const CHUNK: [u8; 4_096] = [7; 4_096];
const CHUNKS: u32 = 8;
const FILE: usize = 256 * 1_024;

/// What the handlers know of their own deferring, whatever the account says.
pub(crate) struct Service {
    rows: Sender<Row>,
    requests: AtomicU64,
    tasks: AtomicU64,
    accepted: [AtomicU64; KINDS],
    /// Who holds a handle, and will defer late: on nobody's account until then.
    pub(crate) late: TaskTracker,
}

type App = Arc<Service>;

impl Service {
    pub(crate) fn new(rows: Sender<Row>) -> App {
        Arc::new(Service {
            rows,
            requests: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
            accepted: std::array::from_fn(|_| AtomicU64::new(0)),
            late: TaskTracker::new(),
        })
    }

    pub(crate) fn router(self: &App, runner: &Runner) -> Router {
        let layer = AfterLayer::with_runner(runner.clone()).capture_request();
        let written = Router::new()
            .route("/stream", get(streams))
            .route("/file", get(file))
            .layer(layer.clone().run_after(RunAfter::Written));
        let at_the_end_of_the_body = Router::new()
            .route("/plain", get(plain))
            .route("/fails", get(fails))
            .route("/panics", get(panics))
            .route("/slow", get(slow))
            .route("/stream", get(streams))
            .layer(layer);
        at_the_end_of_the_body
            .nest("/written", written)
            .with_state(self.clone())
    }

    /// Requests that have come as far as a handler.
    pub(crate) fn requests(&self) -> u64 {
        read(&self.requests)
    }

    pub(crate) fn accepted(&self, kind: Kind) -> u64 {
        read(&self.accepted[kind as usize])
    }

    fn note(self: &App, kind: Kind, request: u64) -> Note {
        add(&self.accepted[kind as usize]);
        Note {
            app: self.clone(),
            task: self.tasks.fetch_add(1, Ordering::Relaxed),
            request,
            kind,
        }
    }

    /// Defers a task of this kind in the current scope.
    fn defer(self: &App, kind: Kind, request: u64) {
        let note = self.note(kind, request);
        let task = after::task(kind.name());
        match kind {
            // Further away than any pause of the machine.
            Kind::Audit => task.timeout(Duration::from_secs(600)).defer(note.works()),
            Kind::OnSuccess => task.on_success().defer(note.works()),
            Kind::OnFailure => task.on_failure().defer(note.works()),
            Kind::Keyed => {
                task.key("the last one").defer(note.works());
                let note = self.note(kind, request);
                after::task(kind.name())
                    .key("the last one")
                    .defer(note.works());
            }
            Kind::Fails => task.defer(async move {
                note.started().await;
                Err::<(), _>("deliberate")
            }),
            Kind::Panics => task.defer(async move {
                note.started().await;
                panic_any(Deliberate);
            }),
            Kind::Hangs => task.defer(note.hangs()),
            Kind::TimesOut => task.timeout(Duration::from_millis(5)).defer(note.hangs()),
            Kind::DefersAgain => task.defer(async move {
                note.started().await;
                for kind in [Kind::OnSuccess, Kind::OnFailure, Kind::Fails, Kind::Blocks] {
                    note.app.defer(kind, request);
                }
                note.completed().await;
            }),
            Kind::Blocks => task.defer_blocking(move || note.blocks(Duration::from_millis(1))),
            Kind::BlocksTooLong => task
                .timeout(Duration::from_millis(1))
                .defer_blocking(move || note.blocks(Duration::from_millis(4))),
            Kind::Spawned => task.spawned().defer(note.works()),
            Kind::FromBody | Kind::FromDestructor => task.defer(note.works()),
            Kind::Late => {
                // Of these the handle defers, in a while.
                let handle = after::handle();
                drop(task);
                self.late.spawn(async move {
                    sleep(Duration::from_millis(3)).await;
                    handle.task(kind.name()).defer(note.works());
                });
            }
        }
    }

    /// What every handler does first.
    fn begin(self: &App) -> u64 {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        self.defer(Kind::Audit, request);
        const OTHERS: [Kind; 11] = [
            Kind::OnSuccess,
            Kind::OnFailure,
            Kind::Keyed,
            Kind::Fails,
            Kind::Panics,
            Kind::TimesOut,
            Kind::DefersAgain,
            Kind::Blocks,
            Kind::BlocksTooLong,
            Kind::Spawned,
            Kind::Late,
        ];
        // Three in turn, so that each comes beside each; what hangs is rare.
        for turn in [request, request / 11, request / 121] {
            self.defer(OTHERS[(turn % 11) as usize], request);
        }
        if request.is_multiple_of(50) {
            self.defer(Kind::Hangs, request);
        }
        request
    }
}

/// Of one task: what it reports to the witness.
struct Note {
    app: App,
    task: u64,
    request: u64,
    kind: Kind,
}

impl Note {
    fn row(&self) -> Row {
        Row::Started {
            task: self.task,
            request: self.request,
            kind: self.kind,
        }
    }

    // The witness outlives the load, or has failed and says so at the end: nothing to be done about it here.

    async fn started(&self) {
        let _ = self.app.rows.send(self.row()).await;
    }

    /// The last thing of a task, after which it ends without another wait.
    async fn completed(&self) {
        let _ = self.app.rows.send(Row::Completed { task: self.task }).await;
    }

    async fn works(self) {
        self.started().await;
        sleep(Duration::from_millis(1 + self.task % 4)).await;
        self.completed().await;
    }

    async fn hangs(self) {
        self.started().await;
        pending::<()>().await;
    }

    fn blocks(self, time: Duration) {
        let _ = self.app.rows.blocking_send(self.row());
        thread::sleep(time);
        let row = Row::Completed { task: self.task };
        let _ = self.app.rows.blocking_send(row);
    }
}

/// Defers when it is dropped: at the end of a handler, or when that is dropped with its client gone.
struct CleanUp {
    app: App,
    request: u64,
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        // In a destructor nothing may panic: `defer` outside a scope would.
        if after::in_scope() {
            self.app.defer(Kind::FromDestructor, self.request);
        }
    }
}

fn answer(request: u64, body: impl IntoResponse) -> impl IntoResponse {
    ([(REQUEST, request.to_string())], body)
}

async fn plain(State(app): State<App>) -> impl IntoResponse {
    let request = app.begin();
    answer(request, "hello\n")
}

async fn fails(State(app): State<App>) -> impl IntoResponse {
    let request = app.begin();
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        answer(request, "no good\n"),
    )
}

async fn panics(State(app): State<App>) -> Response {
    app.begin();
    panic_any(Deliberate);
}

/// Long enough for clients to go.
async fn slow(State(app): State<App>) -> impl IntoResponse {
    let request = app.begin();
    let _clean_up = CleanUp {
        app: app.clone(),
        request,
    };
    sleep(Duration::from_millis(10)).await;
    app.defer(Kind::OnSuccess, request);
    sleep(Duration::from_millis(10)).await;
    answer(request, "at last\n")
}

/// A body of unknown length, which defers.
async fn streams(State(app): State<App>) -> impl IntoResponse {
    let request = app.begin();
    let chunks = stream::unfold(0, move |chunk| {
        let app = app.clone();
        async move {
            if chunk == CHUNKS {
                return None;
            }
            sleep(Duration::from_millis(1)).await;
            if chunk == CHUNKS / 2 {
                app.defer(Kind::FromBody, request);
            }
            Some((Ok::<_, Infallible>(Bytes::from_static(&CHUNK)), chunk + 1))
        }
    });
    answer(request, Body::from_stream(chunks))
}

/// A body of known length, larger than the buffers of the socket.
async fn file(State(app): State<App>) -> impl IntoResponse {
    let request = app.begin();
    answer(request, vec![7; FILE])
}

/// Ends with all that is left of the load, but for what the Runner has.
pub(crate) async fn quiet(app: &Service, runner: &Runner) {
    app.late.close();
    app.late.wait().await;
    app.late.reopen();
    runner.drain().await;
}
