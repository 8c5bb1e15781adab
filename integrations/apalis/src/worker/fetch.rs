use std::{sync::Arc, time::Duration};

use apalis_core::task::Task;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Outage, Wait,
    lane::{Held, Shared},
};
use crate::Jobs;

/// How long a slot that is free may wait for others under load.
const TOGETHER: Duration = Duration::from_millis(1);

/// Fetches what there are slots for, until the worker stops.
pub(super) async fn run(
    shared: Arc<Shared>,
    deliver: mpsc::UnboundedSender<Task<Vec<u8>>>,
    mut stopping: watch::Receiver<bool>,
) {
    let store = shared.jobs.store();
    let mut wait = Wait::new();
    // After an answer that did not come, jobs may be ours that we don't know of: nobody would ever run them.
    let mut unsure = false;
    let mut full = false;
    loop {
        let slot = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            slot = shared.slots.acquire() => slot.expect("never closed"),
        };
        drop(slot);
        if full && shared.slots.available_permits() < shared.settings.concurrency {
            // There is more, and short jobs end together: one fetch for all of them, and not one for each.
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = sleep(TOGETHER) => {}
            }
        }
        let most = shared.slots.available_permits().max(1);

        let fetched = async {
            if unsure {
                store
                    .give_back(&shared.registration, &shared.held_ids())
                    .await?;
            }
            store.fetch(&shared.registration, most).await
        };
        let tasks = match fetched.await {
            Ok(tasks) => tasks,
            Err(error) => {
                unsure = true;
                shared.outage.is(
                    &format!("worker of `{}`", shared.registration.queue),
                    &error,
                );
                tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return,
                    () = wait.wait() => continue,
                }
            }
        };
        unsure = false;
        wait = Wait::new();
        shared
            .outage
            .over(&format!("worker of `{}`", shared.registration.queue));

        full = tasks.len() >= most;
        if *stopping.borrow() {
            // Others may have them at once. If this fails, the end of `shutdown` tries again.
            let _ = store
                .give_back(&shared.registration, &shared.held_ids())
                .await;
            return;
        }
        for task in tasks {
            if let Ok(permit) = shared.slots.try_acquire() {
                permit.forget();
            }
            let Some(id) = task.task_id() else { continue };
            shared.held().insert(
                id.to_string(),
                Held {
                    since: Instant::now(),
                    abort: None,
                },
            );
            if deliver.send(task).is_err() {
                return;
            }
        }
        if full {
            continue;
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = shared.wake.notified() => {}
            () = sleep(shared.settings.poll) => {}
        }
    }
}

/// Wakes the lanes when the store tells of something.
pub(super) async fn listen(jobs: Jobs, lanes: Arc<[Arc<Shared>]>) {
    let queues: Vec<&'static str> = lanes.iter().map(|lane| lane.registration.queue).collect();
    let outage = Outage::default();
    let mut wait = Wait::new();
    loop {
        let wake = |queue: Option<&str>| {
            outage.over("notifications");
            for lane in lanes.iter() {
                if queue.is_none_or(|queue| queue == lane.registration.queue) {
                    lane.wake.notify_one();
                }
            }
        };
        match jobs.store().listen(&queues, jobs.enqueued(), &wake).await {
            Ok(never) => match never {},
            // Until it works again there is the poll.
            Err(error) => outage.is("notifications", &error),
        }
        wait.wait().await;
    }
}
