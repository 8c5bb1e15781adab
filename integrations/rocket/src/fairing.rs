//! What ends the scope with the body.

use after::Outcome;
use rocket::{
    Data, Orbit, Request, Response, Rocket, async_trait,
    fairing::{Fairing, Info, Kind},
    http::Method,
};

use crate::{After, body::AfterBody, is_success, route::Kept};

/// Whether it was a HEAD request when it came: Rocket routes those as GET, if need be.
struct WasHead(bool);

#[async_trait]
impl Fairing for After {
    fn info(&self) -> Info {
        Info {
            name: "after",
            kind: Kind::Request | Kind::Response | Kind::Shutdown,
        }
    }

    async fn on_request(&self, request: &mut Request<'_>, _data: &mut Data<'_>) {
        let was_head = request.method() == Method::Head;
        request.local_cache(|| WasHead(was_head));
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let kept = Kept::of(request);
        let Some(scope) = kept.take() else { return };
        let complete = match is_success(response.status()) {
            true => Outcome::Finished,
            false => Outcome::Failed,
        };
        let was_head = request.local_cache(|| WasHead(false)).0;
        if was_head || response.body().is_none() {
            // Nothing of it is read. It ends with the request, when the head was sent.
            kept.put(scope, complete);
            return;
        }
        let chunk_size = response.body().max_chunk_size();
        let size = response.body_mut().size().await;
        let body = AfterBody::new(response.body_mut().take(), scope, complete, size);
        match size {
            Some(size) => response.set_sized_body(size, body),
            None => response.set_streamed_body(body),
        }
        response.set_max_chunk_size(chunk_size);
    }

    /// What awaits `after::stopping` ends, as the server is about to.
    async fn on_shutdown(&self, _rocket: &Rocket<Orbit>) {
        match &self.runner {
            Some(runner) => runner.stop(),
            None => after::stop(),
        }
    }
}
