//! A library whose functions defer works wherever they are called: `examples/library.rs`, each of its four ways by itself.
#![cfg(all(feature = "tokio", feature = "tower"))]

#[allow(dead_code, unreachable_pub)] // its `main`
#[path = "../examples/library.rs"]
mod library;

use library::notes::{self, NoText, Notes};

/// Sentences 7 and 12: below the layer the request is the client's, with its keys and its outcome.
#[test]
fn a_library_defers_into_the_request_of_a_handler() {
    assert_eq!(library::in_a_handler().unwrap(), ["tea"]);
}

/// Without a runtime and a request each call is a request of its own, and several may be made one.
#[test]
fn a_library_defers_in_a_tool_without_a_runtime() {
    assert_eq!(library::in_a_tool().unwrap(), ["coffee", "milk", "tea"]);
}

#[test]
fn a_library_defers_on_a_thread() {
    assert_eq!(library::on_a_thread().unwrap(), ["tea"]);
}

#[test]
fn a_library_defers_in_a_test_that_records() {
    assert_eq!(library::in_a_test().unwrap(), ["tea", "milk"]);
}

/// Sentence 8: a call that fails outside a request indexes nothing; one that panics leaves no scope behind.
#[test]
fn a_call_that_fails_or_panics_outside_a_request_ends_it() {
    let notes = Notes::default();
    let failed = notes::within(|| {
        notes.save("tea", "green")?;
        Err::<(), _>(NoText)
    });
    assert_eq!(failed, Err(NoText));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        notes::within(|| -> Result<(), NoText> {
            notes.save("tea", "green")?;
            panic!("told to")
        })
    }));
    assert!(panicked.is_err());
    assert!(!after::in_scope());
    futures::executor::block_on(after::Runner::global().drain());
    assert!(notes.indexed().is_empty());
}
