//! One thread serves many invocations, and each may use its own I/O only. What another invocation's code wakes would go on
//! in that one's context, and its timers and fetches would end with that one.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use worker::{
    Delay,
    js_sys::{Function, Promise},
    send::SendWrapper,
    wasm_bindgen::JsValue,
    wasm_bindgen_futures::JsFuture,
};

/// Polls a future in the context of the invocation that has begun to poll it, whoever wakes it.
///
/// A wake-up resolves a promise of that invocation, and the platform continues promises where they were made.
pub(crate) async fn in_own_context<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let mut resolve = None;
        let promise = Promise::new(&mut |resolved, _| resolve = Some(resolved));
        let waker = Waker::from(Arc::new(Resolve(SendWrapper::new(resolve))));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        // An invocation that waits for nothing of its own is taken for one that hangs, and is ended: so it has a timer.
        let mut woken = pin!(JsFuture::from(promise));
        let mut alive = pin!(Delay::from(Duration::from_secs(1)));
        poll_fn(|context| {
            let woken = woken.as_mut().poll(context).map(|_| ());
            if woken.is_ready() {
                return woken;
            }
            alive.as_mut().poll(context)
        })
        .await;
    }
}

struct Resolve(SendWrapper<Option<Function>>);

impl Wake for Resolve {
    fn wake(self: Arc<Self>) {
        if let Some(resolve) = &*self.0 {
            let _ = resolve.call0(&JsValue::UNDEFINED);
        }
    }
}
