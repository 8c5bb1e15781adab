//! Sentence 20, of scopes with many tasks: a shutdown names what has not ended, each task once, with its own place.

use std::{collections::BTreeMap, future::Future, pin::Pin, task::Context, time::Duration};

use futures::{
    StreamExt as _,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use proptest::prelude::*;

use crate::common::{self, CountingWaker, keeping, now_or_never};

const NAMES: [&str; 3] = ["audit", "mail", "index"];

enum Order {
    End,
    /// Defer so many of this kind.
    Bear(Kind, usize),
}

/// Their name, and from which of two places they are deferred.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: usize,
    second: bool,
    /// Each has another name than the one before.
    mixed: bool,
}

/// Gives the number of the line.
fn defer(kind: Kind, orders: UnboundedReceiver<Order>, born: &UnboundedSender<Born>) -> u32 {
    let Kind { name, second, .. } = kind;
    let task = after::task(NAMES[name % NAMES.len()]);
    let work = obey(orders, born.clone());
    if second {
        task.defer(work);
        line!() - 1
    } else {
        task.defer(work);
        line!() - 1
    }
}

/// A new task: what a report says of it, and how it is told what to do.
type Born = ((&'static str, u32), UnboundedSender<Order>);

fn bear(mut kind: Kind, tasks: usize, born: &UnboundedSender<Born>) {
    for _ in 0..tasks {
        kind.name += usize::from(kind.mixed);
        let (tell, orders) = unbounded();
        let line = defer(kind, orders, born);
        born.unbounded_send(((NAMES[kind.name % NAMES.len()], line), tell))
            .unwrap();
    }
}

fn obey(
    mut orders: UnboundedReceiver<Order>,
    born: UnboundedSender<Born>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        while let Some(Order::Bear(kind, tasks)) = orders.next().await {
            bear(kind, tasks, &born);
        }
    })
}

#[derive(Clone, Debug)]
enum Event {
    End(prop::sample::Index),
    /// Those that come one after another, so many.
    EndAll(prop::sample::Index, usize),
    Bear(prop::sample::Index, Kind, usize),
}

fn kind() -> impl Strategy<Value = Kind> {
    let fields = (0..NAMES.len(), any::<bool>(), any::<bool>());
    fields.prop_map(|(name, second, mixed)| Kind {
        name,
        second,
        mixed,
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = any::<prop::sample::Index>;
    let event = prop_oneof![
        6 => who().prop_map(Event::End),
        3 => (who(), 0..200_usize).prop_map(|(who, tasks)| Event::EndAll(who, tasks)),
        4 => (who(), kind(), 1..100_usize).prop_map(|(who, kind, n)| Event::Bear(who, kind, n)),
    ];
    prop::collection::vec(event, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whoever has ended, in whatever order, and whoever has joined: those that are left are named, in the order of deferral.
    #[test]
    fn a_shutdown_names_exactly_what_is_left(
        first in prop::collection::vec((kind(), 1..100_usize), 1..6),
        events in events(),
    ) {
        let (runner, batches) = keeping();
        let (born, mut births) = unbounded();
        now_or_never(runner.scope(async {
            first.into_iter().for_each(|(kind, tasks)| bear(kind, tasks, &born));
        }));
        let mut batch = batches.take_one();
        // By the order of deferral.
        let mut left: BTreeMap<usize, Born> = BTreeMap::new();
        let mut next = 0;
        let (counter, waker) = CountingWaker::new();
        let mut settle = |left: &mut BTreeMap<usize, Born>| {
            let mut seen = counter.wakes();
            let mut cx = Context::from_waker(&waker);
            while Pin::new(&mut batch).poll(&mut cx).is_pending() && counter.wakes() > seen {
                seen = counter.wakes();
            }
            while let Ok(born) = births.try_recv() {
                left.insert(next, born);
                next += 1;
            }
        };
        settle(&mut left);
        for event in events {
            if left.is_empty() {
                break;
            }
            let ids: Vec<usize> = left.keys().copied().collect();
            let (who, tasks) = match event {
                Event::Bear(who, kind, tasks) => {
                    let (_, tell) = &left[who.get(&ids)];
                    tell.unbounded_send(Order::Bear(kind, tasks)).unwrap();
                    settle(&mut left);
                    continue;
                }
                Event::End(who) => (who, 1),
                Event::EndAll(who, tasks) => (who, tasks),
            };
            for id in ids.into_iter().skip(who.index(left.len())).take(tasks) {
                let (_, tell) = left.remove(&id).unwrap();
                tell.unbounded_send(Order::End).unwrap();
            }
            settle(&mut left);
        }
        let report = now_or_never(runner.shutdown(Duration::ZERO));
        let named = report.unfinished().iter().map(|task| (task.name, task.location.line()));
        let expected = left.values().map(|(task, _)| *task);
        prop_assert!(named.eq(expected), "{} left: {report}", left.len());
        left.clear();
        settle(&mut left);
        prop_assert_eq!(runner.stats().pending, 0);
    }
}

/// Names and keys.
fn named(unfinished: &[after::Unfinished]) -> Vec<String> {
    for task in unfinished {
        assert_eq!(task.location.file(), file!());
    }
    let named = unfinished.iter();
    named
        .map(|task| format!("{} {}", task.name, task.key.as_deref().unwrap_or("-")))
        .collect()
}

/// Sentence 20, at any time: what a shutdown would name, without one, the oldest first; keyed tasks with their keys.
#[test]
fn a_runner_says_what_is_unfinished_at_any_time() {
    let (runner, batches) = keeping();
    assert!(runner.unfinished().is_empty());
    let (end, ends) = unbounded::<()>();
    let mut request = Box::pin(runner.scope(async {
        after::task("first")
            .key("user:7")
            .defer(ends.for_each(|()| async {}));
        after::task("plain").defer(std::future::pending::<()>());
        let key = String::from("user:8");
        after::task("second").key(key).defer(async {
            // Joins with a key that an older one has.
            after::task("nested")
                .key("user:7")
                .defer(std::future::pending::<()>());
        });
        std::future::ready(()).await
    }));
    assert!(runner.unfinished().is_empty(), "the request has not ended");
    now_or_never(request.as_mut());
    let ((), held) = now_or_never(
        runner
            .scope(async { after::task("held").defer(async {}) })
            .held(),
    );
    let all = ["first user:7", "plain -", "second user:8"];
    // Which of two batches of the same age is named first is not said.
    let with_held = |mut named: Vec<String>| {
        let before = named.len();
        named.retain(|task| task != "held -");
        assert_eq!(named.len(), before - 1);
        named
    };
    assert_eq!(with_held(named(&runner.unfinished())), all);
    let mut batch = batches.take_one();
    for _ in 0..2 {
        assert!(common::poll_once(Pin::new(&mut batch)).is_pending());
    }
    let nested = "nested user:7";
    assert_eq!(
        with_held(named(&runner.unfinished())),
        [all[0], all[1], nested]
    );
    let report = now_or_never(runner.shutdown(Duration::ZERO));
    assert_eq!(
        with_held(named(report.unfinished())),
        [all[0], all[1], nested]
    );
    let text = report.to_string();
    assert!(
        text.contains("`first` (key `user:7`, tests/account/roster.rs:"),
        "{text}"
    );
    assert!(text.contains("`plain` (tests/account/roster.rs:"), "{text}");
    drop(end);
    assert!(common::poll_once(Pin::new(&mut batch)).is_pending());
    assert_eq!(with_held(named(&runner.unfinished())), [all[1], nested]);
    drop((batch, held));
    assert!(runner.unfinished().is_empty());
}

/// Sentences 15 and 20: what has joined a batch since its last poll was counted, and not named.
#[test]
fn what_joined_a_batch_that_was_not_polled_since_is_named() {
    // Whether the handle is taken in the request, or by a task when the batch is on the roster.
    for in_the_request in [true, false] {
        let (runner, batches) = keeping();
        let (give, taken) = std::sync::mpsc::channel();
        now_or_never(runner.scope(async {
            if in_the_request {
                give.send(after::handle()).unwrap();
            }
            after::task("first").defer(async move {
                if !in_the_request {
                    give.send(after::handle()).unwrap();
                }
                std::future::pending::<()>().await;
            });
        }));
        let mut batch = batches.take_one();
        for _ in 0..3 {
            assert!(common::poll_once(Pin::new(&mut batch)).is_pending());
        }
        let handle: after::Handle = taken.recv().unwrap();
        handle
            .task("late")
            .key("k")
            .defer(std::future::pending::<()>());
        handle.task("later").defer(std::future::pending::<()>());
        let expected = ["first -", "late k", "later -"];
        assert_eq!(named(&runner.unfinished()), expected);
        let report = now_or_never(runner.shutdown(Duration::ZERO));
        assert_eq!(named(report.unfinished()), expected);
        assert!(
            !report.to_string().contains("requests that have not ended"),
            "{report}"
        );
        // Once it has taken them in, each is still named once.
        let _ = common::poll_once(Pin::new(&mut batch));
        assert_eq!(named(&runner.unfinished()), expected);
        drop(batch);
        assert!(runner.unfinished().is_empty());
        // A batch of its own is on the roster at once.
        handle
            .task("last")
            .key("k")
            .defer(std::future::pending::<()>());
        assert_eq!(named(&runner.unfinished()), ["last k"]);
    }
}

/// Sentence 20: what came through handles that are gone at the end of the request is named with its key, keeps the request's
/// values, and another handle brings more.
#[test]
fn what_came_through_handles_that_are_gone_is_named_and_others_join_it() {
    let (runner, batches) = keeping();
    let (give, taken) = std::sync::mpsc::channel();
    now_or_never(runner.scope(async {
        after::context::set(7_u32);
        after::defer(std::future::ready(()));
        let handle = after::handle();
        handle.task("mail").key("k").defer(async move {
            assert_eq!(after::context::get::<u32>(), Some(7));
            assert_eq!(after::outcome(), Some(after::Outcome::Finished));
            give.send(after::handle()).unwrap();
            std::future::pending::<()>().await;
        });
    }));
    assert_eq!(runner.stats().deferred, 2);
    let mut batch = batches.take_one();
    for _ in 0..3 {
        assert!(common::poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(runner.stats().completed, 1);
    let handle: after::Handle = taken.recv().unwrap();
    handle.task("later").defer(async {
        assert_eq!(after::context::get::<u32>(), Some(7));
        std::future::pending::<()>().await;
    });
    let expected = ["mail k", "later -"];
    assert_eq!(named(&runner.unfinished()), expected);
    let _ = common::poll_once(Pin::new(&mut batch));
    assert_eq!(named(&runner.unfinished()), expected);
    assert_eq!(runner.stats().panicked, 0);
    drop(batch);
    assert_eq!(runner.stats().lost, 2);
    assert_eq!(runner.stats().pending, 0);
}

struct DefersLast;

impl Drop for DefersLast {
    fn drop(&mut self) {
        after::task("last").defer(std::future::pending::<()>());
    }
}

/// Sentence 20: what the destructor of a task defers that is discarded when it joins a batch is named at once.
#[test]
fn what_a_discarded_task_that_joins_defers_is_named() {
    let (runner, batches) = keeping();
    now_or_never(runner.scope(async {
        after::task("first").defer(async {
            let last = DefersLast;
            after::task("discarded").on_failure().defer(async move {
                let _last = last;
            });
            std::future::pending::<()>().await;
        });
    }));
    let mut batch = batches.take_one();
    for _ in 0..2 {
        assert!(common::poll_once(Pin::new(&mut batch)).is_pending());
    }
    assert_eq!(runner.stats().discarded, 1);
    assert_eq!(named(&runner.unfinished()), ["first -", "last -"]);
    drop(batch);
}
