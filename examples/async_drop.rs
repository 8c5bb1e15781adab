//! Clean-up that has to await, from a type that has only `Drop`: when its request ends, and when it is cancelled.
//!
//! Run it with `cargo run --example async_drop`.

use std::{
    env, fs,
    future::pending,
    io,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use tokio::time::timeout;

/// A file that must not outlive the request it belongs to.
struct Upload {
    path: PathBuf,
}

impl Upload {
    async fn receive(path: &Path) -> io::Result<Self> {
        tokio::fs::write(path, "what the client sent").await?;
        Ok(Upload { path: path.into() })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let path = self.path.clone();
        let removal = async move {
            tokio::fs::remove_file(&path).await?;
            println!("  removed after the request: {:?}", after::outcome());
            after::Ok(())
        };
        // In a destructor always `try_defer`: `defer` panics outside a scope, and a panic while another one unwinds
        // aborts the process.
        if after::try_defer(removal).is_err() {
            // No request is there to come after, so nobody is kept waiting.
            let removed = fs::remove_file(&self.path);
            println!("  removed at once: {removed:?}");
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let path = env::temp_dir().join(format!("after-async-drop-{}", process::id()));
    let runner = after::Runner::global();

    println!("a request that ends:");
    after::scope(async {
        drop(Upload::receive(&path).await?);
        assert!(path.exists(), "the clean-up does not delay the response");
        io::Result::Ok(())
    })
    .await?;
    runner.drain().await;
    assert!(!path.exists());

    println!("a request that is given up while it waits:");
    let request = after::scope(async {
        let _upload = Upload::receive(&path).await?;
        pending::<io::Result<()>>().await
    });
    // The timeout drops the scope, the scope drops the upload, and its clean-up is run all the same.
    assert!(timeout(Duration::from_millis(50), request).await.is_err());
    runner.drain().await;
    assert!(!path.exists());

    println!("no request at all:");
    drop(Upload::receive(&path).await?);
    assert!(!path.exists());

    let report = after::shutdown(Duration::from_secs(5)).await;
    println!("{report}");
    assert_eq!((report.stats().completed, report.stats().pending), (2, 0));
    Ok(())
}
