//! Interleaved samples, and what is made of them.

use std::time::{Duration, Instant};

use super::{clock::Clock, median::median, processes::emit, quick, results::Key};

/// One of those that are compared: a name, and a function that does the work so many times.
pub struct Candidate<'a> {
    pub name: &'static str,
    pub run: Box<dyn FnMut(u32) + 'a>,
}

impl<'a> Candidate<'a> {
    pub fn new(name: &'static str, run: impl FnMut(u32) + 'a) -> Self {
        Candidate {
            name,
            run: Box::new(run),
        }
    }

    /// From a function that does it once.
    pub fn once(name: &'static str, mut run: impl FnMut() + 'a) -> Self {
        Candidate::new(name, move |calls| {
            for _ in 0..calls {
                run();
            }
        })
    }
}

/// How a row is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    pub clock: Clock,
    /// How long a sample is, about.
    pub sample: Duration,
    /// For how long samples are taken, all candidates together.
    pub row: Duration,
    pub fewest_rounds: usize,
    /// What the figures of one call are divided by: how many requests, or tasks, are in it.
    pub calls_in_one: u32,
}

impl Plan {
    pub fn new(clock: Clock) -> Self {
        match quick() {
            false => Plan {
                clock,
                sample: Duration::from_micros(120),
                row: Duration::from_millis(130),
                fewest_rounds: 15,
                calls_in_one: 1,
            },
            true => Plan {
                clock,
                sample: Duration::from_micros(20),
                row: Duration::from_millis(4),
                fewest_rounds: 3,
                calls_in_one: 1,
            },
        }
    }

    /// As many calls as make a sample of the reference.
    pub fn calls(&self, reference: &mut Candidate<'_>) -> u32 {
        // The first calls fill what is reused, and find the code and the memory cold.
        (reference.run)(3);
        let mut calls = 1;
        loop {
            let time = self.clock.time(|| (reference.run)(calls));
            if time >= self.sample || calls >= 1 << 20 {
                let calls = f64::from(calls) * self.sample.as_secs_f64() / time.as_secs_f64();
                return (calls as u32).max(1);
            }
            calls *= 2;
        }
    }

    /// Nanoseconds of one call, by candidate and round.
    pub fn sample(&self, calls: u32, candidates: &mut [Candidate<'_>]) -> Vec<Vec<f64>> {
        let mut samples = vec![Vec::new(); candidates.len()];
        for candidate in candidates.iter_mut() {
            (candidate.run)(calls);
        }
        let calls_in_all = f64::from(calls) * f64::from(self.calls_in_one);
        let begin = Instant::now();
        let mut round = 0;
        while round < self.fewest_rounds || begin.elapsed() < self.row {
            for index in 0..candidates.len() {
                // Each round begins with another candidate, so that none always runs in the wake of the same neighbour.
                let index = (index + round) % candidates.len();
                let candidate = &mut candidates[index];
                let time = self.clock.time(|| (candidate.run)(calls));
                samples[index].push(time.as_nanos() as f64 / calls_in_all);
            }
            round += 1;
        }
        samples
    }

    /// Measures a row and reports all candidates, with the one named `reference` as the 1 of the ratios.
    pub fn compare(&self, key: &Key, reference: &str, mut candidates: Vec<Candidate<'_>>) {
        let place = place(&candidates, reference);
        let calls = self.calls(&mut candidates[place]);
        let samples = self.sample(calls, &mut candidates);
        for (candidate, of) in candidates.iter().zip(&samples) {
            report(key, candidate.name, of, &samples[place]);
        }
    }
}

pub fn place(candidates: &[Candidate<'_>], name: &str) -> usize {
    let place = candidates.iter().position(|one| one.name == name);
    place.unwrap_or_else(|| panic!("no candidate is called {name}"))
}

/// Reports the median of the samples, and of their ratios to the reference's samples of the same rounds.
pub fn report(key: &Key, candidate: &str, samples: &[f64], reference: &[f64]) {
    let ratios = samples.iter().zip(reference).map(|(a, b)| a / b);
    emit(
        key,
        candidate,
        median(samples.to_vec()),
        median(ratios.collect()),
    );
}
