//! An open scope waits for room before its answer is out, on a Runner that pushes back.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use super::open::OpenScope;
use crate::{
    limit::Room,
    runner::{ScopeState, current},
};

impl OpenScope {
    /// Waits until the queue has capacity for what was deferred so far, under backpressure.
    ///
    /// Await it before the response is given out. With [`Overflow::Backpressure`](crate::Overflow::Backpressure) it
    /// resolves when the queue has capacity for the tasks, first come, first served. If more is deferred after that, call it
    /// again, and it waits for the rest. Tasks that were never waited for, by the end, count as tasks with no response to
    /// hold back. With nothing deferred, without limits, and in a deferred task, it resolves at once.
    ///
    /// The capacity is reserved until the scope ends. Others wait for the end of each such scope for at most 10 ms, and then
    /// pass as if nothing was reserved. At its end it has that capacity again; only a scope that ends as `Cancelled` may find
    /// it taken. Ending the scope uses what it has waited for; [`hold`](OpenScope::hold) gives that up.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future gives up the place in the queue, and loses no task. A later call starts anew.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use after::{Outcome, Overflow, Runner};
    ///
    /// let runner = Runner::builder()
    ///     .max_running(64)
    ///     .max_waiting(1_000)
    ///     .overflow(Overflow::Backpressure)
    ///     .build();
    /// let mut request = runner.open();
    /// let response = request.enter(|| {
    ///     after::defer(async { println!("the response is out") });
    ///     "the response"
    /// });
    /// request.ready().await; // slows the client down when the queue is full
    /// println!("{response}");
    /// request.end(Outcome::Finished);
    /// # runner.drain().await;
    /// # });
    /// ```
    pub async fn ready(&mut self) {
        let waiting = Waiting { scope: self };
        poll_fn(|cx| waiting.scope.poll_ready(cx)).await;
        waiting.scope.answered();
    }

    /// Waits like [`ready`](OpenScope::ready), in the `poll` of your own future that has the scope in it.
    ///
    /// While it is pending the scope is in the queue, with what was deferred when it came, and wakes the waker of the last
    /// call when there is capacity. It leaves the queue when it ends, is held or dropped.
    ///
    /// Others wait for the capacity that was reserved for it until the request ends, or until
    /// [`answered`](OpenScope::answered) is called: do that when the response is out and the request goes on, as with a body
    /// that is still to be read.
    ///
    /// ```
    /// use std::{
    ///     future::Future,
    ///     pin::Pin,
    ///     task::{Context, Poll, ready},
    /// };
    ///
    /// use after::{OpenScope, Outcome};
    ///
    /// /// Resolves when the response may be given out.
    /// struct Responding {
    ///     request: Option<OpenScope>,
    ///     response: &'static str,
    /// }
    ///
    /// impl Future for Responding {
    ///     type Output = (&'static str, OpenScope);
    ///
    ///     fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
    ///         let request = self.request.as_mut().expect("polled after completion");
    ///         ready!(request.poll_ready(cx));
    ///         let request = self.request.take().expect("it was there");
    ///         Poll::Ready((self.response, request))
    ///     }
    /// }
    ///
    /// # futures::executor::block_on(async {
    /// let mut request = after::open();
    /// request.enter(|| after::defer(async { println!("the response is out") }));
    /// let request = Some(request);
    /// let (response, request) = Responding { request, response: "the response" }.await;
    /// println!("{response}");
    /// request.end(Outcome::Finished);
    /// # after::Runner::global().drain().await;
    /// # });
    /// ```
    #[inline]
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waits {
            let room = match self.attached {
                // What joins tasks that were handed over already can't wait.
                true => None,
                false => self.registry().room(),
            };
            return match room {
                None => Poll::Ready(()),
                Some(room) => self.poll_room(room, cx),
            };
        }
        self.wait_on(cx)
    }

    #[cold]
    fn wait_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.leave_line() {
            Some(room) => self.poll_room(room, cx),
            None => Poll::Ready(()),
        }
    }

    /// What it is given is kept until the end of the scope.
    #[cold]
    fn poll_room(&mut self, mut room: Room, cx: &mut Context<'_>) -> Poll<()> {
        // Out of the registry meanwhile, because the waker is the user's code. If that panics the turn is given up.
        if room.poll(cx).is_pending() {
            self.registry()
                .peek(|state| state.extras_mut().room = Some(room));
            self.waits = true;
            return Poll::Pending;
        }
        let mut place = room.take();
        let earlier = self.registry().peek(ScopeState::take_place);
        if let Some(earlier) = earlier.flatten() {
            place = place.and(earlier);
        }
        self.registry()
            .peek(|state| state.extras_mut().place = Some(place));
        self.keeps = true;
        Poll::Ready(())
    }

    /// Notes that the response is out while the request goes on, so that a slow client does not hold back others.
    ///
    /// Others then wait for the capacity reserved by [`poll_ready`](OpenScope::poll_ready) for a short time only, as
    /// [`ready`](OpenScope::ready) says; that calls this itself. Does nothing where nothing is reserved, and a second
    /// time. Not needed where the request ends at once, or is [handed over](OpenScope::hand_over).
    ///
    /// ```
    /// use std::task::{Context, Poll};
    ///
    /// use after::OpenScope;
    ///
    /// /// The head of a response, whose body is still to be read.
    /// fn poll_head(request: &mut OpenScope, cx: &mut Context<'_>) -> Poll<&'static str> {
    ///     std::task::ready!(request.poll_ready(cx));
    ///     request.answered();
    ///     Poll::Ready("200 OK")
    /// }
    /// # let mut request = after::open();
    /// # let mut cx = Context::from_waker(std::task::Waker::noop());
    /// # assert!(poll_head(&mut request, &mut cx).is_ready());
    /// # request.end(after::Outcome::Finished);
    /// ```
    #[inline]
    pub fn answered(&mut self) {
        if self.keeps {
            self.lend();
        }
    }

    #[cold]
    fn lend(&mut self) {
        self.keeps = false;
        // Out of the registry: whom this wakes is the user's code.
        let place = self.registry().peek(ScopeState::take_place);
        if let Some(mut place) = place.flatten() {
            place.lend(!current::in_scope());
            self.registry()
                .peek(|state| state.extras_mut().place = Some(place));
        }
    }

    pub(super) fn leave_line(&mut self) -> Option<Room> {
        self.waits = false;
        let room = |state: &mut ScopeState| state.extras_if_any()?.room.take();
        self.registry().peek(room).flatten()
    }
}

/// Gives up the place in the line when it is dropped.
struct Waiting<'a> {
    scope: &'a mut OpenScope,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.scope.waits {
            drop(self.scope.leave_line());
        }
    }
}
