//! The global Runner. A process has one, so this is one test.
#![cfg(feature = "threads")]

use std::time::Duration;

use after::{Order, Runner, spawner};

/// Bad input: a second `install` is an error, and so is one after the global Runner was used; idle scopes don't use it.
#[test]
fn the_global_runner_is_installed_once_and_before_its_use() {
    futures::executor::block_on(async {
        // Nothing was deferred: the global Runner need not exist.
        after::scope(async {}).await;
        let mine = Runner::builder()
            .spawner(spawner::Threads::default())
            .order(Order::Sequential)
            .build();
        mine.clone().install().unwrap();
        let error = Runner::builder().build().install().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the global runner is in use already: install yours before the first request"
        );
        after::scope(async { after::defer(async {}) }).await;
        after::scope(async { after::defer(after::stopping()) }).await;
        assert_eq!(mine.stats().deferred, 2);
        assert!(!after::stopping().is_stopping());
        after::stop();
        after::stopping().await;
        let report = after::shutdown(Duration::from_secs(60)).await;
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.stats(), Runner::global().stats());
        assert_eq!(
            report.to_string(),
            "nothing unfinished; deferred 2, completed 2, failed 0, panicked 0, timed out 0, discarded 0, shed 0, lost 0"
        );
        // Outside a scope it is the global Runner's.
        after::stopping().await;
    });
}
