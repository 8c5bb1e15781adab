//! Sentence 11, N16: once the tasks of a batch have wakers of their own, those are polled that were woken, and all of
//! them, whatever waker the batch is polled with, however many they are.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;

use crate::common::{Batches, CountingWaker, keeping, now_or_never};

/// What the tasks of a crowd do when they are polled, and have done.
#[derive(Default)]
struct Ledger {
    /// By task: its last waker.
    wakers: Vec<Option<Waker>>,
    /// By task: how many it defers when it is polled next.
    births: Vec<usize>,
    /// By task: whom it wakes when it is polled next.
    wakes: Vec<Option<usize>>,
    ending: BTreeSet<usize>,
    busy: BTreeSet<usize>,
    /// Tasks that have been polled, in order.
    polled: Vec<usize>,
}

/// One of them.
struct Member {
    id: usize,
    ledger: Arc<Mutex<Ledger>>,
}

impl Future for Member {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.polled.push(self.id);
        let births = std::mem::take(&mut ledger.births[self.id]);
        let ends = ledger.ending.remove(&self.id);
        if ledger.busy.contains(&self.id) {
            cx.waker().wake_by_ref();
        }
        ledger.wakers[self.id] = Some(cx.waker().clone());
        let woken = ledger.wakes[self.id].take();
        let woken = woken.and_then(|id| ledger.wakers[id].clone());
        drop(ledger);
        woken.iter().for_each(Waker::wake_by_ref);
        for _ in 0..births {
            defer_member(&self.ledger);
        }
        if ends { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn defer_member(ledger: &Arc<Mutex<Ledger>>) {
    let id = {
        let mut ledger = ledger.lock().unwrap();
        ledger.wakers.push(None);
        ledger.births.push(0);
        ledger.wakes.push(None);
        ledger.wakers.len() - 1
    };
    let ledger = ledger.clone();
    after::defer(Member { id, ledger });
}

/// A batch whose tasks have wakers of their own.
struct Crowd {
    batch: after::Batch,
    ledger: Arc<Mutex<Ledger>>,
    counter: Arc<CountingWaker>,
    waker: Waker,
    /// How often the waker had been woken when the batch was polled last.
    seen: usize,
    live: BTreeSet<usize>,
    /// Woken since they were polled last.
    woken: BTreeSet<usize>,
    runner: after::Runner,
}

impl Crowd {
    fn new(tasks: usize) -> Crowd {
        let (runner, batches): (_, Batches) = keeping();
        let ledger: Arc<Mutex<Ledger>> = Arc::default();
        now_or_never(runner.scope(async { (0..tasks).for_each(|_| defer_member(&ledger)) }));
        let (counter, waker) = CountingWaker::new();
        let mut crowd = Crowd {
            batch: batches.take_one(),
            ledger,
            counter,
            waker,
            seen: 0,
            live: (0..tasks).collect(),
            woken: BTreeSet::new(),
            runner,
        };
        // The first poll starts nothing; the others are as many as it takes until they have wakers, for few tasks.
        for _ in 0..10 {
            let _ = crowd.poll();
        }
        crowd.settle();
        crowd.ledger().polled.clear();
        crowd
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    fn poll(&mut self) -> Poll<()> {
        self.seen = self.counter.wakes();
        let before = self.ledger().polled.len();
        let born = self.ledger().wakers.len();
        let ending = self.ledger().ending.clone();
        let poll = Pin::new(&mut self.batch).poll(&mut Context::from_waker(&self.waker));
        let ledger = self.ledger.lock().unwrap();
        self.live.extend(born..ledger.wakers.len());
        for id in &ledger.polled[before..] {
            self.woken.remove(id);
            if ending.contains(id) {
                self.live.remove(id);
            }
        }
        self.woken.extend(&ledger.busy);
        self.woken.retain(|id| self.live.contains(id));
        poll
    }

    /// From now on the batch is polled with another waker: the old one does nothing for it.
    fn move_elsewhere(&mut self) {
        (self.counter, self.waker) = CountingWaker::new();
        let _ = self.poll();
    }

    fn is_woken(&self) -> bool {
        self.counter.wakes() > self.seen
    }

    /// Polls as long as it is woken, and says who was polled, in order of their numbers.
    fn settle(&mut self) -> Vec<usize> {
        self.ledger().polled.clear();
        while self.is_woken() && self.poll().is_pending() {}
        let mut polled = std::mem::take(&mut self.ledger().polled);
        polled.sort_unstable();
        polled
    }

    fn wake(&mut self, id: usize) {
        let waker = self.ledger().wakers[id].clone();
        waker.expect("it was polled").wake();
        if self.live.contains(&id) {
            self.woken.insert(id);
        }
    }

    fn end(&mut self, id: usize) {
        self.ledger().ending.insert(id);
        self.wake(id);
    }
}

/// Who is woken is polled and nobody else, whichever block of 64 it is in; with more than 4,096 tasks blocks share a bit.
#[test]
fn who_is_woken_is_polled_and_nobody_else() {
    let mut crowd = Crowd::new(5_000);
    for chosen in [
        &[0][..],
        &[63],
        &[64],
        &[65, 127, 128],
        // Their blocks share a bit.
        &[70, 64 + 4_096],
        &[4_999],
        &[0, 1, 2, 63, 64, 1_000, 4_095, 4_096, 4_500],
    ] {
        chosen.iter().for_each(|id| crowd.wake(*id));
        assert_eq!(crowd.settle(), chosen);
    }
    // More than a turn takes.
    (100..200).for_each(|id| crowd.wake(id));
    assert_eq!(crowd.settle(), (100..200).collect::<Vec<_>>());
}

/// One wake-up of the batch is enough for all that are woken before it is polled, in the first block.
#[test]
fn tasks_that_are_woken_together_wake_their_batch_once() {
    let mut crowd = Crowd::new(40);
    let before = crowd.counter.wakes();
    (0..30).for_each(|id| crowd.wake(id));
    crowd.wake(7);
    assert_eq!(crowd.counter.wakes(), before + 1);
    assert_eq!(crowd.settle(), (0..30).collect::<Vec<_>>());
}

/// A task that is woken again in the turn that is going to poll it, by a sibling, is polled once.
#[test]
fn a_poll_is_for_all_that_woke_the_task_before() {
    let mut crowd = Crowd::new(40);
    let mut once = 0;
    for _ in 0..4 {
        crowd.ledger().wakes[3] = Some(4);
        crowd.wake(3);
        crowd.wake(4);
        match crowd.settle()[..] {
            [3, 4] => once += 1,
            // It came first in that turn.
            [3, 4, 4] => {}
            ref other => panic!("{other:?}"),
        }
    }
    assert!(
        once > 0,
        "the sibling came first in no turn, or did not spare it a poll"
    );
}

/// The places of tasks that have ended go to new ones, with wakers of their own.
#[test]
fn a_late_wake_up_of_a_task_that_has_ended_does_no_harm() {
    let mut crowd = Crowd::new(200);
    let late: Vec<_> = (64..200)
        .map(|id| crowd.ledger().wakers[id].clone().unwrap())
        .collect();
    (64..200).for_each(|id| crowd.end(id));
    crowd.settle();
    assert_eq!(crowd.batch.len(), 64);
    crowd.ledger().births[0] = 136;
    crowd.wake(0);
    crowd.settle();
    assert_eq!(crowd.batch.len(), 200);
    late.iter().for_each(Waker::wake_by_ref);
    let _ = crowd.poll();
    assert!(crowd.settle().is_empty());
    crowd.wake(200);
    crowd.wake(335);
    assert_eq!(crowd.settle(), [200, 335]);
}

/// A batch may be polled with another waker each time, as `select!` and `join_all` do: the last one is woken.
#[test]
fn the_waker_of_the_last_poll_is_woken() {
    let mut crowd = Crowd::new(100);
    let first = crowd.counter.clone();
    for id in [5, 70, 5, 99] {
        crowd.move_elsewhere();
        crowd.settle();
        let elsewhere = first.wakes();
        crowd.wake(id);
        assert!(crowd.is_woken());
        assert_eq!(
            first.wakes(),
            elsewhere,
            "the first waker is not asked any more"
        );
        assert_eq!(crowd.settle(), [id]);
    }
}

/// Tasks that are woken at every poll, more than a turn polls, leave room for each other and for those that come new.
#[test]
fn busy_tasks_starve_nobody() {
    let mut crowd = Crowd::new(300);
    let busy: BTreeSet<usize> = (0..290).collect();
    crowd.ledger().busy = busy.clone();
    busy.iter().for_each(|id| crowd.wake(*id));
    let _ = crowd.poll();
    for round in 0..5 {
        let quiet = 295;
        crowd.wake(quiet);
        let born = crowd.live.len();
        crowd.ledger().births[quiet] = 40;
        crowd.ledger().polled.clear();
        // 331 tasks at 32 a turn, of which half may go to new ones.
        for _ in 0..24 {
            assert!(crowd.is_woken());
            assert!(crowd.poll().is_pending());
        }
        let polled: BTreeSet<usize> = crowd.ledger().polled.iter().copied().collect();
        assert!(busy.is_subset(&polled), "round {round}");
        assert!(polled.contains(&quiet), "round {round}");
        assert!(
            (born..born + 40).all(|id| polled.contains(&id)),
            "round {round}"
        );
    }
}

/// A turn polls at most 32, also of those that are new.
#[test]
fn new_tasks_come_by_turns_too() {
    let mut crowd = Crowd::new(8);
    crowd.ledger().births[3] = 100;
    crowd.wake(3);
    while crowd.is_woken() {
        crowd.ledger().polled.clear();
        assert!(crowd.poll().is_pending());
        assert!(crowd.ledger().polled.len() <= 32);
    }
    let all_polled = crowd.ledger().wakers.iter().all(Option::is_some);
    assert!(all_polled && crowd.live.len() == 108);
}

/// What happens to a crowd.
#[derive(Clone, Debug)]
enum Event {
    Wake(prop::sample::Index),
    /// It is woken, and ends when it is polled.
    End(prop::sample::Index),
    /// It is woken, and defers so many when it is polled.
    Bear(prop::sample::Index, usize),
    /// A waker that it had before.
    WakeLate(prop::sample::Index),
    Poll,
    Move,
    Settle,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = any::<prop::sample::Index>;
    let event = prop_oneof![
        8 => who().prop_map(Event::Wake),
        6 => who().prop_map(Event::End),
        1 => (who(), 0..70_usize).prop_map(|(who, births)| Event::Bear(who, births)),
        1 => who().prop_map(Event::WakeLate),
        6 => Just(Event::Poll),
        1 => Just(Event::Move),
        2 => Just(Event::Settle),
    ];
    prop::collection::vec(event, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever comes in whatever order: while a task is woken and not polled, so is its batch; in the end all are polled,
    /// and all that are to end have ended.
    #[test]
    fn no_wake_up_is_lost(tasks in 4..200_usize, events in events()) {
        let mut crowd = Crowd::new(tasks);
        for event in events {
            let has_been_polled = |id: &usize| crowd.ledger().wakers[*id].is_some();
            let live: Vec<usize> = crowd.live.iter().copied().filter(has_been_polled).collect();
            if live.is_empty() {
                break;
            }
            match event {
                Event::Wake(who) => crowd.wake(*who.get(&live)),
                Event::End(who) => crowd.end(*who.get(&live)),
                Event::Bear(who, births) => {
                    let who = *who.get(&live);
                    crowd.ledger().births[who] += births;
                    crowd.wake(who);
                }
                Event::WakeLate(who) => {
                    let waker = who.get(&crowd.ledger().wakers).clone();
                    waker.iter().for_each(Waker::wake_by_ref);
                }
                Event::Poll => assert!(crowd.poll().is_pending() || crowd.live.is_empty()),
                Event::Move => crowd.move_elsewhere(),
                Event::Settle => {
                    crowd.settle();
                    prop_assert!(crowd.woken.is_empty(), "never polled: {:?}", crowd.woken);
                }
            }
            prop_assert!(crowd.woken.is_empty() || crowd.is_woken(), "nobody polls {:?}", crowd.woken);
        }
        crowd.settle();
        prop_assert_eq!(crowd.batch.len(), crowd.live.len());
        let live: Vec<usize> = crowd.live.iter().copied().collect();
        live.iter().for_each(|id| crowd.end(*id));
        crowd.settle();
        prop_assert!(crowd.live.is_empty());
        let born = crowd.ledger().wakers.len() as u64;
        prop_assert_eq!(crowd.runner.stats().completed, born);
    }
}
