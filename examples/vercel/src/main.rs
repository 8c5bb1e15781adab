//! A function on Vercel whose clients don't wait for its audit log.
//!
//! The platform may stop the instance when it has heard of the end of an invocation. `wait_until` delays that until the
//! batch has ended, and the runtime waits for it when it is told to stop.

use std::{env, io, time::Duration};

use after::Outcome;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vercel_runtime::{AppState, Error, Request, run, service_fn};

/// All that `after` needs: a scope around the handler, and its batch to `wait_until`.
async fn function(request: Request, state: AppState) -> Result<String, Error> {
    let (response, batch) = after::scope(handler(request))
        .failed_if(Result::is_err)
        .held()
        .await;
    state.wait_until(batch);
    response
}

async fn handler(request: Request) -> Result<String, Error> {
    match request.uri().path() {
        "/order" => {
            after::task("audit").defer(audit());
            Ok("ordered".into())
        }
        "/sold-out" => {
            after::task("audit").defer(audit());
            Err("sold out".into())
        }
        // What the platform does not know of, for the tests.
        "/spawned" => {
            tokio::spawn(audit());
            Ok("ordered".into())
        }
        _ => Err("not found".into()),
    }
}

/// Tells the audit service, and waits for its answer.
async fn audit() -> io::Result<()> {
    let service = env::var("AUDIT").map_err(io::Error::other)?;
    let mut service = TcpStream::connect(service).await?;
    let outcome = after::outcome().map_or("unknown", Outcome::as_str);
    service.write_all(format!("{outcome}\n").as_bytes()).await?;
    service.read_u8().await?;
    println!("the audit of what has {outcome} is stored");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Ends at SIGTERM, when all that was given to `wait_until` has ended.
    run(service_fn(function)).await?;
    // What else there is: late work of handles.
    println!("{}", after::shutdown(Duration::from_secs(5)).await);
    Ok(())
}
