//! A Cloudflare Worker whose clients don't wait for its audit log: `examples/workers/test.sh` runs it under workerd.
//!
//! There is one thread, so batches run on JavaScript's event loop, and `wait_until` keeps the invocation alive until the
//! batch has ended. Reports go to `console.error`.

mod checks;
mod own_context;

use std::time::Duration;

use after::{Runner, spawner};
use worker::{
    Context, Env, Error, Fetch, Method, Request, Response, Result, console_log, event,
    send::SendFuture, wasm_bindgen_futures::spawn_local,
};

/// Once for each instance of the Worker.
#[event(start)]
fn start() {
    // For what is not in the batch of a request: late work of a handle, tasks that are
    // `spawned`.
    let runner = Runner::builder()
        .spawner(spawner::from_fn(|batch| spawn_local(batch)))
        .task_timeout(Duration::from_secs(10))
        .build();
    runner.install().expect("no request came before");
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    let work = async {
        match request.path().as_str() {
            "/order" => order(&env).await,
            path => checks::route(path, &context).await,
        }
    };
    let (response, batch) = after::scope(work).failed_if(Result::is_err).held().await;
    context.wait_until(batch);
    response
}

async fn order(env: &Env) -> Result<Response> {
    let service = env.var("AUDIT")?.to_string();
    // Futures of JavaScript are not `Send`, and tasks must be. There is one thread, so
    // this wrapper of `worker` is sound.
    after::task("audit").defer(SendFuture::new(async move {
        let request = Request::new(&service, Method::Post)?;
        let stored = Fetch::Request(request).send().await?;
        console_log!("audit: {}, {:?}", stored.status_code(), after::outcome());
        Ok::<_, Error>(())
    }));
    Response::ok("ordered")
}
