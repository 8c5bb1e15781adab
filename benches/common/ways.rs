//! The ways to run the tasks of a request in the background.

use std::{
    future::Future,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use futures::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::{
    measure::Candidate,
    runtimes::Runtime,
    wakes::{Meeting, Mode},
};

/// One way; a value of it serves the requests of one sample.
pub trait Way: Default + Send + 'static {
    const NAME: &'static str;

    /// A request that leaves so many tasks.
    fn request(
        &mut self,
        meeting: &'static Meeting,
        tasks: usize,
        wakes: u32,
    ) -> impl Future<Output = ()> + Send;
}

/// The requests of a row.
#[derive(Clone, Copy)]
pub struct Requests {
    pub tasks: usize,
    pub wakes: u32,
    pub mode: Mode,
    /// How many requests there are before the driver waits for their tasks.
    pub in_flight: u32,
}

impl Requests {
    /// Each waits for the tasks of the one before.
    pub const fn one_at_a_time(tasks: usize, wakes: u32, mode: Mode) -> Requests {
        Requests {
            tasks,
            wakes,
            mode,
            in_flight: 1,
        }
    }
}

/// Runs so many bursts of requests, each until their tasks have ended.
pub async fn drive<W: Way>(mut way: W, meeting: &'static Meeting, bursts: u32, of: Requests) {
    let Requests {
        tasks,
        wakes,
        mode,
        in_flight,
    } = of;
    for _ in 0..bursts {
        meeting.expect(u64::from(in_flight) * tasks as u64);
        for _ in 0..in_flight {
            way.request(meeting, tasks, wakes).await;
        }
        meeting.all_arrived().await;
        meeting.wake(tasks, wakes, mode).await;
    }
}

pub fn candidate<'a, R: Runtime, W: Way>(
    runtime: &'a R,
    meeting: &'static Meeting,
    requests: Requests,
) -> Candidate<'a> {
    Candidate::new(W::NAME, move |bursts| {
        runtime.drive(drive(W::default(), meeting, bursts, requests));
    })
}

/// The driver and no tasks: what of every figure is the measurement's own.
pub fn driver_alone<'a, R: Runtime>(
    runtime: &'a R,
    meeting: &'static Meeting,
    requests: Requests,
) -> Candidate<'a> {
    let Requests {
        tasks, wakes, mode, ..
    } = requests;
    Candidate::new("driver alone", move |bursts| {
        runtime.drive(async move {
            for _ in 0..bursts {
                meeting.wake_nobody(tasks, 1, Mode::AtOnce).await;
                meeting.wake_nobody(tasks, wakes, mode).await;
            }
        });
    })
}

macro_rules! way {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<R> {
            runtime: PhantomData<fn() -> R>,
        }

        impl<R> Default for $name<R> {
            fn default() -> Self {
                $name { runtime: PhantomData }
            }
        }
    };
}

way!(
    /// A scope, and `defer` for each task.
    Deferred
);
way!(
    /// A spawn for each task, and a counter beside them, to know when all is done.
    Spawned
);
way!(
    /// One spawn of the `join!` of all.
    JoinMacro
);
way!(
    /// One spawn of the `join_all` of all.
    JoinAll
);
way!(
    /// One spawn of a `FuturesUnordered` of all.
    Unordered
);

impl<R: Runtime> Way for Deferred<R> {
    const NAME: &'static str = "after";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        R::scope(async move {
            for task in 0..tasks {
                after::defer(meeting.task(task, wakes));
            }
        })
        .await;
    }
}

static RUNNING: AtomicU64 = AtomicU64::new(0);

impl<R: Runtime> Way for Spawned<R> {
    const NAME: &'static str = "spawn";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        for task in 0..tasks {
            RUNNING.fetch_add(1, Relaxed);
            let task = meeting.task(task, wakes);
            R::spawn(async move {
                task.await;
                RUNNING.fetch_sub(1, Relaxed);
            });
        }
    }
}

/// A spawn for each task, of what a `TaskTracker` tracks.
pub struct Tracked<R> {
    tracker: TaskTracker,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Default for Tracked<R> {
    fn default() -> Self {
        Tracked {
            tracker: TaskTracker::new(),
            runtime: PhantomData,
        }
    }
}

impl<R: Runtime> Way for Tracked<R> {
    const NAME: &'static str = "TaskTracker";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        for task in 0..tasks {
            R::spawn(self.tracker.track_future(meeting.task(task, wakes)));
        }
    }
}

/// A `JoinSet` of the server's, which is emptied of what has ended. tokio only.
#[derive(Default)]
pub struct InJoinSet {
    set: JoinSet<()>,
}

impl Way for InJoinSet {
    const NAME: &'static str = "JoinSet";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        while self.set.try_join_next().is_some() {}
        for task in 0..tasks {
            self.set.spawn(meeting.task(task, wakes));
        }
    }
}

impl<R: Runtime> Way for JoinMacro<R> {
    const NAME: &'static str = "join!";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        macro_rules! join {
            ($($task:literal)*) => {
                R::spawn(async move {
                    tokio::join!($(meeting.task($task, wakes)),*);
                })
            };
        }
        match tasks {
            1 => R::spawn(meeting.task(0, wakes)),
            3 => join!(0 1 2),
            8 => join!(0 1 2 3 4 5 6 7),
            16 => join!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
            _ => unreachable!("nobody writes a join! of {tasks}"),
        }
    }
}

impl<R: Runtime> Way for JoinAll<R> {
    const NAME: &'static str = "join_all";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        R::spawn(async move {
            join_all((0..tasks).map(|task| meeting.task(task, wakes))).await;
        });
    }
}

impl<R: Runtime> Way for Unordered<R> {
    const NAME: &'static str = "FuturesUnordered";

    async fn request(&mut self, meeting: &'static Meeting, tasks: usize, wakes: u32) {
        R::spawn(async move {
            let tasks = (0..tasks).map(|task| meeting.task(task, wakes));
            let mut tasks: FuturesUnordered<_> = tasks.collect();
            while tasks.next().await.is_some() {}
        });
    }
}
