//! The end of a request: what its scope has collected becomes a batch.
//!
//! For batches that need it ([`ScopeState::slow_path`]), with conditions, tasks that go their own way, time limits,
//! observers, limits on how many run: conditions are decided first; then those that go their own way are split off. The
//! rest stands in line for permits at the release, if there is a limit.

use std::{mem, sync::Arc};

use super::{batch::Batch, close, end::end_task};
use crate::{
    account::{Extra, Unpublished},
    limit::ScopeDeadline,
    platform::Instant,
    report::{self, Outcome},
    runner::{Core, Inbox, Late, Registry, RunnerRef, ScopeState, SpawnedBatches, current, spare},
    task::{BoxedTask, End, Order, PollTask, Queue, TaskCell},
};

impl Batch {
    /// What a request has collected becomes a batch, on the roster. Its registry is closed.
    #[inline]
    pub(crate) fn collect(
        state: Option<Box<ScopeState>>,
        outcome: Outcome,
        order: Option<Order>,
    ) -> Batch {
        match state {
            None => Batch::done(),
            Some(state) => Batch::hand_over(state, outcome, order),
        }
    }

    #[inline(never)]
    pub(crate) fn hand_over(
        mut state: Box<ScopeState>,
        outcome: Outcome,
        order: Option<Order>,
    ) -> Batch {
        state.outcome = Some(outcome);
        state.order = order.unwrap_or(state.runner.get().order);
        if state.slow_path || state.order == Order::Parallel {
            return Batch::hand_over_on_slow_path(state, outcome);
        }
        // They may have been taken back.
        state.keyed = state.keyed && state.backlog.has_keys();
        // It was empty: to look for something to drop would cost more than to put this there.
        let tasks = state.backlog.take();
        let gap = mem::replace(&mut state.queue, tasks);
        debug_assert!(!gap.has_memory(), "it was handed over before");
        mem::forget(gap);
        state.allow_polls(state.queue.len());
        if state.queue.is_empty() {
            close::settle(state);
            return Batch::done();
        }
        Batch::registered(state)
    }

    #[cold]
    fn hand_over_on_slow_path(mut state: Box<ScopeState>, outcome: Outcome) -> Batch {
        state.slow_path = true;
        let order = state.order;
        let runner = state.runner.clone();
        let registry = Registry::of(state);
        current::enter(&registry, || {
            at_hand_over(&registry, runner.get(), outcome, order);
        });
        let Some(state) = registry.close() else {
            return Batch::done();
        };
        if state.queue.is_empty() {
            // Until its gate is open, handles bring what is handed over with the rest. The last one may have gone since we
            // looked into the inbox: looked for first, so that nothing comes behind the second look.
            let others = |inbox: &Arc<Inbox>| Arc::strong_count(inbox) > 1 || inbox.len() > 0;
            let waits = state.gate().is_some() && state.inbox().is_some_and(others);
            if state.spawned().is_empty() && !waits {
                close::settle(state);
                return Batch::done();
            }
            if !waits {
                return Batch::of(state);
            }
        }
        Batch::registered(state)
    }

    /// On the roster, with what is in the queue.
    #[inline]
    fn registered(mut state: Box<ScopeState>) -> Batch {
        let extra = roster_extra(&state);
        let unpublished = state.take_unpublished();
        let account = &state.runner.get().account;
        state.roster_key = Some(account.register(&unpublished, &state.queue, extra));
        Batch::of(state)
    }

    /// For a task that came when its scope's batch was over.
    pub(crate) fn late(late: Late) -> Batch {
        let Late {
            runner,
            runtime,
            order,
            context,
            outcome,
            task,
        } = late;
        let mut state = spare::take(runner);
        state.runtime = runtime;
        state.order = order;
        state.set_context(context);
        state.slow_path = true;
        state.keyed = task.key().is_some();
        state.collect(task);
        Batch::hand_over(state, outcome, Some(order))
    }
}

/// What the roster is to know of a batch besides its tasks. Of one that has neither a key nor an inbox nothing is looked at.
#[inline]
fn roster_extra(state: &ScopeState) -> Option<Box<Extra>> {
    match state.keyed || state.inbox().is_some() {
        true => Extra::of(&state.queue, state.inbox()),
        false => None,
    }
}

/// The end of a request: decides which of its tasks run, and where. `registry` is current.
fn at_hand_over(registry: &Registry, core: &Core, outcome: Outcome, order: Order) {
    let now = (!core.observers.is_empty()).then(Instant::now);
    let (inbox, gated) = registry.with_state(|state| {
        state.give_up_inbox_if_alone();
        (state.inbox().cloned(), state.gate().is_some())
    });
    let tasks = match &inbox {
        Some(inbox) => {
            let runtime = registry.peek(|state| state.runtime.clone());
            let runtime = runtime.unwrap_or_default();
            registry.take_back(inbox.hand_over(outcome, order, &runtime, gated))
        }
        None => registry.take_backlog(),
    };
    // Without a condition none of the user's code runs here, and what comes from elsewhere joins the batch.
    let conditional = tasks.iter().any(is_conditional);
    let mut kept = match conditional {
        true => decide_all(registry, core, outcome, tasks, gated),
        false => tasks,
    };
    if let Some(now) = now {
        for task in kept.iter_mut() {
            task.as_mut().could_start_from(|| now);
        }
    }
    let spawned = extract_spawned(&mut kept, order);
    registry.peek(|state| {
        if core.scope_timeout.is_some() {
            state.extras_mut().deadline = Some(ScopeDeadline::new());
        }
        state.allow_polls(kept.len());
        let gap = mem::replace(&mut state.queue, kept);
        debug_assert!(!gap.has_memory(), "it was handed over before");
        mem::forget(gap);
        state.slow_path = state.needs_slow_path();
    });
    // What is left is published with its entry on the roster, or, if that is nothing, when its context is gone: who
    // waits for the account is woken by it.
    if let Some(spawned) = spawned {
        let spawned = spawned_batches(registry, spawned);
        registry.peek(|state| {
            state.extras_mut().spawned = spawned;
            state.slow_path = true;
        });
    }
}

/// Decides conditions until none is left, and returns what runs.
#[inline(never)]
fn decide_all(
    registry: &Registry,
    core: &Core,
    outcome: Outcome,
    mut tasks: Queue,
    gated: bool,
) -> Queue {
    let mut kept = Queue::default();
    loop {
        kept.append(decide(registry, core, outcome, tasks));
        // What the destructors of the discarded have deferred is of this request too. They may also have taken the first
        // handle: the inbox is looked for each time.
        tasks = match &registry.inbox() {
            Some(inbox) if kept.is_empty() && !gated => registry.take_back(inbox.batch_ends()),
            Some(inbox) => inbox.batch_runs(),
            None => registry.take_backlog(),
        };
        if !tasks.iter().any(is_conditional) {
            kept.append(tasks);
            return kept;
        }
    }
}

fn is_conditional(task: &TaskCell<dyn PollTask>) -> bool {
    task.options()
        .is_some_and(|options| options.condition.is_some())
}

/// Decides the conditions, and drops those that are not to run.
pub(super) fn decide(
    registry: &Registry,
    core: &Core,
    outcome: Outcome,
    mut tasks: Queue,
) -> Queue {
    let (all, mut gaps) = (tasks.len(), 0);
    for slot in tasks.first_slots(all) {
        let Some(task) = slot else { continue };
        let Some(condition) = task.options().and_then(|options| options.condition) else {
            continue;
        };
        let end = match report::catch(|| (condition.holds)(outcome)) {
            Ok(true) => {
                task.as_mut().give_up_condition();
                continue;
            }
            Ok(false) => End::Discarded,
            Err(payload) => End::Panicked(payload),
        };
        if let Some(task) = slot.take() {
            gaps += 1;
            end_task(registry, core, task, end);
        }
    }
    tasks.close_up(all, gaps);
    tasks
}

/// Takes out those that are batches of their own, if there are any.
#[inline]
pub(super) fn extract_spawned(tasks: &mut Queue, order: Order) -> Option<Queue> {
    tasks.extract(|task| order == Order::Parallel || task.is_spawned())
}

/// Batches of one, with the scope's outcome and context. With them on the roster is published what the scope has kept to
/// itself, before any of them can end (invariant 2). That wakes nobody: they are pending.
pub(super) fn spawned_batches(registry: &Registry, mut tasks: Queue) -> SpawnedBatches {
    let context = registry.context();
    let batches = registry.peek(|state| {
        let unpublished = state.take_unpublished();
        let opened = state.extras().and_then(|extras| extras.opened);
        let deadline = state.extras().and_then(|extras| extras.deadline.as_ref());
        let batch = |task| {
            let mut single = batch_of_one(state.runner.clone(), task);
            single.outcome = state.outcome;
            single.order = state.order;
            single.slow_path |= state.order == Order::Parallel;
            single.set_context(context.clone());
            if let Some(deadline) = deadline {
                single.extras_mut().deadline = Some(deadline.share());
                single.slow_path = true;
            }
            if opened.is_some() {
                single.extras_mut().opened = opened;
            }
            single
        };
        let mut batches = SpawnedBatches::with_capacity(tasks.len());
        while let Some(task) = tasks.pop_front() {
            batches.push(batch(task));
        }
        state.backlog.reuse(&mut tasks);
        let account = &state.runner.get().account;
        account.register_each(&unpublished, |roster| {
            for single in batches.iter_mut().filter(|single| !single.keyed) {
                single.roster_key = Some(roster.register(&single.queue, None));
            }
        });
        // What the roster is to know of a key is made when it is not locked.
        for single in batches.iter_mut().filter(|single| single.keyed) {
            let (extra, nothing) = (roster_extra(single), Unpublished::default());
            single.roster_key = Some(account.register(&nothing, &single.queue, extra));
        }
        batches
    });
    batches.unwrap_or_default()
}

/// A batch of one that is on the account already.
fn batch_of_one(runner: RunnerRef, mut task: BoxedTask) -> Box<ScopeState> {
    task.as_mut().set_spawned(false);
    let mut state = spare::take(runner);
    state.slow_path |= task.needs_slow_path();
    state.keyed = task.key().is_some();
    state.on_account = true;
    state.allow_polls(1);
    // It keeps its number, and what it defers must not get the same.
    state.backlog.continue_after(task.sequence());
    // The memory that the box has kept for its tasks.
    state.backlog.begin();
    state.queue = state.backlog.take();
    state.queue.push_back(task);
    state
}
