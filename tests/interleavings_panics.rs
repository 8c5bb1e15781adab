//! Every place where a user's code runs panics, with payloads that panic when they are dropped too, in a calm thread and in
//! one that unwinds already. All in a process of its own: a panic that got out of a destructor there would abort it.
//!
//! Sentences 5, 7, 8, 10, 12, 13, 18b and 19.

mod common;

use std::{
    cell::Cell,
    fmt,
    future::{Future, IntoFuture, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use after::{
    Batch, Observer, Runner, Spawner, TaskDeferred, TaskFinished, TaskFuture, TaskInfo,
    TaskStarted,
    spawner::{self, BlockingWork, Sleep},
};
use common::{Batches, balanced, is_child, poll_once, standard_error_of};
use futures::channel::oneshot;

/// Where a user's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    RequestPoll,
    RequestDrop,
    FailedIf,
    IntoFuturePoll,
    ContextWith,
    ContextReplaced,
    ContextDrop,
    Replaced,
    Forgotten,
    Condition,
    Discarded,
    Hook,
    HookDrop,
    ObserverDeferred,
    ObserverStarted,
    ObserverFinished,
    ObserverDrop,
    TaskPoll,
    TaskDrop,
    NestedDrop,
    ErrorDisplay,
    ErrorDrop,
    ClosureCall,
    ClosureDrop,
    TimedOutDrop,
    Spawn,
    SpawnBlocking,
    SpawnerDrop,
    SleepMade,
    SleepPoll,
    SleepDrop,
}

use Place::*;

/// Each place, whether the request panics of it, and how the tasks end if the request resolves and its batches are run.
const PLACES: [(Place, bool, Heads); 32] = [
    (Nowhere, false, [9, 1, 0, 1, 3, 0]),
    (RequestPoll, true, [9, 1, 0, 1, 3, 0]),
    (RequestDrop, true, [9, 1, 0, 1, 3, 0]),
    (FailedIf, true, [9, 1, 0, 1, 3, 0]),
    (IntoFuturePoll, true, [8, 1, 0, 1, 3, 0]),
    (ContextWith, true, [9, 1, 0, 1, 3, 0]),
    (ContextReplaced, true, [9, 1, 0, 1, 3, 0]),
    (ContextDrop, false, [9, 1, 0, 1, 3, 0]),
    (Replaced, false, [9, 1, 0, 1, 3, 0]),
    (Forgotten, false, [9, 1, 0, 1, 3, 0]),
    (Condition, false, [8, 1, 1, 1, 3, 0]),
    (Discarded, false, [9, 1, 0, 1, 3, 0]),
    (Hook, false, [8, 1, 1, 1, 3, 0]),
    (HookDrop, false, [9, 1, 0, 1, 3, 0]),
    (ObserverDeferred, false, [9, 1, 0, 1, 3, 0]),
    (ObserverStarted, false, [9, 1, 0, 1, 3, 0]),
    (ObserverFinished, false, [9, 1, 0, 1, 3, 0]),
    (ObserverDrop, false, [9, 1, 0, 1, 3, 0]),
    (TaskPoll, false, [8, 1, 1, 1, 3, 0]),
    (TaskDrop, false, [8, 1, 1, 1, 3, 0]),
    (NestedDrop, false, [8, 1, 1, 1, 3, 0]),
    (ErrorDisplay, false, [9, 1, 0, 1, 3, 0]),
    (ErrorDrop, false, [9, 1, 0, 1, 3, 0]),
    (ClosureCall, false, [8, 1, 1, 1, 3, 0]),
    (ClosureDrop, false, [8, 1, 1, 1, 3, 0]),
    (TimedOutDrop, false, [9, 1, 0, 1, 3, 0]),
    (Spawn, false, [0, 0, 0, 0, 3, 10]),
    (SpawnBlocking, false, [8, 1, 0, 1, 3, 1]),
    (SpawnerDrop, false, [9, 1, 0, 1, 3, 0]),
    (SleepMade, false, [9, 1, 0, 0, 3, 1]),
    (SleepPoll, false, [9, 1, 0, 0, 3, 1]),
    (SleepDrop, false, [9, 1, 0, 1, 3, 0]),
];

/// What is thrown.
#[derive(Clone, Copy, Debug)]
enum Payload {
    Words,
    /// Panics when it is dropped.
    Bomb,
    /// And so does what it panics with.
    Bombs,
}

struct Bomb(Payload);

impl Drop for Bomb {
    fn drop(&mut self) {
        throw(match self.0 {
            Payload::Bombs => Payload::Bomb,
            _ => Payload::Words,
        });
    }
}

fn throw(payload: Payload) {
    match payload {
        Payload::Words => panic_any("told to"),
        Payload::Bomb | Payload::Bombs => panic_any(Bomb(payload)),
    }
}

thread_local! {
    static ARMED: Cell<(Place, Payload)> = const { Cell::new((Nowhere, Payload::Words)) };
    static BLOWN: Cell<usize> = const { Cell::new(0) };
}

/// Panics if this is the place.
fn pass(place: Place) {
    let (armed, payload) = ARMED.get();
    if place == armed && place != Nowhere {
        BLOWN.set(BLOWN.get() + 1);
        throw(payload);
    }
}

/// Passes this place when it is dropped.
struct Guard(Place);

impl Drop for Guard {
    fn drop(&mut self) {
        pass(self.0);
    }
}

/// Catches, and lets payloads that panic be.
fn catch<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f))
        .map_err(|payload| match payload.is::<&str>() {
            true => drop(payload),
            false => std::mem::forget(payload),
        })
        .ok()
}

/// Lives as long as its task. Its own destructor notes this before the guard's may panic.
struct Life {
    notes: Arc<Notes>,
    _guard: Guard,
}

#[derive(Default)]
struct Notes {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl Life {
    fn new(notes: &Arc<Notes>, place: Place) -> Life {
        notes.made.fetch_add(1, SeqCst);
        Life {
            notes: notes.clone(),
            _guard: Guard(place),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.notes.dropped.fetch_add(1, SeqCst);
    }
}

/// Holds something until its end.
async fn holds<T>(held: T) {
    drop(held);
}

async fn holds_for_ever<T>(_held: T) {
    std::future::pending::<()>().await;
}

/// Ends at once, as it is told, and passes a place when it is polled and when it is dropped.
struct Subject {
    _life: Life,
}

impl Future for Subject {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        pass(TaskPoll);
        Poll::Ready(())
    }
}

struct Converts(Life);

impl IntoFuture for Converts {
    type Output = ();
    type IntoFuture = std::future::Ready<()>;

    fn into_future(self) -> Self::IntoFuture {
        drop(self.0);
        pass(IntoFuturePoll);
        std::future::ready(())
    }
}

#[derive(Debug)]
struct Bad;

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        pass(ErrorDisplay);
        f.write_str("told to")
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        pass(ErrorDrop);
    }
}

impl std::error::Error for Bad {}

/// A value of the context.
struct Value(#[allow(dead_code)] Guard);

thread_local! {
    /// Whether the next hook is the subject's.
    static HOOKED: Cell<bool> = const { Cell::new(false) };
}

struct Watches(#[allow(dead_code)] Guard);

impl Watches {
    fn see(&self, task: &TaskInfo<'_>, place: Place) {
        if task.name == "subject" {
            pass(place);
        }
    }
}

impl Observer for Watches {
    fn deferred(&self, event: &TaskDeferred<'_>) {
        self.see(&event.task, ObserverDeferred);
    }

    fn started(&self, event: &TaskStarted<'_>) {
        self.see(&event.task, ObserverStarted);
    }

    fn finished(&self, event: &TaskFinished<'_>) {
        self.see(&event.task, ObserverFinished);
    }
}

/// What was given to the spawner, for the test to run by hand.
#[derive(Clone, Default)]
struct Kept {
    batches: Batches,
    blocking: Arc<Mutex<Vec<BlockingWork>>>,
    timers: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
}

struct Keeps {
    kept: Kept,
    _guard: Guard,
}

impl Spawner for Keeps {
    fn spawn(&self, batch: Batch) {
        pass(Spawn);
        self.kept.batches.push(batch);
    }

    fn spawn_blocking(&self, work: BlockingWork) {
        pass(SpawnBlocking);
        self.kept.blocking.lock().unwrap().push(work);
    }

    fn sleep(&self, _: Duration) -> Sleep {
        pass(SleepMade);
        let (fire, mut fired) = oneshot::channel();
        self.kept.timers.lock().unwrap().push(fire);
        let guard = Guard(SleepDrop);
        Sleep::new(poll_fn(move |cx| {
            let _guard = &guard;
            pass(SleepPoll);
            Pin::new(&mut fired).poll(cx).map(drop)
        }))
    }
}

/// A request that defers one task of each kind, and then resolves or waits.
struct Request {
    notes: Arc<Notes>,
    resolves: bool,
    _guard: Guard,
}

impl Future for Request {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let life = |place| Life::new(&self.notes, place);
        HOOKED.set(true);
        let subject = life(TaskDrop);
        after::task("subject").defer(Subject { _life: subject });
        let fails = life(Nowhere);
        after::task("fails").defer(async move {
            drop(fails);
            Err::<(), _>(Bad)
        });
        after::task("sibling").defer(holds(life(Nowhere)));
        let decides = after::task("conditional").when(|_| {
            pass(Condition);
            true
        });
        decides.defer(holds(life(Nowhere)));
        let discarded = after::task("discarded").when(|_| false);
        discarded.defer(holds(life(Discarded)));
        let (nests, notes) = (life(Nowhere), self.notes.clone());
        after::task("nests").defer(async move {
            let nested = Life::new(&notes, NestedDrop);
            after::task("nested").defer(holds(nested));
            drop(nests);
        });
        let closure = life(ClosureDrop);
        after::task("closure").defer_blocking(move || {
            let _closure = closure;
            pass(ClosureCall);
        });
        let late = after::task("past its limit").timeout(Duration::from_secs(3_600));
        late.defer(holds_for_ever(life(TimedOutDrop)));
        after::task("apart").spawned().defer(holds(life(Nowhere)));
        for place in [Replaced, Nowhere] {
            // The one that is replaced is dropped inside this call.
            let keyed = after::task("keyed").key("keyed");
            keyed.defer(holds(life(place)));
        }
        let forgotten = after::task("forgotten").key("forgotten");
        forgotten.defer(holds(life(Forgotten)));
        assert!(after::forget("forgotten"));
        // From here on each is the request's own panic.
        after::defer(Converts(life(Nowhere)));
        for place in [ContextReplaced, ContextDrop] {
            after::context::set(Value(Guard(place)));
        }
        after::context::with(|_: &Value| pass(ContextWith)).unwrap();
        pass(RequestPoll);
        match self.resolves {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// What is done, whatever panics meanwhile.
#[derive(Clone, Copy, Debug)]
struct Program {
    place: Place,
    payload: Payload,
    /// The request resolves, or is dropped.
    resolves: bool,
    /// The batches are run, or are dropped after two polls.
    runs: bool,
    /// There are an observer and a hook.
    watched: bool,
    /// The Runner outlives its batches.
    runner_stays: bool,
}

/// Completed, failed, panicked, timed out, discarded, lost.
type Heads = [u64; 6];

/// Gives whether the request has panicked, and the heads of the account, if the Runner was there to the end.
fn run(program: Program) -> (bool, Option<Heads>) {
    let kept = Kept::default();
    let builder = Runner::builder().spawner(Keeps {
        kept: kept.clone(),
        _guard: Guard(SpawnerDrop),
    });
    let builder = match program.watched {
        false => builder,
        true => {
            let hook = || {
                let guard = Guard(HookDrop);
                move |_: &TaskInfo<'_>, task: TaskFuture| {
                    let _guard = &guard;
                    if HOOKED.replace(false) {
                        pass(Hook);
                    }
                    task
                }
            };
            let watches = || Watches(Guard(ObserverDrop));
            // Two of each: two that panic in one list abort, if nobody sees to it.
            let builder = builder.observer(watches()).observer(watches());
            builder.on_defer(hook()).on_defer(hook())
        }
    };
    let mut runner = Some(builder.build());
    let notes = Arc::new(Notes::default());
    ARMED.set((program.place, program.payload));
    let request = Request {
        notes: notes.clone(),
        resolves: program.resolves,
        _guard: Guard(RequestDrop),
    };
    let failed = |(): &()| {
        pass(FailedIf);
        false
    };
    let scope = runner.as_ref().unwrap().scope(request).failed_if(failed);
    if !program.runner_stays {
        drop(runner.take());
    }
    let mut scope = Box::pin(scope);
    let polled = catch(|| poll_once(scope.as_mut()));
    assert!(polled.is_none_or(|polled| polled.is_ready() == program.resolves));
    // From here on nothing of the crate panics: no drop of a scope, no poll, no drop of a batch or of work.
    drop(scope);
    assert!(!after::in_scope());

    for round in 0..12 {
        for mut batch in kept.batches.take_all() {
            if poll_once(Pin::new(&mut batch)).is_pending() && (program.runs || round == 0) {
                kept.batches.push(batch);
            }
        }
        for work in std::mem::take(&mut *kept.blocking.lock().unwrap()) {
            if program.runs {
                work.run();
            }
        }
        for timer in std::mem::take(&mut *kept.timers.lock().unwrap()) {
            // An error: its sleep was given up.
            timer.send(()).unwrap_or_default();
        }
    }
    if matches!(program.place, SleepMade | SleepPoll) {
        // A timer in real time has replaced the sleep: what that would end is lost.
        drop(kept.batches.take_all());
    }
    let heads = runner.as_ref().map(|runner| {
        let stats = balanced(runner);
        // All that were made, but for the one whose `into_future` has panicked.
        let made = notes.made.load(SeqCst) as u64;
        let deferred = made - u64::from(program.place == IntoFuturePoll);
        assert_eq!(
            (stats.deferred, stats.pending),
            (deferred, 0),
            "{program:?}"
        );
        [
            stats.completed,
            stats.failed,
            stats.panicked,
            stats.timed_out,
            stats.discarded,
            stats.lost,
        ]
    });
    drop(kept);
    drop(runner);
    assert_eq!(
        notes.dropped.load(SeqCst),
        notes.made.load(SeqCst),
        "{program:?}"
    );
    (polled.is_none(), heads)
}

/// Runs when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// The same, while a panic unwinds.
fn run_while_unwinding(program: Program) -> (bool, Option<Heads>) {
    let mut result = None;
    let unwound = catch(|| {
        let _run = OnDrop(|| {
            assert!(std::thread::panicking());
            result = Some(run(program));
        });
        panic_any("told to");
    });
    assert!(unwound.is_none());
    result.unwrap()
}

const CHILD: &str = "no_panic_of_a_users_code_gets_where_it_does_not_belong";

#[test]
fn no_panic_of_a_users_code_gets_where_it_does_not_belong() {
    if !is_child(CHILD) {
        standard_error_of(CHILD);
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let words = info.payload().downcast_ref() == Some(&"told to");
        if !words && !info.payload().is::<Bomb>() {
            eprintln!("{info}");
        }
    }));
    let two = [false, true];
    let mut programs = 0;
    for (place, panics, heads) in PLACES {
        let mut blown = 0;
        for payload in [Payload::Words, Payload::Bomb, Payload::Bombs] {
            for (resolves, runs) in two
                .into_iter()
                .flat_map(|one| two.map(|other| (one, other)))
            {
                for (watched, runner_stays) in two
                    .into_iter()
                    .flat_map(|one| two.map(|other| (one, other)))
                {
                    let program = Program {
                        place,
                        payload,
                        resolves,
                        runs,
                        watched,
                        runner_stays,
                    };
                    BLOWN.set(0);
                    let calm = catch(|| run(program));
                    let calm = calm.unwrap_or_else(|| panic!("out of {program:?}"));
                    blown += BLOWN.get();
                    assert_eq!(run_while_unwinding(program), calm, "{program:?}");
                    if resolves && runs && watched && runner_stays {
                        assert_eq!(calm, (panics, Some(heads)), "{program:?}");
                    }
                    programs += 1;
                }
            }
        }
        assert!(blown > 0 || place == Nowhere, "{place:?} is passed");
    }
    assert_eq!(programs, PLACES.len() * 48);
}

const WAITS: &str = "a_scope_that_waits_for_room_is_dropped_without_a_panic";

/// 18b: its answer's destructor panics, its tasks are handed over all the same, and nothing aborts.
#[test]
fn a_scope_that_waits_for_room_is_dropped_without_a_panic() {
    if !is_child(WAITS) {
        standard_error_of(WAITS);
        return;
    }
    let kept = Batches::default();
    let keep = kept.clone();
    let runner = Runner::builder()
        .spawner(spawner::from_fn(move |batch| keep.push(batch)))
        .max_running(1)
        .max_waiting(1)
        .build();
    let waits = || {
        let request = async {
            after::defer(async {});
            after::defer(async {});
            Bomb(Payload::Words)
        };
        let mut scope = Box::pin(runner.scope(request));
        let polled = poll_once(scope.as_mut()).map(std::mem::forget);
        let waits = polled.is_pending();
        (scope, waits)
    };
    let (first, waited) = waits();
    assert!(!waited, "there is room");
    drop(first);
    let (second, waited) = waits();
    assert!(waited);
    drop(second);
    let (third, waited) = waits();
    assert!(waited);
    let unwound = catch(|| {
        let _third = third;
        panic_any("told to");
    });
    assert!(unwound.is_none());
    kept.drive(10);
    let stats = balanced(&runner);
    assert_eq!((stats.deferred, stats.pending), (6, 0));
    // What can't wait any more has room up to twice `max_waiting`, that is for one of the second scope.
    assert_eq!((stats.completed, stats.shed), (3, 3));
}
