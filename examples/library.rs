//! A library whose functions defer, and work wherever they are called: in a handler, in a command-line tool, on a thread, in
//! a test.
//!
//! Run it with `cargo run --example library`: it does all four and prints what has run.

use std::{error::Error, future::ready, thread, time::Duration};

use after::{Runner, spawner::Tokio, testing, tower::AfterLayer};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{Request, StatusCode},
    routing::put,
};
use futures::executor::block_on;
use tower::ServiceExt as _;

use self::notes::Notes;

/// The library. It knows of no server, no runtime and no Runner: its work goes wherever that of the caller's request goes.
pub mod notes {
    use std::{
        collections::{BTreeMap, BTreeSet},
        error::Error,
        fmt,
        future::Future,
        sync::{Arc, Mutex, MutexGuard, PoisonError},
    };

    use after::Outcome;

    /// Notes, and an index of their words that follows after the request.
    #[derive(Clone, Debug, Default)]
    pub struct Notes {
        store: Arc<Mutex<Store>>,
    }

    #[derive(Debug, Default)]
    struct Store {
        texts: BTreeMap<String, String>,
        index: BTreeMap<String, BTreeSet<String>>,
        /// Which titles were indexed, in this order.
        indexed: Vec<String>,
    }

    /// The error of a note that has no text.
    #[derive(Debug, PartialEq, Eq)]
    pub struct NoText;

    impl fmt::Display for NoText {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a note needs a text")
        }
    }

    impl Error for NoText {}

    impl Notes {
        /// Saves a note. The search finds it after the caller's request, if that succeeded.
        pub fn save(&self, title: &str, text: &str) -> Result<(), NoText> {
            within(|| {
                if text.is_empty() {
                    return Err(NoText);
                }
                self.store().texts.insert(title.into(), text.into());
                let (notes, title) = (self.clone(), title.to_owned());
                // However often a request saves it, it is indexed once; and not at all if the request fails.
                after::task("index")
                    .key(format!("index:{title}"))
                    .on_success()
                    .defer(async move { notes.index(title) });
                Ok(())
            })
        }

        /// Saves what `source` brings. If one of the notes is not accepted, none of them is indexed.
        pub async fn import(
            &self,
            source: impl Future<Output = Vec<(String, String)>>,
        ) -> Result<usize, NoText> {
            within_async(async {
                let notes = source.await;
                for (title, text) in &notes {
                    self.save(title, text)?;
                }
                Ok(notes.len())
            })
            .await
        }

        /// The titles of the notes that have this word.
        pub fn find(&self, word: &str) -> Vec<String> {
            let store = self.store();
            store
                .index
                .get(word)
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        }

        /// Which notes were indexed so far, in this order.
        pub fn indexed(&self) -> Vec<String> {
            self.store().indexed.clone()
        }

        fn index(&self, title: String) {
            let mut store = self.store();
            let text = store.texts.get(&title).cloned().unwrap_or_default();
            for word in text.split_whitespace() {
                let titles = store.index.entry(word.into()).or_default();
                titles.insert(title.clone());
            }
            store.indexed.push(title);
        }

        fn store(&self) -> MutexGuard<'_, Store> {
            self.store.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Runs `f` in the caller's request. If there is none, `f` is one by itself, which ends as `f` does.
    ///
    /// Public, so that a caller without a request can make one of several calls.
    pub fn within<T, E>(f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if after::in_scope() {
            return f();
        }
        let mut request = after::open();
        // If it panics, `request` is dropped, and ends as cancelled.
        let result = request.enter(f);
        request.end(match result {
            Ok(_) => Outcome::Finished,
            Err(_) => Outcome::Failed,
        });
        result
    }

    /// As [`within`], for a future. That is what a plain scope is for: it waits for room as well, where a limit asks for it.
    pub async fn within_async<T, E>(f: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        if after::in_scope() {
            return f.await;
        }
        after::scope(f).failed_if(Result::is_err).await
    }
}

/// The titles that were indexed.
type Indexed = Result<Vec<String>, Box<dyn Error>>;

/// A handler below the layer: the request is the client's, and its tasks run after the response.
pub fn in_a_handler() -> Indexed {
    async fn save(
        State(notes): State<Notes>,
        Path(title): Path<String>,
        body: String,
    ) -> (StatusCode, &'static str) {
        // Each line is a new text, and the last one stays.
        match body
            .split('\n')
            .try_for_each(|text| notes.save(&title, text))
        {
            Ok(()) => (StatusCode::OK, "saved\n"),
            Err(_) => (StatusCode::BAD_REQUEST, "a text is missing\n"),
        }
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let notes = Notes::default();
        let runner = Runner::new(Tokio::current());
        let app = Router::new()
            .route("/notes/{title}", put(save))
            .with_state(notes.clone())
            .layer(AfterLayer::with_runner(runner.clone()));
        for (title, body, expected) in [
            ("tea", "green\ngreen and black", StatusCode::OK),
            ("coffee", "black\n", StatusCode::BAD_REQUEST),
        ] {
            let request = Request::put(format!("/notes/{title}")).body(Body::from(body))?;
            let answer = app.clone().oneshot(request).await?;
            assert_eq!(answer.status(), expected);
            assert!(
                !notes.indexed().contains(&title.into()),
                "not before the client has the response"
            );
            to_bytes(answer.into_body(), 100).await?;
            runner.drain().await;
        }
        assert_eq!(notes.find("black"), ["tea"]);
        let report = runner.shutdown(Duration::from_secs(5)).await;
        assert!(report.is_clean(), "{report}");
        // Of "tea" the first, which the second has replaced; and "coffee", because that request has failed.
        let stats = report.stats();
        assert_eq!((stats.completed, stats.discarded), (1, 2));
        Ok(notes.indexed())
    })
}

/// A command-line tool, without a runtime: each call is a request of its own, or several are made one.
pub fn in_a_tool() -> Indexed {
    let notes = Notes::default();
    notes.save("tea", "green")?;
    assert!(notes.save("water", "").is_err());
    notes::within(|| {
        notes.save("milk", "white")?;
        notes.save("milk", "white and cold")
    })?;
    let of_a_file = vec![("coffee".into(), "black".into())];
    block_on(notes.import(ready(of_a_file)))?;
    // What `main` does last.
    let report = block_on(after::shutdown(Duration::from_secs(5)));
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        (notes.find("green"), notes.find("cold")),
        (vec!["tea".into()], vec!["milk".into()])
    );
    let mut indexed = notes.indexed();
    indexed.sort();
    Ok(indexed)
}

/// A thread of a program that may have requests, but not here.
pub fn on_a_thread() -> Indexed {
    let notes = Notes::default();
    let worker = notes.clone();
    let saved = thread::spawn(move || worker.save("tea", "green")).join();
    saved.map_err(|_| "the thread has panicked")??;
    block_on(Runner::global().drain());
    assert_eq!(notes.find("green"), ["tea"]);
    Ok(notes.indexed())
}

/// A test of code that calls the library: what that defers is recorded, and runs when the test says so.
pub fn in_a_test() -> Indexed {
    block_on(async {
        let notes = Notes::default();
        let (saved, recorder) = testing::capture(async {
            notes.save("tea", "green")?;
            notes.save("tea", "black")?;
            notes
                .import(ready(vec![("milk".into(), "white".into())]))
                .await
        })
        .await;
        assert_eq!(saved, Ok(1));
        assert_eq!(recorder.names(), ["index", "index"]);
        assert!(notes.indexed().is_empty());
        recorder.run().await;
        assert_eq!(notes.find("black"), ["tea"]);
        Ok(notes.indexed())
    })
}

/// A way to use the library, and what it indexes.
type Way = (&'static str, fn() -> Indexed, &'static [&'static str]);

const WAYS: [Way; 4] = [
    ("handler", in_a_handler, &["tea"]),
    ("command-line tool", in_a_tool, &["coffee", "milk", "tea"]),
    ("thread", on_a_thread, &["tea"]),
    ("test", in_a_test, &["tea", "milk"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    for (name, way, expected) in WAYS {
        let indexed = way()?;
        println!("{name:<17}  indexed: {}", indexed.join(", "));
        assert_eq!(indexed, expected);
    }
    Ok(())
}
