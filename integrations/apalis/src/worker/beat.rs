use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Outage, Settings, lane::Shared};
use crate::{Error, Jobs, report::report, store::Registration};

/// Says that the worker lives, and takes over from those that don't.
pub(super) async fn run(jobs: Jobs, settings: Arc<Settings>, lanes: Arc<[Arc<Shared>]>) {
    let workers: Vec<Registration> = lanes.iter().map(|lane| lane.registration.clone()).collect();
    let outage = Outage::default();
    let mut last = Instant::now();
    let mut told = None::<Instant>;
    let mut tick = interval(settings.heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = jobs.store().heartbeat(&workers).await {
            outage.is("heartbeats", &error);
            // Sooner than at the next: so that it is back before others take over.
            tick.reset_after((settings.heartbeat / 4).min(Duration::from_secs(1)));
            continue;
        }
        outage.over("heartbeats");
        let late = last.elapsed();
        last = Instant::now();
        if late > settings.dead_for() {
            report!(
                warn,
                "worker {} sent no heartbeat for {late:.1?}: its jobs may have been taken over. The process was stopped, \
                 the store was away, or something blocks the runtime (see `WorkerBuilder::handle_blocking`)",
                settings.name
            );
        }
        for lane in lanes.iter() {
            match jobs
                .store()
                .recover(lane.registration.queue, settings.dead_for())
                .await
            {
                Ok(recovered) => {
                    if recovered.again > 0 {
                        report!(
                            warn,
                            "{} job(s) `{}` of lost workers are run again",
                            recovered.again,
                            lane.registration.queue
                        );
                        lane.wake.notify_one();
                    }
                    if recovered.dead > 0 {
                        report!(
                            error,
                            "{} job(s) `{}` are dead: {}",
                            recovered.dead,
                            lane.registration.queue,
                            crate::store::LOST_TOO_OFTEN
                        );
                    }
                }
                Err(error) => outage.is("take-over of lost workers' jobs", &error),
            }
        }
        if told.is_none_or(|told| told.elapsed() >= Duration::from_secs(60)) {
            told = Some(Instant::now());
            let _ = unknown(&jobs, settings.dead_for()).await;
        }
    }
}

async fn unknown(jobs: &Jobs, dead_for: Duration) -> Result<(), Error> {
    for (name, count) in jobs
        .store()
        .without_handler(dead_for, dead_for.max(Duration::from_secs(60)))
        .await?
    {
        report!(
            error,
            "{count} job(s) `{name}` wait, and no live worker has a handler of that name; they are kept"
        );
    }
    Ok(())
}
