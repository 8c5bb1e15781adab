//! An actix-web service in scopes of `after`. Its futures are not `Send`, and need not be: only the tasks are.
//!
//! Run it with `cargo run -p actix-example`. It sends requests to itself, and ends.

use std::{error::Error, process, rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    App, HttpServer, Responder,
    rt::task::{spawn_blocking, yield_now},
    web,
};
use after::{Runner, spawner::Tokio};
use after_actix::After;
use tokio::sync::Notify;

async fn hello(answer_read: web::Data<Notify>) -> impl Responder {
    // Held over an await, so this handler's future is not `Send`.
    let name: Rc<str> = "actix".into();
    let answer_read = answer_read.into_inner();
    after::task("audit").defer(async move {
        // Ends only when the client has read the response: had it run before, the client would still be waiting.
        answer_read.notified().await;
        println!("audit, after the response: {:?}", after::outcome());
    });
    yield_now().await;
    format!("hello from {name}")
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Each worker of actix has a runtime of its own, which goes when the server stops, and takes what runs on it along:
    // deferred work would be lost. So it gets this runtime, which is still there for the shutdown below.
    Runner::new(Tokio::current()).install()?;

    let answer_read = Arc::new(Notify::new());
    let data = web::Data::from(answer_read.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .route("/", web::get().to(hello))
            // Outermost: the request ends with its response body, or when nobody reads that.
            .wrap(After::new())
    })
    .workers(1)
    // In seconds: how long the requests in progress hold `stop`.
    .shutdown_timeout(5)
    .bind("127.0.0.1:0")?;
    let url = format!("http://{}/", server.addrs()[0]);
    let server = server.run();
    let control = server.handle();
    let server = actix_web::rt::spawn(server);

    let client = spawn_blocking(move || {
        let config = ureq::Agent::config_builder()
            // The server is here, whatever proxy the environment names.
            .proxy(None)
            // If the task held back the response, this ends the wait.
            .timeout_global(Some(Duration::from_secs(10)));
        let agent = ureq::Agent::new_with_config(config.build());
        agent.get(&url).call()?.body_mut().read_to_string()
    });
    let answer = client.await??;
    println!("the client has read: {answer:?}");
    // At a signal: first what ends at `stopping`, a stream say, then the server that waits for it.
    after::stop();
    control.stop(true).await;
    server.await??;
    println!("the server has stopped, with its workers");

    // The task has waited for this all along, and has outlived its worker.
    let before = Runner::global().stats();
    answer_read.notify_one();
    let report = after::shutdown(Duration::from_secs(5)).await;
    println!("{report}");

    assert_eq!(answer, "hello from actix");
    assert_eq!((before.completed, before.pending), (0, 1));
    assert_eq!((report.stats().completed, report.stats().pending), (1, 0));
    // `exit`, because a runtime that is dropped waits for stuck closures without a limit.
    process::exit(if report.is_clean() { 0 } else { 2 })
}
