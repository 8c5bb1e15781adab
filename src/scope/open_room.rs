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
    /// Waits for room for what was deferred so far, on a Runner that pushes back; resolves at once on all others.
    ///
    /// To be awaited before the answer is given out. With [`Overflow::Backpressure`](crate::Overflow::Backpressure) it
    /// resolves when there is room for the tasks, first come, first served. If more is deferred after that, call it again,
    /// and it waits for the rest. What was never waited for, by the end, counts as what can't wait. With nothing deferred,
    /// without limits, and in a deferred task, it resolves at once.
    ///
    /// Others wait for the end of each such scope for 10 ms at the most, and then pass as if no room was kept for it.
    /// At its end it has that room again; only a scope that ends as `Cancelled` may find it gone. Dropping the future
    /// gives up its place in the line, and nothing else. Ending the scope uses what it has waited for;
    /// [`hold`](OpenScope::hold) gives that up.
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
    /// let answer = request.enter(|| {
    ///     after::defer(async { println!("the answer is out") });
    ///     "the answer"
    /// });
    /// request.ready().await;
    /// println!("{answer}");
    /// request.end(Outcome::Finished);
    /// # runner.drain().await;
    /// # });
    /// ```
    pub async fn ready(&mut self) {
        let waiting = Waiting { scope: self };
        poll_fn(|cx| waiting.scope.poll_ready(cx)).await;
        waiting.scope.answered();
    }

    /// As [`ready`](OpenScope::ready), for a future of one's own that has the scope in it.
    ///
    /// While it is pending the scope stands in the line, with what was deferred when it came, and wakes the waker of
    /// the last call when there is room. It leaves the line when it ends, is held or dropped.
    ///
    /// Others wait for the room that it was given until the request ends, or until [`answered`](OpenScope::answered)
    /// says that the answer is out: call that if the request goes on then, as with a body that is still to be read.
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
    /// /// Resolves when the answer may be given out.
    /// struct Answering {
    ///     request: Option<OpenScope>,
    ///     answer: &'static str,
    /// }
    ///
    /// impl Future for Answering {
    ///     type Output = (&'static str, OpenScope);
    ///
    ///     fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
    ///         let request = self.request.as_mut().expect("polled after completion");
    ///         ready!(request.poll_ready(cx));
    ///         let request = self.request.take().expect("it was there");
    ///         Poll::Ready((self.answer, request))
    ///     }
    /// }
    ///
    /// # futures::executor::block_on(async {
    /// let mut request = after::open();
    /// request.enter(|| after::defer(async { println!("the answer is out") }));
    /// let request = Some(request);
    /// let (answer, request) = Answering { request, answer: "the answer" }.await;
    /// println!("{answer}");
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

    /// The answer is out, and the request goes on: how long it takes from here on may be up to a client.
    ///
    /// So others wait for the room that [`poll_ready`](OpenScope::poll_ready) was given for a short time only, as
    /// [`ready`](OpenScope::ready) says; that calls this itself. Does nothing where there is no such room, and a second
    /// time. Not needed where the request ends at once, or is [handed over](OpenScope::hand_over): it uses its room then.
    ///
    /// ```
    /// use std::task::{Context, Poll};
    ///
    /// /// The head of an answer, whose body is still to be read.
    /// fn poll_head(request: &mut after::OpenScope, cx: &mut Context<'_>) -> Poll<&'static str> {
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
