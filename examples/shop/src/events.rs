//! The page's stream of events.
//!
//! It has no end of its own, so its handler answers with [`RunAfter::Head`] in the response's extensions: with the default
//! what it defers would run when the page is closed.

use std::{convert::Infallible, sync::Arc, time::Duration};

use after::{Stats, tower::RunAfter};
use axum::{
    Extension,
    extract::State,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Serialize;
use tokio::{sync::watch, time::sleep};

use crate::{
    app::App,
    feed::{Phase, Update},
    jobs::{self, Shown},
    sessions::user_agent,
};

pub(crate) async fn events(State(app): State<Arc<App>>) -> impl IntoResponse {
    after::task("visit").defer(async {
        let agent = user_agent();
        let agent = agent.as_deref().unwrap_or("an unknown browser");
        tracing::info!("a page is watching: {agent}");
    });
    let watcher = Watcher {
        versions: app.feed.versions(),
        app,
        seen: 0,
        account: None,
        jobs: Vec::new(),
        over: false,
    };
    let events = Sse::new(stream::unfold(watcher, Watcher::next)).keep_alive(KeepAlive::default());
    (Extension(RunAfter::Head), events)
}

struct Watcher {
    app: Arc<App>,
    versions: watch::Receiver<u64>,
    seen: u64,
    account: Option<Stats>,
    jobs: Vec<Shown>,
    over: bool,
}

#[derive(Serialize)]
struct News<'a> {
    #[serde(flatten)]
    update: Update,
    account: Account,
    jobs: &'a [Shown],
}

/// What [`Stats`] has.
#[derive(Serialize)]
struct Account {
    deferred: u64,
    completed: u64,
    failed: u64,
    panicked: u64,
    timed_out: u64,
    discarded: u64,
    shed: u64,
    lost: u64,
    pending: u64,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.over {
            // The server waits for its connections, and so for this to end.
            return None;
        }
        loop {
            self.versions.mark_unchanged();
            let update = self.app.feed.since(self.seen);
            let account = self.app.runner.stats();
            let jobs = jobs::shown(&self.app).await;
            if update.version > self.seen || self.account != Some(account) || self.jobs != jobs {
                self.seen = update.version;
                self.account = Some(account);
                self.jobs = jobs;
                self.over = update.phase == Phase::Stopped;
                let account = Account::from(account);
                let event = Event::default().json_data(News {
                    update,
                    account,
                    jobs: &self.jobs,
                });
                // Numbers and strings: there is nothing that can't be written.
                return Some((Ok(event.unwrap_or_default()), self));
            }
            tokio::select! {
                _ = self.versions.changed() => {}
                // The account tells nobody that it has changed, and neither does the database.
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
    }
}

impl From<Stats> for Account {
    fn from(stats: Stats) -> Self {
        Account {
            deferred: stats.deferred,
            completed: stats.completed,
            failed: stats.failed,
            panicked: stats.panicked,
            timed_out: stats.timed_out,
            discarded: stats.discarded,
            shed: stats.shed,
            lost: stats.lost,
            pending: stats.pending,
        }
    }
}
