//! The hand-over written by hand: the least that runs the tasks of a request after it, behind the same two calls.
//!
//! A vector of boxed futures behind a thread-local, one spawn for all, a first poll that starts nothing (so that the
//! response goes first), a panic that is caught, and a counter to know when all is done. It names nothing, knows no
//! outcome, has no limits, reports nothing, loses what is deferred inside a task, and polls every task at each wake-up.

use std::{
    cell::RefCell,
    future::Future,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

use super::{runtimes::Runtime, wakes::Meeting, ways::Way};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    static CURRENT: RefCell<Option<Vec<Task>>> = const { RefCell::new(None) };
}

static PENDING: AtomicU64 = AtomicU64::new(0);
static PANICKED: AtomicU64 = AtomicU64::new(0);
static DRAINED: AtomicWaker = AtomicWaker::new();

fn defer(task: impl Future<Output = ()> + Send + 'static) {
    CURRENT.with_borrow_mut(|current| {
        let tasks = current.as_mut().expect("there is a request");
        tasks.push(Box::pin(task));
    });
}

pin_project_lite::pin_project! {
    struct Scope<F, R> {
        #[pin]
        request: F,
        tasks: Vec<Task>,
        runtime: PhantomData<fn() -> R>,
    }
}

impl<F: Future, R: Runtime> Future for Scope<F, R> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let outer = CURRENT.replace(Some(std::mem::take(this.tasks)));
        let polled = this.request.poll(cx);
        let tasks = CURRENT.replace(outer).expect("put there above");
        if polled.is_pending() {
            *this.tasks = tasks;
            return polled;
        }
        if !tasks.is_empty() {
            PENDING.fetch_add(tasks.len() as u64, Relaxed);
            R::spawn(Batch {
                tasks,
                started: false,
            });
        }
        polled
    }
}

struct Batch {
    tasks: Vec<Task>,
    started: bool,
}

impl Future for Batch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.started {
            self.started = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = self.tasks.len();
        self.tasks.retain_mut(|task| {
            match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
                Ok(polled) => polled.is_pending(),
                Err(_) => {
                    PANICKED.fetch_add(1, Relaxed);
                    false
                }
            }
        });
        let ended = (before - self.tasks.len()) as u64;
        // AcqRel, with the Acquire in `drained`: what the tasks did is done.
        if ended > 0 && PENDING.fetch_sub(ended, AcqRel) == ended {
            DRAINED.wake();
        }
        match self.tasks.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Until nothing is pending. For one that waits at a time.
pub async fn drained() {
    std::future::poll_fn(|cx| {
        let done = || PENDING.load(Acquire) == 0;
        if done() {
            return Poll::Ready(());
        }
        DRAINED.register(cx.waker());
        match done() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// By hand.
pub struct ByHand<R> {
    runtime: PhantomData<fn() -> R>,
}

impl<R> Default for ByHand<R> {
    fn default() -> Self {
        ByHand {
            runtime: PhantomData,
        }
    }
}

impl<R: Runtime> Way for ByHand<R> {
    const NAME: &'static str = "by hand";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        let request = async move {
            for task in 0..tasks {
                defer(meeting.task(task, wakes));
            }
        };
        Scope {
            request,
            tasks: Vec::new(),
            runtime: PhantomData::<fn() -> R>,
        }
        .await;
    }
}
