//! What must not compile, and what it says to the one who wrote it.
//!
//! With all features only: the compiler lists the implementations of a trait, and those differ by feature. Its words
//! differ by version too; `TRYBUILD=overwrite cargo test --all-features --test compile` stores those of another, and
//! `.ci/compiler` says which one they are of.
#![cfg(all(
    feature = "tokio",
    feature = "smol",
    feature = "async-std",
    feature = "tracing"
))]

/// Bad input: a task of the wrong type is a compiler message that says what to write, and so are other wrong programs.
#[test]
fn wrong_programs_do_not_compile_and_are_told_what_to_write() {
    // Where there is a shell. It fails nothing.
    let _ = std::process::Command::new(".ci/compiler").status();
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
