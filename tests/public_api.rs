//! The public API as a text, so that a review sees every change of it: `docs/dev/public-api.txt`.
//!
//! To write it anew: `AFTER_ACCEPT_API=1 cargo test --all-features --test public_api`.
//!
//! It is made from rustdoc's JSON, which is not stable: another Rust writes another format, which the `public-api` of
//! another version reads. With such a Rust the comparison is left out, unless `CI` is set: there it fails, so that both
//! versions are raised together.
#![cfg(all(
    feature = "async-std",
    feature = "metrics",
    feature = "smol",
    feature = "threads",
    feature = "tokio",
    feature = "tower",
    feature = "tracing"
))]

use std::{env, fs, path::Path, process::Command};

/// The format of rustdoc 1.95, which the `public-api` of `Cargo.toml` reads.
const FORMAT: &str = "\"format_version\":57";

#[test]
fn the_public_api_is_the_one_that_was_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // `<target>/<profile>/deps/<this test>`. Apart, because the environment would have crates of others built anew.
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap().join("public-api");
    let output = Command::new(env!("CARGO"))
        .args([
            "rustdoc",
            "--lib",
            "--all-features",
            "--locked",
            "--target-dir",
        ])
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .args(["--cap-lints", "allow"])
        .env("RUSTC_BOOTSTRAP", "1")
        // Neither a sanitizer nor a coverage of the tests is part of the API.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTDOCFLAGS")
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let json = target.join("doc/after.json");
    if !fs::read_to_string(&json).unwrap().contains(FORMAT) {
        assert!(
            env::var_os("CI").is_none(),
            "rustdoc writes another format than {FORMAT}: take another `public-api`, and change this line"
        );
        eprintln!("not compared: this rustdoc writes another format than {FORMAT}");
        return;
    }
    // Blanket implementations are the same for every type. Those of auto traits are not: they may be lost by accident.
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .build()
        .unwrap();
    // Nor are two of them anybody's business: they are details of the standard library, and not stable.
    let details = ["core::marker::Freeze", "core::marker::UnsafeUnpin"];
    let api: String = api
        .items()
        .map(|item| format!("{item}\n"))
        .filter(|item| !details.iter().any(|detail| item.contains(detail)))
        .collect();

    let path = root.join("docs/dev/public-api.txt");
    if env::var_os("AFTER_ACCEPT_API").is_some() {
        fs::write(&path, api).unwrap();
        return;
    }
    let reviewed = fs::read_to_string(&path).unwrap();
    let only = |one: &str, other: &str, sign| {
        let missing = one
            .lines()
            .filter(|line| !other.lines().any(|of| of == *line));
        missing
            .map(|line| format!("{sign} {line}\n"))
            .collect::<String>()
    };
    // As sets: in which of several `impl` blocks a method stands is nobody's business.
    let changes = only(&reviewed, &api, '-') + &only(&api, &reviewed, '+');
    assert!(
        changes.is_empty(),
        "the public API has changed. If that is meant: AFTER_ACCEPT_API=1 cargo test --all-features --test public_api\n\
         {changes}"
    );
}
