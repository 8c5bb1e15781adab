//! A request that is polled by hand.

use std::{
    future::Future,
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

/// A future that is pending for the given number of polls.
pub struct PendingFor(pub u32);

impl Future for PendingFor {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
        if self.0 == 0 {
            return Poll::Ready(black_box(1));
        }
        self.0 = black_box(self.0) - 1;
        Poll::Pending
    }
}

/// Makes a request and polls it as a runtime does: where it was made, and knowing nothing of what is in it.
// Both are arranged: not inlined, the request would be moved first, which would be half of the figure; and inlined into
// the loop without the black box, the compiler would see through the rival's pointers, as it can't in a server.
#[inline(always)]
pub fn poll_to_end(future: impl Future<Output = u32>) -> u32 {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = black_box(future.as_mut()).poll(&mut cx) {
            return value;
        }
    }
}
