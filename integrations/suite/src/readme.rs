//! The program of an integration's README, as a process.

use std::{env, fs, net::SocketAddr, path::Path};

use tokio::process::Command;

use crate::{child::Served, client::Client};

/// Asserts that the first program of the README is the example of this name, and runs it: it answers, and at SIGTERM it ends
/// with code 0, and its task has run. `folder` is the integration's `CARGO_MANIFEST_DIR`.
///
/// `cargo test` builds the example; `cargo test --test readme` does not, and an old one that is there is used.
pub fn readme(folder: &str, example: &str) {
    let folder = Path::new(folder);
    let page = fs::read_to_string(folder.join("README.md")).unwrap();
    let source = folder.join("examples").join(example).with_extension("rs");
    let source = fs::read_to_string(source).unwrap();
    let (_, program) = source.split_once("\n\n").expect("a header");
    let (_, shown) = page.split_once("```rust,no_run\n").expect("a program");
    let (shown, _) = shown.split_once("```").expect("its end");
    // Line by line, so that a failure shows one.
    for (shown, line) in shown.lines().zip(program.lines()) {
        assert_eq!(shown, line, "the README's program is not the example");
    }
    assert_eq!(shown.lines().count(), program.lines().count());

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(example));
}

async fn run(example: &str) {
    // `<target>/<profile>/deps/<this test>`.
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let mut process = Served::start(
        Command::new(profile.join("examples").join(example))
            .env("ADDRESS", "127.0.0.1:0")
            .env("ROCKET_PORT", "0")
            .env("ROCKET_CLI_COLORS", "false"),
    );
    let port = loop {
        let line = process.next().await.expect("its address");
        if let Some((_, port)) = line.split_once("http://127.0.0.1:") {
            break port.trim_end().parse().expect("a port");
        }
    };
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
    client.ask("GET", "/").await;
    assert_eq!(client.answer().await, b"hello\n");
    process.terminate();
    let lines = process.ended().await;
    for says in [
        "audit: Some(Finished)",
        "nothing unfinished; deferred 1, completed 1",
    ] {
        assert!(lines.iter().any(|line| line.contains(says)), "{lines:#?}");
    }
}
