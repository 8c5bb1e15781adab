//! The server's side: it prints its address, and then its counts for each line that it reads. When there is no more to
//! read, whoever has started it is gone, and so is the server.

use std::{
    io::{self, BufRead, Write},
    net::{Ipv4Addr, SocketAddr},
    process, thread,
};

use tokio::{net::TcpListener, runtime::Builder};

use crate::{Failure, cores, routes::routes, usage::Counts, variant::Variant, work::Task};

/// `workers` is 0 for a current-thread runtime. All threads stay on `core`, if one is given.
pub(crate) fn serve(
    variant: Variant,
    workers: usize,
    task: Task,
    core: Option<usize>,
) -> Result<(), Failure> {
    if let Some(core) = core {
        cores::keep_to(core)?;
    }
    let runtime = match workers {
        0 => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()?,
    };
    runtime.block_on(async {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any_port).await?;
        println!("{}", listener.local_addr()?);
        // Its thread sleeps in a read: it costs the measured nothing.
        thread::spawn(answer_questions);
        axum::serve(listener, routes(variant, task)).await?;
        Ok(())
    })
}

fn answer_questions() {
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        let told = line.and_then(|_| writeln!(out, "{}", Counts::now()?));
        if told.and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    process::exit(0);
}
