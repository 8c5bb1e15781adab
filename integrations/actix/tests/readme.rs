//! The program of the README is the example, and it runs.
#![cfg(unix)]

#[test]
fn the_program_of_the_readme_loses_no_task_at_sigterm() {
    after_suite::readme(env!("CARGO_MANIFEST_DIR"), "actix");
}
