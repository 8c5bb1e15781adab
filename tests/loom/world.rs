//! What each model has: a Runner, the batches that it was handed, and the ledger of its tasks.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use after::{Batch, Runner, RunnerBuilder, Spawner, Stats, spawner::BlockingWork, spawner::Sleep};
use loom::{
    future::block_on,
    sync::Mutex,
    thread::{self, JoinHandle},
};

/// How many tasks a model may have.
const MOST_TASKS: usize = 66;

/// A Runner whose spawner keeps what it is given. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runner: Runner,
    spawned: Arc<Mutex<Vec<Batch>>>,
    blocking: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Resolves the sleeps of the spawner.
    pub(crate) clock: Event,
    pub(crate) ledger: Arc<Ledger>,
}

struct Kept {
    spawned: Arc<Mutex<Vec<Batch>>>,
    blocking: Arc<Mutex<Vec<JoinHandle<()>>>>,
    clock: Event,
    _alive: Arc<()>,
}

impl Spawner for Kept {
    fn spawn(&self, batch: Batch) {
        self.spawned.lock().unwrap().push(batch);
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        let thread = thread::spawn(|| work.run());
        self.blocking.lock().unwrap().push(thread);
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Sleep::new(self.clock.wait())
    }
}

/// Runs `test` in every interleaving with at most three preemptions, in a world with a plain Runner.
///
/// Two find less: that a drain takes the wake-up of an earlier one for its own takes three.
pub(crate) fn model(test: impl Fn(&World) + Send + Sync + 'static) {
    model_with(|builder| builder, test);
}

/// As `model`, with a Runner that is not plain.
pub(crate) fn model_with(
    configure: fn(RunnerBuilder) -> RunnerBuilder,
    test: impl Fn(&World) + Send + Sync + 'static,
) {
    check(3, configure, test);
}

/// As `model`, with at most two preemptions: for what has a million interleavings with three.
pub(crate) fn shorter_model(test: impl Fn(&World) + Send + Sync + 'static) {
    check(2, |builder| builder, test);
}

fn check(
    preemptions: usize,
    configure: fn(RunnerBuilder) -> RunnerBuilder,
    test: impl Fn(&World) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    // Unless the environment says another number.
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let alive = Arc::new(());
        let (spawned, blocking, clock) = Default::default();
        let spawner = Kept {
            spawned: Arc::clone(&spawned),
            blocking: Arc::clone(&blocking),
            clock: Event::clone(&clock),
            _alive: alive.clone(),
        };
        let world = World {
            runner: configure(Runner::builder()).spawner(spawner).build(),
            spawned,
            blocking,
            clock,
            ledger: Arc::default(),
        };
        test(&world);
        world.end();
        // The Runner owns its spawner, and all scopes, handles and batches have the Runner: none of them was leaked.
        assert_eq!(Arc::strong_count(&alive), 1, "something keeps the Runner");
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{runs} interleavings");
    // Threads that meet nowhere have fewer.
    assert!(runs > 5, "the threads of this model do not race");
}

impl World {
    /// A request that gets a handle, then waits for another poll before it ends: between the two it races.
    pub(crate) fn request(
        &self,
        tasks: usize,
    ) -> (Pin<Box<dyn Future<Output = ()> + Send>>, after::Handle) {
        let handle = Arc::new(std::sync::Mutex::new(None));
        let (given, ledger) = (handle.clone(), self.ledger.clone());
        let mut request = Box::pin(self.runner.scope(async move {
            *given.lock().unwrap() = Some(after::handle());
            for task in 0..tasks {
                after::defer(ledger.task(task));
            }
            pend(1).await;
        }));
        assert!(poll_once(request.as_mut()).is_pending());
        let handle = handle.lock().unwrap().take().unwrap();
        (request, handle)
    }

    /// A request that is over: its batch, of so many tasks, and a handle to it.
    pub(crate) fn batch(&self, tasks: usize) -> (Batch, after::Handle) {
        let (mut request, handle) = self.request(tasks);
        assert!(poll_once(request.as_mut()).is_ready());
        (self.take_batch(), handle)
    }

    /// The batch of a request that defers these, without a handle.
    pub(crate) fn plain_batch<T: Future<Output = ()> + Send + 'static>(
        &self,
        tasks: impl IntoIterator<Item = T>,
    ) -> Batch {
        let request = async { tasks.into_iter().for_each(after::defer) };
        let mut request = Box::pin(self.runner.scope(request));
        assert!(poll_once(request.as_mut()).is_ready());
        self.take_batch()
    }

    /// The only batch that the spawner has.
    pub(crate) fn take_batch(&self) -> Batch {
        let mut spawned = self.take_batches();
        assert_eq!(spawned.len(), 1);
        spawned.remove(0)
    }

    pub(crate) fn take_batches(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.spawned.lock().unwrap())
    }

    /// Runs what the spawner has, to the end; returns how many batches that were.
    pub(crate) fn run_spawned(&self) -> usize {
        let mut batches = 0;
        loop {
            let spawned = self.take_batches();
            if spawned.is_empty() {
                return batches;
            }
            batches += spawned.len();
            // Side by side: one may have the permit that another waits for.
            block_on(run_all(spawned));
        }
    }

    pub(crate) fn join_blocking(&self) {
        let blocking = std::mem::take(&mut *self.blocking.lock().unwrap());
        join(blocking);
    }

    /// Ends what is left, and looks whether the account and the ledger agree.
    fn end(self) {
        self.run_spawned();
        self.join_blocking();
        let Stats {
            deferred,
            completed,
            panicked,
            failed,
            pending,
            ..
        } = self.runner.stats();
        assert_eq!((pending, panicked, failed), (0, 0, 0));
        assert_eq!(
            deferred,
            self.ledger.made(),
            "a task was counted twice, or not"
        );
        assert_eq!(
            completed,
            self.ledger.ran(),
            "a task ran, and is not on the account so"
        );
        assert_eq!(deferred, self.ledger.dropped(), "a task is left");
    }
}

/// What became of the tasks. Of std's atomics: it takes no part in the race.
pub(crate) struct Ledger {
    entries: [Entry; MOST_TASKS],
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger {
            entries: std::array::from_fn(|_| Entry::default()),
        }
    }
}

#[derive(Default)]
struct Entry {
    made: AtomicUsize,
    ran: AtomicUsize,
    dropped: AtomicUsize,
}

impl Ledger {
    /// A task that ends in its first poll.
    pub(crate) fn task(self: &Arc<Self>, number: usize) -> impl Future<Output = ()> + Send + use<> {
        self.task_with(number, async {})
    }

    /// A task that runs `work`.
    pub(crate) fn task_with<F: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        number: usize,
        work: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        self.entries[number].made.fetch_add(1, Ordering::Relaxed);
        let entry = OnDrop {
            ledger: self.clone(),
            number,
        };
        async move {
            work.await;
            let entry = &entry.ledger.entries[entry.number];
            assert_eq!(entry.ran.fetch_add(1, Ordering::Relaxed), 0, "it ran twice");
        }
    }

    /// A closure that blocks. It may run although its batch has gone.
    pub(crate) fn closure(self: &Arc<Self>, number: usize) -> impl FnOnce() + Send + use<> {
        let task = self.task(number);
        move || assert!(poll_once(std::pin::pin!(task)).is_ready())
    }

    /// A closure has run, and counts as lost: it had begun when its batch was dropped.
    pub(crate) fn nobody_heard_of(&self, number: usize) {
        self.entries[number].ran.store(0, Ordering::Relaxed);
    }

    pub(crate) fn has_run(&self, number: usize) -> bool {
        self.entries[number].ran.load(Ordering::Relaxed) == 1
    }

    fn made(&self) -> u64 {
        self.sum(|entry| &entry.made)
    }

    fn ran(&self) -> u64 {
        self.sum(|entry| &entry.ran)
    }

    fn dropped(&self) -> u64 {
        self.sum(|entry| &entry.dropped)
    }

    fn sum(&self, column: fn(&Entry) -> &AtomicUsize) -> u64 {
        let column = self.entries.iter().map(column);
        column
            .map(|count| count.load(Ordering::Relaxed) as u64)
            .sum()
    }
}

struct OnDrop {
    ledger: Arc<Ledger>,
    number: usize,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        let entry = &self.ledger.entries[self.number];
        entry.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Something that happens once, and wakes those who wait for it.
#[derive(Clone, Default)]
pub(crate) struct Event {
    state: Arc<Mutex<(bool, Vec<Waker>)>>,
}

impl Event {
    pub(crate) fn set(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        let wakers = std::mem::take(&mut state.1);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let event = self.clone();
        std::future::poll_fn(move |cx| {
            let mut state = event.state.lock().unwrap();
            if state.0 {
                return Poll::Ready(());
            }
            state.1.push(cx.waker().clone());
            Poll::Pending
        })
    }
}

async fn run_all(mut batches: Vec<Batch>) {
    let running = std::future::poll_fn(|cx| {
        batches.retain_mut(|batch| Pin::new(batch).poll(cx).is_pending());
        match batches.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    running.await;
}

pub(crate) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Lets the others of its batch run.
pub(crate) async fn take_a_turn() {
    let mut taken = false;
    let turn = std::future::poll_fn(|cx| {
        if std::mem::replace(&mut taken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    turn.await;
}

/// Pending at the first so many polls, without waking.
pub(crate) fn pend(mut polls: usize) -> impl Future<Output = ()> + Send {
    std::future::poll_fn(move |_| match polls.checked_sub(1) {
        None => Poll::Ready(()),
        Some(left) => {
            polls = left;
            Poll::Pending
        }
    })
}

pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
