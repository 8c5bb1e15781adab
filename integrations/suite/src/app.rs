//! What the routes of the service do, the same on every framework, and what is written down of it.

use std::{
    io::{self, Write as _},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use after::{
    Batch, Outcome, Runner,
    spawner::{self, Spawner, Tokio},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, future::BoxFuture};
use tokio::sync::watch;

/// How large the body of `/large` is, whose length the response declares.
pub const LARGE: usize = 8 << 20;
/// More than all buffers between a server and its client hold: the rest has to wait for the client.
pub const SLOW_CHUNKS: usize = 512;
const SLOW_CHUNK: usize = 64 << 10;
/// What a task has to do in the process that is stopped.
const WORK: Duration = Duration::from_millis(20);

/// What has happened, in the order in which it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handler of `/waits` runs.
    Reached,
    /// It has run to its end.
    Returned,
    /// It was dropped before that.
    HandlerDropped,
    /// The server has taken a chunk of a stream; the last one says so.
    Chunk {
        /// Whether it was the last one.
        last: bool,
    },
    /// The stream was dropped, or has ended.
    BodyGone,
    /// The tasks of a request were given to the spawner.
    HandedOver,
    /// A task has run to its end, and has seen this outcome.
    Ran(Option<Outcome>),
    /// The client has read its whole answer.
    Read,
    /// The client has closed its connection.
    HungUp,
}

/// A gate that is opened once; whoever waits for it then goes on.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    fn new() -> Self {
        Gate(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everybody pass from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Resolves when it is open.
    pub fn opened(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let mut open = self.0.subscribe();
        async move {
            // An error would mean that the gate is gone: then nobody opens it any more.
            let _ = open.wait_for(|open| *open).await;
        }
    }
}

/// The events so far.
#[derive(Debug)]
struct Log(watch::Sender<Vec<Event>>);

/// The service under test: its routes, apart from the framework that serves them.
///
/// Each handler calls one function of this, so that all frameworks do the same. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    runner: Runner,
    log: Arc<Log>,
    /// What handlers, streams and tasks wait for, and what ends the server.
    handlers: Gate,
    bodies: Gate,
    tasks: Gate,
    stopping: Gate,
    /// In a process of its own the client reads standard output.
    tells: bool,
    ran: AtomicUsize,
}

impl App {
    fn with(runner: Runner, log: Arc<Log>, tells: bool) -> Self {
        App(Arc::new(Shared {
            runner,
            log,
            handlers: Gate::new(),
            bodies: Gate::new(),
            tasks: Gate::new(),
            stopping: Gate::new(),
            tells,
            ran: AtomicUsize::new(0),
        }))
    }

    /// With a Runner of its own, on the tokio runtime that is current. Each hand-over is written down.
    pub(crate) fn watched() -> Self {
        let log = Arc::new(Log(watch::Sender::new(Vec::new())));
        let (tokio, handed_over) = (Tokio::current(), log.clone());
        let spawner = spawner::from_fn(move |batch: Batch| {
            handed_over.write(Event::HandedOver);
            tokio.spawn(batch);
        });
        App::with(Runner::new(spawner), log, false)
    }

    /// In a process of its own, on its global Runner.
    pub(crate) fn of_process() -> Self {
        let log = Arc::new(Log(watch::Sender::new(Vec::new())));
        let app = App::with(Runner::global(), log, true);
        app.0.tasks.open();
        app
    }

    /// Whose scopes the requests are to be.
    pub fn runner(&self) -> &Runner {
        &self.0.runner
    }

    /// Resolves when the server is to end, as soon as the requests in progress have.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        self.0.stopping.opened()
    }

    /// `GET /ping`: defers nothing.
    pub fn ping(&self) -> &'static str {
        "pong"
    }

    /// `GET` and `HEAD` of `/json`: a short answer whose length is known.
    pub fn json(&self) -> &'static str {
        self.defer("json");
        r#"{"route":"json"}"#
    }

    /// `GET /fail`: the text of an answer with status 500.
    pub fn fail(&self) -> &'static str {
        self.defer("fail");
        "failed"
    }

    /// `GET /panic`: the handler panics.
    ///
    /// # Panics
    ///
    /// Always.
    pub fn panics(&self) -> &'static str {
        self.defer("panic");
        panic!("a handler that panics, as a test of it does")
    }

    /// `GET /waits`: a handler that waits.
    pub async fn waits(&self) -> &'static str {
        self.defer("waits");
        let mut running = Running {
            app: self,
            returned: false,
        };
        self.write(Event::Reached);
        self.0.handlers.opened().await;
        running.returned = true;
        "waited"
    }

    /// `GET /stream`: two chunks, and between them the client decides when it goes on.
    pub fn stream(&self) -> Chunks {
        self.defer("stream");
        Chunks::new(self, 2, Bytes::from_static(b"chunk\n"), true)
    }

    /// `GET /endless`: chunks without an end.
    pub fn endless(&self) -> Chunks {
        self.defer("endless");
        Chunks::new(self, usize::MAX, Bytes::from_static(b"chunk\n"), false)
    }

    /// `GET /slow`: a stream that does not fit into the buffers between server and client.
    pub fn slow(&self) -> Chunks {
        self.defer("slow");
        Chunks::new(self, SLOW_CHUNKS, vec![b'.'; SLOW_CHUNK].into(), false)
    }

    /// `GET /large`: a large body whose length is known.
    pub fn large(&self) -> Vec<u8> {
        self.defer("large");
        large()
    }

    fn defer(&self, name: &'static str) {
        after::task(name).defer(self.clone().task());
    }

    async fn task(self) {
        self.0.tasks.opened().await;
        if self.0.tells {
            tokio::time::sleep(WORK).await;
        }
        self.write(Event::Ran(after::outcome()));
    }

    pub(crate) fn write(&self, event: Event) {
        self.0.log.write(event);
        match event {
            Event::Reached => self.tell("reached"),
            Event::Ran(_) => {
                let ran = self.0.ran.fetch_add(1, Ordering::Relaxed) + 1;
                self.tell(&format!("ran {ran}"));
            }
            _ => {}
        }
    }

    /// A line for the client of a process; flushed, because it waits for it.
    pub(crate) fn tell(&self, line: &str) {
        if self.0.tells {
            let mut output = io::stdout().lock();
            // Nobody reads any more: then nobody waits for it either.
            let _ = writeln!(output, "{line}").and_then(|()| output.flush());
        }
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.log.0.borrow().clone()
    }

    /// Waits for as many events of a kind as that.
    pub(crate) async fn wait_for(&self, count: usize, is: impl Fn(&Event) -> bool) {
        let mut events = self.0.log.0.subscribe();
        let counted =
            |events: &Vec<Event>| events.iter().filter(|event| is(event)).count() >= count;
        let waited = tokio::time::timeout(crate::GUARD, events.wait_for(counted)).await;
        if waited.is_err() {
            panic!(
                "what the case waits for does not come; so far: {:?}",
                self.events()
            );
        }
    }

    pub(crate) fn let_handlers_return(&self) {
        self.0.handlers.open();
    }

    pub(crate) fn let_bodies_go_on(&self) {
        self.0.bodies.open();
    }

    pub(crate) fn let_tasks_end(&self) {
        self.0.tasks.open();
    }

    pub(crate) fn stop(&self) {
        self.0.stopping.open();
    }
}

impl Log {
    fn write(&self, event: Event) {
        self.0.send_modify(|events| events.push(event));
    }
}

/// The body of `/large`: no two places of it look the same, so that what is lost or twice is seen.
pub(crate) fn large() -> Vec<u8> {
    (0..LARGE as u32 / 4).flat_map(u32::to_le_bytes).collect()
}

/// Writes down how a handler has ended.
struct Running<'a> {
    app: &'a App,
    returned: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.app.write(match self.returned {
            true => Event::Returned,
            false => Event::HandlerDropped,
        });
    }
}

/// The body of a streamed answer. Where the scope is current in the body, it defers when it gives out its last chunk.
pub struct Chunks {
    app: App,
    left: usize,
    chunk: Bytes,
    /// What it waits for after its first chunk. In a lock for `Sync` alone, which some frameworks ask for.
    gate: Option<Mutex<BoxFuture<'static, ()>>>,
    first: bool,
}

impl Chunks {
    fn new(app: &App, chunks: usize, chunk: Bytes, waits: bool) -> Self {
        let gate = waits.then(|| Mutex::new(app.0.bodies.opened().boxed()));
        Chunks {
            app: app.clone(),
            left: chunks,
            chunk,
            gate,
            first: true,
        }
    }
}

impl Stream for Chunks {
    type Item = io::Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.first {
            self.first = false;
        } else if let Some(gate) = &mut self.gate {
            let gate = gate.get_mut().unwrap_or_else(PoisonError::into_inner);
            ready!(gate.poll_unpin(cx));
            self.gate = None;
        }
        self.left -= 1;
        let last = self.left == 0;
        if last && after::in_scope() {
            self.app.defer("of the body");
        }
        self.app.write(Event::Chunk { last });
        Poll::Ready(Some(Ok(self.chunk.clone())))
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.app.write(Event::BodyGone);
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
