//! What the instruction guard counts: one scenario, repeated. Run by `benches/instructions.sh` under callgrind.
//!
//! `instructions <scenario> <repetitions> <padding>`. The script runs each scenario twice, with different repetitions, and
//! divides the difference of the counts: what the process does once is not in the figure. The padding is an allocation
//! that stays: it moves the heap, whose layout alone moves a count by several per cent.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, Waker},
};

use tokio::task::yield_now;

/// Polls of one pending request, so that a poll stands out from making and ending the scope.
const PENDING_POLLS: u32 = 100;

static DONE: AtomicU64 = AtomicU64::new(0);

struct PendingFor(u32);

impl Future for PendingFor {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 = black_box(self.0) - 1;
        Poll::Pending
    }
}

#[inline(never)]
fn poll_to_end(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    while future.as_mut().poll(&mut cx).is_pending() {}
}

/// A request with so many tasks, then the runtime until they are done.
async fn request(tasks: u64) {
    let done = DONE.load(Relaxed) + tasks;
    after::scope(async {
        for _ in 0..tasks {
            after::defer(async {
                DONE.fetch_add(1, Relaxed);
            });
        }
    })
    .await;
    while DONE.load(Relaxed) < done {
        yield_now().await;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo bench` runs this without arguments: there is nothing to print then.
    let [_, scenario, repetitions, padding] = &arguments[..] else {
        return;
    };
    let padding: usize = padding.parse().expect("a number of bytes");
    let _padding = black_box(vec![0_u8; padding]);
    let repetitions: u64 = repetitions.parse().expect("a number of repetitions");
    let tasks = match scenario.as_str() {
        "nothing_deferred" => {
            for _ in 0..repetitions {
                poll_to_end(after::scope(PendingFor(0)));
            }
            return;
        }
        "pending_poll" => {
            for _ in 0..repetitions / u64::from(PENDING_POLLS) {
                poll_to_end(after::scope(PendingFor(PENDING_POLLS)));
            }
            return;
        }
        "one_task" => 1,
        "three_tasks" => 3,
        "eight_tasks" => 8,
        // Not guarded: so many tasks.
        number => number.parse().expect("a scenario, or a number of tasks"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for _ in 0..repetitions {
            request(tasks).await;
        }
    });
}
