//! Sentence 4, the security promise: no scope ever sees a task, a key or a context value of another.
//!
//! Thousands of scopes, and unscoped tasks among them, yield at every step on two threads and on eight; what they do
//! between the steps is as unkind as it gets: nested scopes, executors inside a poll, subtasks with handles, destructors
//! that defer, and every end that a request can have. Everything carries the number of its scope and checks it.
//!
//! All scopes use the same key. Threads are real and their order is not determined, but what is asserted is. Also run
//! under AddressSanitizer: see `sanitizers.sh`.

use std::{
    collections::{BTreeSet, VecDeque},
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use after::{
    Batch, Observer, Order, Outcome, Runner, Spawner, TaskBuilder, TaskDeferred, TaskFinished,
    TaskInfo, TaskStarted,
};
use async_task::Runnable;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered, task::LocalSpawnExt as _};

use crate::common::{self, balanced, poll_once, yields};

const SCOPES: usize = 500;
/// Scopes that they open inside theirs: two each.
const NESTED: usize = 2 * SCOPES;
const STEPS: usize = 6;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The number of a scope, in its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id(usize);

/// In the contexts of odd scopes alone: what is left of another would not be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Odd(usize);

impl Odd {
    fn of(id: usize) -> Option<Odd> {
        (id % 2 == 1).then_some(Odd(id))
    }
}

/// The name of all tasks of a scope.
fn name(id: usize) -> &'static str {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| (0..SCOPES + NESTED).map(|id| format!("of {id}")).collect());
    &names[id]
}

/// What has happened to one scope.
#[derive(Default)]
struct Counts {
    deferred: AtomicUsize,
    /// Replaced by key or taken back.
    discarded: AtomicUsize,
    ran: AtomicUsize,
    dropped: AtomicUsize,
}

/// What everybody notes.
struct Book {
    scopes: Vec<Counts>,
    /// What should not be, in words.
    violations: Mutex<Vec<String>>,
    checks: AtomicUsize,
    /// Jobs of the executor that have not ended.
    left: Mutex<usize>,
    done: Condvar,
    executor: Executor,
}

impl Book {
    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        self.checks.fetch_add(1, SeqCst);
        if !holds {
            self.violations.lock().unwrap().push(what());
        }
    }

    /// Code that belongs to this scope sees it, and it alone.
    fn inside(&self, id: usize, place: &str) {
        let seen = (after::context::get(), after::context::get());
        let holds = seen == (Some(Id(id)), Odd::of(id)) && after::in_scope();
        self.check(holds, || format!("{place} of {id} is inside {seen:?}"));
    }

    /// Code that a handle brings to this scope sees its values, or none when the request and its tasks are over.
    fn inside_or_late(&self, id: usize, place: &str) {
        let seen = (after::context::get(), after::context::get());
        let values = seen == (Some(Id(id)), Odd::of(id));
        let late = seen == (None, None) && after::outcome() == Some(outcome(id));
        self.check((values || late) && after::in_scope(), || {
            format!("{place} of {id} is inside {seen:?}")
        });
    }

    /// Code that belongs to no scope sees none.
    fn outside(&self, place: &str) {
        let seen = after::context::get::<Id>();
        let holds = !after::in_scope()
            && seen.is_none()
            && after::outcome().is_none()
            && after::try_handle().is_none()
            && after::try_defer(async {}).is_err()
            && after::context::try_set(Id(usize::MAX)).is_err()
            && !after::forget("same");
        self.check(holds, || format!("{place} is inside {seen:?}"));
    }

    /// Only the tasks of one scope are told of in its scope.
    fn told(&self, task: &TaskInfo<'_>, place: &str) {
        let seen = after::context::get::<Id>();
        let holds = seen.is_some_and(|Id(id)| task.name == name(id));
        self.check(holds, || {
            format!("{place} of `{}` inside {seen:?}", task.name)
        });
    }

    fn spawn(self: &Arc<Self>, job: impl Future<Output = ()> + Send + 'static) {
        *self.left.lock().unwrap() += 1;
        let book = self.clone();
        self.executor.spawn(Box::pin(async move {
            job.await;
            let mut left = book.left.lock().unwrap();
            *left -= 1;
            if *left == 0 {
                book.done.notify_all();
            }
        }));
    }

    fn wait(&self) {
        let left = self.left.lock().unwrap();
        drop(self.done.wait_while(left, |left| *left > 0).unwrap());
    }
}

/// What runs the jobs.
enum Executor {
    Ring(Arc<Ring>),
    #[cfg(feature = "tokio")]
    Tokio(tokio::runtime::Handle),
    #[cfg(feature = "smol")]
    Smol(Arc<smol::Executor<'static>>),
}

impl Executor {
    fn spawn(&self, job: Job) {
        match self {
            Executor::Ring(ring) => ring.spawn(job),
            #[cfg(feature = "tokio")]
            Executor::Tokio(runtime) => drop(runtime.spawn(job)),
            #[cfg(feature = "smol")]
            Executor::Smol(executor) => executor.spawn(job).detach(),
        }
    }
}

/// Threads in a ring: each poll of a job is on the thread after that of the poll before.
struct Ring {
    threads: Vec<(Mutex<VecDeque<Runnable>>, Condvar)>,
    jobs: AtomicUsize,
}

impl Ring {
    fn new(threads: usize) -> Arc<Ring> {
        Arc::new(Ring {
            threads: (0..threads).map(|_| Default::default()).collect(),
            jobs: AtomicUsize::new(0),
        })
    }

    fn spawn(self: &Arc<Self>, job: Job) {
        let next = AtomicUsize::new(self.jobs.fetch_add(1, SeqCst));
        let ring = self.clone();
        let schedule = move |runnable| {
            let thread = next.fetch_add(1, SeqCst) % ring.threads.len();
            let (queue, pushed) = &ring.threads[thread];
            queue.lock().unwrap().push_back(runnable);
            pushed.notify_one();
        };
        let (runnable, task) = async_task::spawn(job, schedule);
        task.detach();
        runnable.schedule();
    }

    /// The work of one thread.
    fn work(&self, thread: usize, stop: &AtomicBool) {
        let (queue, pushed) = &self.threads[thread];
        loop {
            let jobs = queue.lock().unwrap();
            let wait = |jobs: &mut VecDeque<_>| jobs.is_empty() && !stop.load(SeqCst);
            let mut jobs = pushed.wait_while(jobs, wait).unwrap();
            let Some(job) = jobs.pop_front() else {
                return;
            };
            drop(jobs);
            job.run();
        }
    }
}

/// Runs all batches on the executor, and sees to it that no batch has tasks of two scopes.
struct Checks(Arc<Book>);

impl Spawner for Checks {
    fn spawn(&self, batch: Batch) {
        let names: BTreeSet<&str> = batch.names().collect();
        // Without one if all that has not been split off comes from a handle, just now.
        let of_one = names.len() <= 1 && !batch.is_empty();
        self.0.check(of_one, || format!("a batch of {names:?}"));
        self.0.spawn(batch);
    }
}

struct Tells(Arc<Book>);

impl Observer for Tells {
    fn deferred(&self, event: &TaskDeferred<'_>) {
        self.0.told(&event.task, "the deferral");
    }

    fn started(&self, event: &TaskStarted<'_>) {
        self.0.told(&event.task, "the start");
    }

    fn finished(&self, event: &TaskFinished<'_>) {
        self.0.told(&event.task, "the end");
    }
}

/// The end of a request, by its number.
fn outcome(id: usize) -> Outcome {
    if id >= SCOPES {
        return Outcome::Finished;
    }
    let all = [
        Outcome::Finished,
        Outcome::Failed,
        Outcome::Cancelled,
        Outcome::Panicked,
    ];
    all[id % all.len()]
}

/// Checks, when it is dropped, that it is in its scope. A request's defers then; a task's is counted.
struct Guard {
    book: Arc<Book>,
    id: usize,
    defers: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.book.inside(self.id, "a destructor");
        if self.defers {
            defer(&self.book, self.id, after::task(name(self.id)), false);
        } else {
            self.book.scopes[self.id].dropped.fetch_add(1, SeqCst);
        }
    }
}

/// Defers a task of this scope; some defer another.
fn defer(book: &Arc<Book>, id: usize, builder: TaskBuilder, nests: bool) {
    book.scopes[id].deferred.fetch_add(1, SeqCst);
    let guard = Guard {
        book: book.clone(),
        id,
        defers: false,
    };
    let task = async move {
        let book = &guard.book;
        book.inside(id, "a task");
        yields(1).await;
        book.inside(id, "a task, later,");
        let seen = after::outcome();
        book.check(seen == Some(outcome(id)), || {
            format!("a task of {id} sees {seen:?}")
        });
        let set = after::context::try_set(Id(usize::MAX));
        book.check(set.is_err(), || {
            format!("a task of {id} changes the context")
        });
        if nests {
            defer(book, id, after::task(name(id)), false);
        }
        book.scopes[id].ran.fetch_add(1, SeqCst);
    };
    let deferred = builder.try_defer(Box::pin(task) as Job);
    book.check(deferred.is_ok(), || {
        format!("{id} has no scope to defer to")
    });
}

/// Two tasks with the key that all scopes use: the first is replaced.
fn defer_keyed(book: &Arc<Book>, id: usize) {
    for _ in 0..2 {
        defer(book, id, after::task(name(id)).key("same"), false);
    }
    book.scopes[id].discarded.fetch_add(1, SeqCst);
}

fn forget(book: &Book, id: usize) {
    let forgotten = after::forget("same");
    book.check(forgotten, || format!("{id} has lost its key"));
    book.scopes[id].discarded.fetch_add(1, SeqCst);
}

/// The beginning of every request: nothing of anybody else's is there.
fn begin(book: &Book, id: usize) {
    struct First;
    // From here on the scope has a place of its own, which another may have used before.
    after::context::set(First);
    let seen = (after::context::get::<Id>(), after::context::get::<Odd>());
    let empty = after::in_scope() && seen == (None, None) && !after::forget("same");
    book.check(empty, || format!("{id} begins inside {seen:?}"));
    after::context::set(Id(id));
    if let Some(odd) = Odd::of(id) {
        after::context::set(odd);
    }
}

/// A small request inside another.
async fn nested(book: Arc<Book>, id: usize) {
    begin(&book, id);
    for _ in 0..2 {
        defer_keyed(&book, id);
        yields(1).await;
        book.inside(id, "a nested request");
        forget(&book, id);
        defer(&book, id, after::task(name(id)), true);
    }
}

/// Works in the scope of a request that may have ended.
async fn subtask(book: Arc<Book>, id: usize) {
    for _ in 0..STEPS {
        book.inside(id, "a subtask");
        defer(&book, id, after::task(name(id)), false);
        yields(1).await;
    }
}

/// One request: `reached` is set when it has taken all its steps.
async fn request(
    book: Arc<Book>,
    runner: Runner,
    id: usize,
    reached: Arc<AtomicBool>,
) -> Result<(), &'static str> {
    begin(&book, id);
    let _guard = Guard {
        book: book.clone(),
        id,
        defers: true,
    };
    for step in 0..STEPS {
        yields(1).await;
        book.inside(id, "a request");
        defer(&book, id, after::task(name(id)), step == 0);
        defer_keyed(&book, id);
        yields(1).await;
        // Each of these once.
        match (id + step) % STEPS {
            0 => runner.scope(nested(book.clone(), SCOPES + 2 * id)).await,
            1 => futures::executor::block_on(async {
                book.inside(id, "a nested executor");
                yields(1).await;
                runner
                    .scope(nested(book.clone(), SCOPES + 2 * id + 1))
                    .await;
                book.inside(id, "a nested executor");
            }),
            2 => {
                // Its tasks count as inside the scope that it runs in.
                let mut pool = futures::executor::LocalPool::new();
                for _ in 0..2 {
                    let book = book.clone();
                    let task = async move {
                        book.inside(id, "a local task");
                        yields(1).await;
                        defer(&book, id, after::task(name(id)), false);
                    };
                    pool.spawner().spawn_local(task).unwrap();
                }
                pool.run();
            }
            3 => {
                let mut parts: FuturesUnordered<_> = (0..3)
                    .map(|part| async move {
                        yields(part).await;
                        after::context::get::<Id>()
                    })
                    .collect();
                while let Some(seen) = parts.next().await {
                    book.check(seen == Some(Id(id)), || {
                        format!("a part of {id} sees {seen:?}")
                    });
                }
            }
            4 => {
                let handle = after::handle();
                book.spawn(handle.scope(subtask(book.clone(), id)));
                let inner = book.clone();
                book.spawn(async move {
                    inner.outside("a spawned subtask");
                    yields(1).await;
                    handle.sync_scope(|| inner.inside_or_late(id, "a closure"));
                    inner.outside("a spawned subtask");
                });
            }
            _ => {
                let panics = runner.scope(async {
                    after::context::set(Id(usize::MAX));
                    yields(1).await;
                    std::panic::panic_any("told to");
                });
                assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
                let mut dropped = Box::pin(runner.scope(async {
                    after::context::set(Id(usize::MAX));
                    std::future::pending::<()>().await;
                }));
                assert!(poll_once(dropped.as_mut()).is_pending());
            }
        }
        book.inside(id, "a request");
        if step + 1 < STEPS {
            forget(&book, id);
        }
    }
    reached.store(true, SeqCst);
    match outcome(id) {
        Outcome::Failed => Err("told to"),
        Outcome::Cancelled => std::future::pending().await,
        Outcome::Panicked => std::panic::panic_any("told to"),
        _ => Ok(()),
    }
}

/// A request as its server runs it: it may go away in the middle, or keep the batch.
async fn serve(book: Arc<Book>, runner: Runner, id: usize, special: bool) {
    let reached = Arc::new(AtomicBool::new(false));
    let orders = [Order::Concurrent, Order::Sequential, Order::Parallel];
    let request = request(book.clone(), runner.clone(), id, reached.clone());
    let scope = runner.scope(request).failed_if(Result::is_err);
    let scope = match special {
        true => scope.order(orders[id % 3]),
        false => scope,
    };
    if id.is_multiple_of(5) {
        let batch = until(scope.held(), &reached).await;
        if let Some((_, batch)) = batch {
            book.spawn(batch);
        }
    } else {
        until(scope, &reached).await;
    }
    book.outside("a server");
}

/// Drops a request that has taken its steps and does not resolve, and lets one panic.
async fn until<F: Future>(request: F, reached: &AtomicBool) -> Option<F::Output> {
    let mut request = Box::pin(request);
    let polled = AssertUnwindSafe(poll_fn(|cx| match request.as_mut().poll(cx) {
        Poll::Pending if reached.load(SeqCst) => Poll::Ready(None),
        polled => polled.map(Some),
    }));
    polled.catch_unwind().await.unwrap_or_default()
}

async fn unscoped(book: Arc<Book>) {
    for _ in 0..3 * STEPS {
        book.outside("an unscoped task");
        yields(1).await;
    }
}

/// Everything at once; returns how often something was checked.
fn mix(executor: Executor, special: bool) -> usize {
    common::keep_quiet();
    let book = Arc::new(Book {
        scopes: (0..SCOPES + NESTED).map(|_| Counts::default()).collect(),
        violations: Mutex::default(),
        checks: AtomicUsize::new(0),
        left: Mutex::new(1),
        done: Condvar::new(),
        executor,
    });
    let builder = Runner::builder().spawner(Checks(book.clone()));
    let builder = match special {
        false => builder,
        true => {
            let builder = builder.observer(Tells(book.clone())).max_running(64);
            builder.scope_timeout(Duration::from_secs(3_600))
        }
    };
    let runner = builder.build();
    for id in 0..SCOPES {
        book.spawn(serve(book.clone(), runner.clone(), id, special));
        if id.is_multiple_of(3) {
            book.spawn(unscoped(book.clone()));
        }
    }
    // The one that kept it from ending before all were there.
    *book.left.lock().unwrap() -= 1;
    book.wait();

    let violations = book.violations.lock().unwrap();
    assert!(
        violations.is_empty(),
        "{}: {}",
        violations.len(),
        violations[0]
    );
    let count = |count: &AtomicUsize| count.load(SeqCst) as u64;
    let mut total = (0, 0, 0);
    for (id, counts) in book.scopes.iter().enumerate() {
        let (deferred, discarded) = (count(&counts.deferred), count(&counts.discarded));
        let ran = count(&counts.ran);
        assert!(ran >= 4, "{id}");
        assert_eq!(
            ran,
            deferred - discarded,
            "{id}: exactly its own tasks have run"
        );
        assert_eq!(
            count(&counts.dropped),
            deferred,
            "{id}: each is dropped once"
        );
        total = (total.0 + deferred, total.1 + discarded, total.2 + ran);
    }
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.discarded, stats.completed), total);
    assert_eq!(stats.pending, 0);
    book.checks.load(SeqCst)
}

/// On threads that hand every future on after every poll.
fn on_a_ring(threads: usize) {
    for special in [false, true] {
        let ring = Ring::new(threads);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (ring, stop) = (&ring, &stop);
                scope.spawn(move || ring.work(thread, stop));
            }
            // Also if it panics: the scope would wait for the threads.
            let checks = std::panic::catch_unwind(|| mix(Executor::Ring(ring.clone()), special));
            stop.store(true, SeqCst);
            for (queue, pushed) in &ring.threads {
                drop(queue.lock());
                pushed.notify_all();
            }
            assert!(checks.unwrap() > 100 * SCOPES);
        });
    }
}

#[test]
fn scopes_that_change_threads_at_every_poll_see_only_themselves_on_two_threads() {
    on_a_ring(2);
}

#[test]
fn scopes_that_change_threads_at_every_poll_see_only_themselves_on_eight_threads() {
    on_a_ring(8);
}

#[cfg(feature = "tokio")]
fn on_tokio(threads: usize) {
    for special in [false, true] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .build()
            .unwrap();
        assert!(mix(Executor::Tokio(runtime.handle().clone()), special) > 100 * SCOPES);
    }
}

#[cfg(feature = "tokio")]
#[test]
fn scopes_see_only_themselves_on_two_workers_of_tokio() {
    on_tokio(2);
}

#[cfg(feature = "tokio")]
#[test]
fn scopes_see_only_themselves_on_eight_workers_of_tokio() {
    on_tokio(8);
}

#[cfg(feature = "smol")]
fn on_smol(threads: usize) {
    for special in [false, true] {
        let executor = Arc::new(smol::Executor::new());
        let (stop, stopped) = smol::channel::unbounded::<()>();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (executor, stopped) = (&executor, &stopped);
                scope.spawn(move || smol::block_on(executor.run(stopped.recv())));
            }
            let jobs = executor.clone();
            let checks = std::panic::catch_unwind(|| mix(Executor::Smol(jobs), special));
            drop(stop);
            assert!(checks.unwrap() > 100 * SCOPES);
        });
    }
}

#[cfg(feature = "smol")]
#[test]
fn scopes_see_only_themselves_on_two_threads_of_smol() {
    on_smol(2);
}

#[cfg(feature = "smol")]
#[test]
fn scopes_see_only_themselves_on_eight_threads_of_smol() {
    on_smol(8);
}
