//! A server on smol. Its tasks run after the response, on smol too. Nothing has to be configured.
//!
//! Run it with `cargo run --example smol --features smol`.

use std::{io, time::Duration};

use smol::{
    channel::{Receiver, bounded},
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn main() -> io::Result<()> {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (confirm, confirmed) = bounded(1);
        let server = smol::spawn(async move {
            let (connection, _) = listener.accept().await?;
            // One connection is one request here. `failed_if` is what makes an error of it known to its tasks.
            after::scope(answer(connection, confirmed))
                .failed_if(Result::is_err)
                .await
        });

        let mut said = String::new();
        let mut client = TcpStream::connect(address).await?;
        client.read_to_string(&mut said).await?;
        println!("the client has the whole response: {said:?}");
        // Only now can the deferred task end: had it run before the response, the client would still be waiting.
        let _ = confirm.send(()).await;
        server.await?;

        let report = after::shutdown(Duration::from_secs(5)).await;
        println!("{report}");
        assert_eq!(said, "hello from smol");
        assert_eq!((report.stats().completed, report.stats().pending), (1, 0));
        Ok(())
    })
}

async fn answer(mut connection: TcpStream, confirmed: Receiver<()>) -> io::Result<()> {
    let client = connection.peer_addr()?;
    after::task("audit").defer(async move {
        confirmed.recv().await?;
        let thread = std::thread::current();
        println!(
            "audit: responded to {client}, on thread {:?}",
            thread.name()
        );
        after::Ok(())
    });
    connection.write_all(b"hello from smol").await?;
    connection.close().await
}
