//! What the instruction guard counts of tasks that wait: requests whose tasks are woken ten times each.
//!
//! `instructions_woken <who>-<how>-<tasks> <repetitions> <padding>`, with who of `after` and `spawn`, how of `staggered` (one
//! wake-up after the other) and `at_once`; the rest is as in `instructions`. The guard stores only what `after` costs;
//! `spawn` is there to compare. A program of its own, because each use of the crate may change what is inlined in the
//! others, and so their counts.

mod common;

use std::hint::black_box;

use common::{
    runtimes::{CurrentThread, Runtime},
    wakes::{Meeting, Mode},
    ways::{Deferred, Requests, Spawned, Way, drive},
};

fn requests<W: Way>(tasks: usize, mode: Mode, repetitions: u32) {
    let requests = Requests {
        tasks,
        wakes: 10,
        mode,
        in_flight: 1,
    };
    let meeting = Meeting::leaked(tasks);
    CurrentThread::new().drive(drive(W::default(), meeting, repetitions, requests));
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo bench` runs this without arguments: there is nothing to print then.
    let [_, scenario, repetitions, padding] = &arguments[..] else {
        return;
    };
    let padding: usize = padding.parse().expect("a number of bytes");
    let _padding = black_box(vec![0_u8; padding]);
    let repetitions: u32 = repetitions.parse().expect("a number of repetitions");
    let words: Vec<_> = scenario.split('-').collect();
    let [who, how, tasks] = words[..] else {
        panic!("no scenario `{scenario}`: who, how and how many, as `after-staggered-3`");
    };
    let tasks = tasks.parse().expect("a number of tasks");
    let mode = match how {
        "staggered" => Mode::Staggered,
        "at_once" => Mode::AtOnce,
        other => panic!("`{other}`: neither staggered nor at_once"),
    };
    match who {
        "after" => requests::<Deferred<CurrentThread>>(tasks, mode, repetitions),
        "spawn" => requests::<Spawned<CurrentThread>>(tasks, mode, repetitions),
        other => panic!("`{other}`: neither after nor spawn"),
    }
}
