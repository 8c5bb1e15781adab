use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Outage, Wait, lane::Shared};
use crate::{report::report, store::Ended};

pub(crate) enum Message {
    Ended(Ended),
    /// Answered when all that came before is recorded.
    Flush(oneshot::Sender<()>),
}

/// Records how attempts ended: as many at once as there are, and for as long as it takes. It is not the job that waits
/// for it, and not the worker's stop (apalis' own results wait there until the last job has ended).
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(mut messages) = shared
        .ended
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take()
    else {
        return;
    };
    let mut next = Vec::new();
    while messages.recv_many(&mut next, 200).await > 0 {
        let mut ended = Vec::new();
        let mut flushed = Vec::new();
        for message in next.drain(..) {
            match message {
                Message::Ended(one) => ended.push(one),
                Message::Flush(done) => flushed.push(done),
            }
        }
        if !ended.is_empty() {
            record(&shared, &ended).await;
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

async fn record(shared: &Shared, ended: &[Ended]) {
    let outage = Outage::default();
    let what = format!("results of `{}`", shared.registration.queue);
    let mut wait = Wait::new();
    let recorded = loop {
        match shared
            .jobs
            .store()
            .finish(&shared.registration, ended)
            .await
        {
            Ok(recorded) => break recorded,
            Err(error) => outage.is(&what, &error),
        }
        wait.wait().await;
    };
    outage.over(&what);
    let mut held = shared.held();
    for ended in ended {
        held.remove(&ended.id.to_string());
    }
    drop(held);
    let others = (ended.len() as u64).saturating_sub(recorded);
    if others > 0 {
        report!(
            warn,
            "{others} job(s) `{}` had been taken over by others when they ended here: heartbeats were missed, and they \
             ran twice",
            shared.registration.queue
        );
    }
}

pub(super) fn channel_flush(finisher: &mpsc::UnboundedSender<Message>) -> oneshot::Receiver<()> {
    let (done, flushed) = oneshot::channel();
    let _ = finisher.send(Message::Flush(done));
    flushed
}
