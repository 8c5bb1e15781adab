//! How the tasks of a batch take turns.
//!
//! A round is one poll of every task; a turn is at most [`MOST_POLLS`] polls of it, between two visits to the runtime's
//! queue. Each round starts one task further on than the last: a runtime's budget for cooperation is shared by all tasks
//! of a batch, and in a fixed order a busy one would leave nothing of it to those behind it, for ever.
//!
//! Whatever wakes the batch, all of its tasks are polled: for a few tasks that is cheaper than a waker for each. When
//! that has gone on for too long with too many tasks ([`POLLS_A_TASK`], [`FEW`]), each gets a waker of its own
//! ([`Ready`]), so that the cost stays linear in tasks and wakes.

use std::task::{Context, Poll};

use crate::{
    node::Link,
    outcome::Order,
    ready::Ready,
    registry::{Active, Registry},
    report,
    task::End,
};

/// Polls in one turn.
const MOST_POLLS: usize = 32;
/// Polls for each task, on average, before tasks get wakers of their own.
const POLLS_A_TASK: u64 = 8;
/// With no more tasks than this, polling them all is cheaper than their wakers.
const FEW: usize = 8;

/// Runs one turn; returns whether nothing is left to run. `registry` is current.
#[inline]
pub(crate) fn run(registry: &Registry, cx: &mut Context<'_>) -> bool {
    let mut finished = Finished::default();
    let Some(mut plan) = registry.peek(Active::begin_turn) else {
        return true;
    };
    if let Mode::Inbox = plan {
        plan = take_inbox(registry, &mut finished);
    }
    let again = match plan {
        Mode::Round(polls) => round(registry, cx, polls, &mut finished),
        Mode::Sequence => sequence(registry, cx, &mut finished),
        Mode::Ready => woken(registry, cx, &mut finished),
        Mode::Inbox => false,
    };
    // Nearly all batches end here, after one turn.
    let done = registry.peek(|active| {
        active.unfinished() == 0 && active.collected.len() == 0 && active.inbox.is_none()
    });
    done == Some(true) || end(registry, cx, again, &mut finished)
}

/// Before the turn: what came through handles takes part in it.
#[cold]
fn take_inbox(registry: &Registry, finished: &mut Finished) -> Mode {
    if let Some(inbox) = registry.inbox() {
        let joined = inbox.batch_runs();
        registry.peek(|active| active.join(joined, finished));
    }
    let mode = registry.peek(Active::next_polls);
    mode.unwrap_or(Mode::Round(0))
}

enum Mode {
    /// Handles may have brought work: look there first.
    Inbox,
    Round(usize),
    Sequence,
    Ready,
}

/// Polls the next tasks of the queue; returns whether the round goes on.
///
/// The active part is taken out once for each task: to put away what has been polled and to get the next.
#[inline]
fn round(
    registry: &Registry,
    cx: &mut Context<'_>,
    mut polls: usize,
    finished: &mut Finished,
) -> bool {
    let mut next = match polls {
        0 => None,
        _ => registry.peek(|active| active.queue.pop_front()).flatten(),
    };
    while let Some(mut node) = next {
        polls -= 1;
        next = match poll(&mut node, cx) {
            None => registry.peek(|active| {
                active.queue.push_back(node);
                active.next_of_round(polls)
            }),
            Some(End::Completed) => {
                let (name, location, sequence) = (node.name(), node.location(), node.sequence());
                if let Err(payload) = report::catch(|| drop(node)) {
                    finish_badly(registry, name, location, End::Completed, Err(payload));
                    finished.push(sequence);
                    registry.peek(|active| active.next_of_round(polls))
                } else {
                    registry.peek(|active| {
                        active.unpublished.completed += 1;
                        if active.unfinished() > 0 {
                            finished.push(sequence);
                        }
                        active.next_of_round(polls)
                    })
                }
            }
            Some(end) => {
                finish(registry, node, end, finished);
                registry.peek(|active| active.next_of_round(polls))
            }
        }
        .flatten();
    }
    registry.peek(|active| active.round > 0) == Some(true)
}

/// Polls the first task, and the next when it has ended; returns whether there are more than one turn takes.
fn sequence(registry: &Registry, cx: &mut Context<'_>, finished: &mut Finished) -> bool {
    for _ in 0..MOST_POLLS {
        let Some(mut node) = registry.peek(|active| active.queue.pop_front()).flatten() else {
            return false;
        };
        match poll(&mut node, cx) {
            None => {
                registry.peek(|active| active.queue.push_front(node));
                return false;
            }
            Some(end) => finish(registry, node, end, finished),
        }
    }
    true
}

/// Polls the tasks whose wakers were woken; returns whether there are more than one turn takes.
#[cold]
fn woken(registry: &Registry, cx: &mut Context<'_>, finished: &mut Finished) -> bool {
    let Some(shared) = registry
        .peek(|active| active.ready.as_ref().map(|ready| ready.shared()))
        .flatten()
    else {
        return false;
    };
    // Wakers are the user's code: nothing is taken out meanwhile.
    shared.watch(cx.waker());
    let turn = registry
        .peek(|active| {
            active
                .ready
                .as_mut()
                .map(|ready| ready.next_turn(MOST_POLLS))
        })
        .flatten()
        .unwrap_or_default();
    for sequence in turn.sequences {
        let taken = registry.peek(|active| active.ready.as_mut()?.take(sequence));
        let Some((mut node, waker)) = taken.flatten() else {
            // It has ended, and was woken late.
            continue;
        };
        match poll(&mut node, &mut Context::from_waker(&waker)) {
            None => {
                registry.peek(|active| {
                    if let Some(ready) = &mut active.ready {
                        ready.put_back(sequence, node);
                    }
                });
            }
            Some(end) => {
                registry.peek(|active| {
                    if let Some(ready) = &mut active.ready {
                        ready.remove(sequence);
                    }
                });
                finish(registry, node, end, finished);
            }
        }
    }
    turn.more
}

/// Polls a task; `None` while it is pending.
#[inline]
fn poll(node: &mut Link, cx: &mut Context<'_>) -> Option<End> {
    match report::catch(|| node.as_mut().poll_work(cx)) {
        Ok(Poll::Pending) => None,
        Ok(Poll::Ready(end)) => Some(end),
        Err(payload) => Some(End::Panicked(payload)),
    }
}

/// Drops, counts and reports a task that has ended.
fn finish(registry: &Registry, node: Link, end: End, finished: &mut Finished) {
    finished.push(node.sequence());
    let (name, location) = (node.name(), node.location());
    let dropped = report::catch(|| drop(node));
    finish_badly(registry, name, location, end, dropped);
}

#[cold]
fn finish_badly(
    registry: &Registry,
    name: &'static str,
    location: &'static std::panic::Location<'static>,
    end: End,
    dropped: Result<(), Box<dyn std::any::Any + Send>>,
) {
    registry.peek(|active| {
        let counts = &mut active.unpublished;
        match (&end, &dropped) {
            (End::Completed, Ok(())) => counts.completed += 1,
            (End::Completed, Err(_)) | (End::Panicked(_), _) => counts.panicked += 1,
            (End::Failed(_), _) => counts.failed += 1,
            (End::Lost, _) => counts.lost += 1,
        }
    });
    match end {
        End::Completed => {}
        End::Failed(error) => report::failed(name, location, error),
        End::Panicked(payload) => report::panicked(name, location, payload),
        End::Lost => {
            let runner = registry.runner();
            let lost = std::iter::once((name, location));
            runner.get().account.lose(&runner, lost);
        }
    }
    if let Err(payload) = dropped {
        report::destructor_panicked(name, location, payload);
    }
}

/// The end of a turn: takes in what was deferred meanwhile, publishes, and sees to it that the batch is polled again.
fn end(registry: &Registry, cx: &mut Context<'_>, again: bool, finished: &mut Finished) -> bool {
    let left = registry.peek(|active| active.unfinished()).unwrap_or(0);
    let joined = match registry.inbox() {
        None => registry.peek(|active| active.collected.take()),
        Some(inbox) if left == 0 => Some(inbox.batch_ends()),
        Some(inbox) => Some(inbox.batch_waits(cx.waker())),
    }
    .unwrap_or_default();
    let again = again || !joined.is_empty();
    if left == 0 && joined.is_empty() {
        return true;
    }
    registry.peek(|active| active.join(joined, finished));
    if again {
        cx.waker().wake_by_ref();
    }
    false
}

impl Active {
    pub(crate) fn unfinished(&self) -> usize {
        self.queue.len() + self.ready.as_ref().map_or(0, |ready| ready.len())
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &crate::node::Node<dyn crate::node::Work>> {
        self.queue
            .iter()
            .chain(self.ready.iter().flat_map(|ready| ready.iter()))
    }

    /// Everything that has not ended, for a batch that is dropped.
    pub(crate) fn take_tasks(&mut self) -> crate::node::Queue {
        let mut tasks = std::mem::take(&mut self.queue);
        if let Some(ready) = self.ready.take() {
            tasks.append(ready.into_tasks());
        }
        tasks.append(self.collected.take());
        tasks
    }

    #[inline]
    fn next_of_round(&mut self, polls: usize) -> Option<Link> {
        match polls {
            0 => None,
            _ => self.queue.pop_front(),
        }
    }

    #[inline]
    fn begin_turn(&mut self) -> Mode {
        if self.inbox.is_some() {
            return Mode::Inbox;
        }
        self.next_polls()
    }

    #[inline]
    fn next_polls(&mut self) -> Mode {
        if self.order == Order::Sequential {
            return Mode::Sequence;
        }
        if self.ready.is_some() {
            return Mode::Ready;
        }
        if self.round == 0 {
            self.round = self.queue.len();
            if self.polls > 0 && self.round > 1 && self.next_round_by_wakers() {
                return Mode::Ready;
            }
        }
        let polls = self.round.min(MOST_POLLS);
        self.round -= polls;
        self.polls += polls as u64;
        Mode::Round(polls)
    }

    /// Before a round that is not the first: gives each task a waker if it is time, or else moves the start on by one.
    #[inline(never)]
    fn next_round_by_wakers(&mut self) -> bool {
        if self.round > FEW && self.polls > POLLS_A_TASK * self.joined {
            self.round = 0;
            self.ready = Some(Box::new(Ready::new(std::mem::take(&mut self.queue))));
            return true;
        }
        if let Some(first) = self.queue.pop_front() {
            self.queue.push_back(first);
        }
        false
    }

    /// Takes `joined` into the queue and tells the account of it and of all that this turn has done.
    fn join(&mut self, joined: crate::node::Queue, finished: &mut Finished) {
        let counts = std::mem::take(&mut self.unpublished);
        if joined.is_empty() && finished.is_empty() && counts.is_empty() {
            return;
        }
        self.joined += joined.len() as u64;
        if let Some(seat) = self.seat {
            // Nobody is woken by this, so it may stand where the active part is out: tasks of ours are pending.
            let account = &self.runner.get().account;
            account.update(seat, counts, finished.take(), &joined);
        }
        match &mut self.ready {
            Some(ready) => ready.extend(joined),
            None => self.queue.append(joined),
        }
    }
}

/// The sequence numbers of the tasks that ended in this turn, while others of the batch have not.
#[derive(Default)]
struct Finished {
    // Made by the first: a batch of one task never needs it.
    sequences: Option<[u64; MOST_POLLS]>,
    len: usize,
}

impl Finished {
    #[inline]
    fn push(&mut self, sequence: u64) {
        self.sequences.get_or_insert([0; MOST_POLLS])[self.len] = sequence;
        self.len += 1;
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn take(&mut self) -> &[u64] {
        let len = std::mem::take(&mut self.len);
        self.sequences
            .as_ref()
            .map_or(&[], |sequences| &sequences[..len])
    }
}
