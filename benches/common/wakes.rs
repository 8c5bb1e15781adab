//! Tasks that are woken, and the driver that wakes them: the same for every candidate and every runtime.
//!
//! A task waits at its gate as often as it is to be woken, and tells the driver each time that it waits, and when it
//! ends. The driver sleeps meanwhile: whoever is the last that it waits for wakes it. So a row has the same wake-ups in
//! the same order with every candidate, nothing is polled in a loop, and a task is never woken before it waits.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// Where the tasks of one request and their driver meet. Leaked, so that tasks are `'static` and carry a pointer.
pub struct Meeting {
    arrived: Arrivals,
    gates: Box<[Gate]>,
    /// Tasks wake themselves, and wait at no gate.
    yields: bool,
}

// Apart from the gates: on several threads, tasks count here while others wait there.
#[repr(align(128))]
#[derive(Default)]
struct Arrivals {
    count: AtomicU64,
    expected: AtomicU64,
    driver: AtomicWaker,
}

#[derive(Default)]
struct Gate {
    opened: AtomicU32,
    waker: AtomicWaker,
}

/// In which turns the tasks of a request are woken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of them, then all of them again when all have been polled.
    AtOnce,
    /// One, then the next when that one has been polled.
    Staggered,
    /// Each wakes itself. For a meeting of such tasks.
    Itself,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::AtOnce => "at_once",
            Mode::Staggered => "staggered",
            Mode::Itself => "itself",
        }
    }
}

/// A task: waits `left` times and ends.
pub struct Woken {
    meeting: &'static Meeting,
    gate: u32,
    left: u32,
    waits: bool,
}

impl Meeting {
    pub fn leaked(most_tasks: usize) -> &'static Meeting {
        Box::leak(Box::new(Meeting {
            arrived: Arrivals::default(),
            gates: (0..most_tasks).map(|_| Gate::default()).collect(),
            yields: false,
        }))
    }

    /// Of tasks that wake themselves.
    pub fn of_yielding() -> &'static Meeting {
        Box::leak(Box::new(Meeting {
            arrived: Arrivals::default(),
            gates: Box::default(),
            yields: true,
        }))
    }

    pub fn task(&'static self, gate: usize, wakes: u32) -> Woken {
        Woken {
            meeting: self,
            gate: gate as u32,
            left: wakes,
            waits: false,
        }
    }

    /// From now on, so many more arrivals are waited for.
    pub fn expect(&self, arrivals: u64) {
        // Relaxed: the tasks that will arrive are made, or woken, after this, and both order it.
        self.arrived.expected.fetch_add(arrivals, Relaxed);
    }

    pub async fn all_arrived(&self) {
        let Arrivals {
            count,
            expected,
            driver,
        } = &self.arrived;
        // Acquire, with the AcqRel in `arrive`: what the tasks did is done.
        let done = || count.load(Acquire) == expected.load(Relaxed);
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            driver.register(cx.waker());
            if done() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Wakes the tasks behind the first gates, as often as they wait.
    pub async fn wake(&self, tasks: usize, wakes: u32, mode: Mode) {
        for _ in 0..wakes {
            match mode {
                Mode::AtOnce => {
                    self.expect(tasks as u64);
                    self.gates[..tasks].iter().for_each(Gate::open);
                    self.all_arrived().await;
                }
                Mode::Staggered => {
                    for gate in &self.gates[..tasks] {
                        self.expect(1);
                        gate.open();
                        self.all_arrived().await;
                    }
                }
                Mode::Itself => {}
            }
        }
    }

    /// What the driver costs by itself: the same waiting and waking, with nobody behind the gates.
    pub async fn wake_nobody(&self, tasks: usize, wakes: u32, mode: Mode) {
        let (steps, arrivals) = match mode {
            Mode::AtOnce => (1, tasks),
            Mode::Staggered => (tasks, 1),
            Mode::Itself => return,
        };
        for _ in 0..wakes {
            for _ in 0..steps {
                self.expect(arrivals as u64);
                let mut sleeping = false;
                poll_fn(|cx| {
                    self.arrived.driver.register(cx.waker());
                    if sleeping {
                        return Poll::Ready(());
                    }
                    sleeping = true;
                    (0..arrivals).for_each(|_| self.arrive());
                    Poll::Pending
                })
                .await;
            }
        }
    }

    fn arrive(&self) {
        let Arrivals {
            count,
            expected,
            driver,
        } = &self.arrived;
        if count.fetch_add(1, AcqRel) + 1 == expected.load(Relaxed) {
            driver.wake();
        }
    }
}

impl Gate {
    fn open(&self) {
        self.opened.store(1, Relaxed);
        self.waker.wake();
    }

    /// Passes it, if it is open.
    #[inline]
    fn pass(&self) -> bool {
        self.opened.load(Relaxed) == 1 && {
            self.opened.store(0, Relaxed);
            true
        }
    }
}

impl Future for Woken {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.left == 0 {
            self.meeting.arrive();
            return Poll::Ready(());
        }
        if self.meeting.yields {
            self.left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let gate = &self.meeting.gates[self.gate as usize];
        if self.waits {
            if !gate.pass() {
                // Polled for another's sake. The waker may be another one by now.
                gate.waker.register(cx.waker());
                if !gate.pass() {
                    return Poll::Pending;
                }
            }
            self.left -= 1;
            if self.left == 0 {
                self.meeting.arrive();
                return Poll::Ready(());
            }
        }
        self.waits = true;
        gate.waker.register(cx.waker());
        // After the registration: the driver opens the gate when this has been counted.
        self.meeting.arrive();
        Poll::Pending
    }
}
