//! What a recorder keeps: batches until they are run, and a line for each of their tasks for good.

use std::{borrow::Cow, collections::HashSet, fmt, mem, ops::Range, panic::Location};

use crate::batch::Batch;

/// Name, key and origin of a task that a [`Recorder`](super::Recorder) has recorded.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let ((), recorder) = after::testing::capture(async {
///     after::task("mail").key("user:7").defer(async {});
/// })
/// .await;
/// let tasks = recorder.tasks();
/// assert_eq!((tasks[0].name, tasks[0].key.as_deref()), ("mail", Some("user:7")));
/// assert_eq!(tasks[0].location.file(), file!());
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its name, or its type's.
    pub name: &'static str,
    /// Its [key](crate::TaskBuilder::key), as it was given.
    pub key: Option<Cow<'static, str>>,
    /// Where it was deferred.
    pub location: &'static Location<'static>,
}

/// A batch, and the numbers of its tasks on the list.
pub(super) struct KeptBatch {
    pub(super) batch: Batch,
    pub(super) tasks: Range<usize>,
}

#[derive(Default)]
pub(super) struct Records {
    pub(super) batches: Vec<KeptBatch>,
    /// All tasks that were ever kept, but for the first ones, which were forgotten.
    tasks: Vec<Line>,
    forgotten: usize,
    /// What did not end as it should while it was run, in words.
    pub(super) failures: Vec<String>,
    /// Tasks are being dropped on purpose: by so many at once.
    pub(super) clearing: usize,
}

struct Line {
    task: Recorded,
    /// Its place in the order of its request.
    sequence: u64,
    has_ended: bool,
}

impl Records {
    pub(super) fn keep(&mut self, batch: Batch) {
        let first = self.next();
        for (sequence, task) in batch.unfinished() {
            self.tasks.push(Line {
                task: Recorded {
                    name: task.name,
                    key: task.key,
                    location: task.location,
                },
                sequence,
                has_ended: false,
            });
        }
        let tasks = first..self.next();
        self.batches.push(KeptBatch { batch, tasks });
    }

    fn next(&self) -> usize {
        self.forgotten + self.tasks.len()
    }

    /// What is to be run.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().map(|kept| &kept.batch)
    }

    pub(super) fn tasks(&self) -> impl ExactSizeIterator<Item = &Recorded> {
        self.tasks.iter().map(|line| &line.task)
    }

    fn lines(&mut self, tasks: Range<usize>) -> impl Iterator<Item = &mut Line> {
        let first = tasks.start.saturating_sub(self.forgotten);
        let end = tasks.end.saturating_sub(self.forgotten);
        self.tasks[first..end].iter_mut()
    }

    /// All tasks of a batch have ended.
    pub(super) fn has_run(&mut self, tasks: Range<usize>) {
        self.lines(tasks).for_each(|line| line.has_ended = true);
    }

    /// A batch comes back that was run, and not to its end.
    pub(super) fn put_back(&mut self, kept: KeptBatch) {
        let left = kept.batch.unfinished().into_iter();
        let left: HashSet<u64> = left.map(|(sequence, _)| sequence).collect();
        for line in self.lines(kept.tasks.clone()) {
            line.has_ended = !left.contains(&line.sequence);
        }
        self.batches.push(kept);
    }

    /// Begins a new list. What is given back is to be dropped when this is not locked.
    pub(super) fn clear(&mut self) -> Vec<KeptBatch> {
        self.forgotten = self.next();
        self.tasks.clear();
        self.failures.clear();
        mem::take(&mut self.batches)
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // A test that looks only at what was deferred need not run it, and its output says nothing of it.
        drop_unreported(mem::take(&mut self.batches));
    }
}

pub(super) fn drop_unreported(batches: Vec<KeptBatch>) {
    for kept in batches {
        kept.batch.drop_unreported();
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for Line {
            task, has_ended, ..
        } in &self.tasks
        {
            let Recorded { name, key, .. } = task;
            let how = if *has_ended { "has run" } else { "not run" };
            match key {
                None => map.entry(name, &format_args!("{how}")),
                Some(key) => map.entry(name, &format_args!("{how} (key {key:?})")),
            };
        }
        map.finish()
    }
}
