//! Requests at moments that are set beforehand, whatever the server does meanwhile: an open loop.
//!
//! The clients of a service don't wait for each other. So the moments are those of a Poisson process, and a latency counts
//! from the moment at which a request was due: what a slow answer keeps from being sent in time is in the figures
//! ("corrected omission"). The thread that sends never sleeps. A timer with ticks of a millisecond, which most generators
//! have, would send all requests of a tick at once, and measure the queue that it has made.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::Failure;

/// So many requests, one after another, have a 99th percentile of their own.
pub(crate) const WINDOW: usize = 250;

/// What the clients saw.
#[derive(Clone, Debug)]
pub(crate) struct Paced {
    /// Requests that were due.
    pub(crate) due: u64,
    pub(crate) answered: u64,
    /// Of them, whose answers had come when the last request was due, a second.
    pub(crate) per_second: f64,
    /// From when a request was due until its answer was there, ascending. One without an answer is there with the time it
    /// has waited in vain, which is too short.
    pub(crate) latencies: Vec<Duration>,
    /// The 99th percentile of each [`WINDOW`], ascending. A machine that stops for some milliseconds spoils the windows in
    /// which it does, and not the others.
    windows: Vec<Duration>,
    /// How long after they were due the requests were sent that had a free connection, ascending: what the generator adds
    /// by itself.
    pub(crate) late: Vec<Duration>,
}

impl Paced {
    pub(crate) fn latency(&self, share: f64) -> Duration {
        quantile(&self.latencies, share)
    }

    /// That of the median window.
    pub(crate) fn typical_p99(&self) -> Duration {
        quantile(&self.windows, 0.5)
    }

    pub(crate) fn late(&self, share: f64) -> Duration {
        quantile(&self.late, share)
    }
}

/// How requests are offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// A second.
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    /// After that, for the answers that have not come.
    pub(crate) patience: Duration,
    /// The same seed gives the same moments.
    pub(crate) seed: u64,
}

/// One connection, and the request that is on it.
struct Connection {
    stream: TcpStream,
    due: Option<Instant>,
    received: Vec<u8>,
}

/// Connections to a server. A request that is due while all are busy waits for one of them.
pub(crate) struct Clients {
    request: String,
    poll: Poll,
    connections: Vec<Connection>,
}

impl Clients {
    /// Opens them, and has one request answered on each: what that costs the server is not measured.
    pub(crate) fn connect(
        address: &str,
        path: &str,
        count: usize,
        patience: Duration,
    ) -> Result<Clients, Failure> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let mut poll = Poll::new()?;
        let mut connections = Vec::with_capacity(count);
        let start = Instant::now();
        for index in 0..count {
            let stream = net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let registry = poll.registry();
            registry.register(&mut stream, Token(index), Interest::READABLE)?;
            let mut connection = Connection {
                stream,
                due: None,
                received: Vec::new(),
            };
            connection.send(&request, start)?;
            connections.push(connection);
        }
        let mut events = Events::with_capacity(32);
        let mut open = count;
        while open > 0 {
            poll.poll(&mut events, Some(patience))?;
            for event in &events {
                let Token(index) = event.token();
                if connections[index].answered()? {
                    connections[index].due = None;
                    open -= 1;
                }
            }
            if start.elapsed() > patience {
                return Err(format!("{open} of {count} connections have no answer").into());
            }
        }
        Ok(Clients {
            request,
            poll,
            connections,
        })
    }

    /// Offers requests, and waits for their answers.
    pub(crate) fn offer(self, offer: Offer) -> Result<Paced, Failure> {
        let Clients {
            request,
            mut poll,
            mut connections,
        } = self;
        let expected = (offer.rate * offer.time.as_secs_f64()) as usize;
        let mut latencies = Vec::with_capacity(expected * 2);
        let mut late = Vec::with_capacity(expected * 2);
        // Not too many at a time: what is due meanwhile is late.
        let mut events = Events::with_capacity(32);
        let mut free: VecDeque<usize> = (0..connections.len()).collect();
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let mut gaps = Gaps::new(offer.seed, offer.rate);
        let start = Instant::now();
        let (end, patience) = (start + offer.time, start + offer.time + offer.patience);
        let mut next = start + gaps.next();
        let (mut due, mut in_time) = (0, 0);
        loop {
            let now = Instant::now();
            while next <= now && next < end {
                due += 1;
                match free.pop_front() {
                    Some(index) => {
                        connections[index].send(&request, next)?;
                        late.push(next.elapsed());
                    }
                    None => waiting.push_back(next),
                }
                next += gaps.next();
            }
            if next >= end && free.len() == connections.len() || now > patience {
                break;
            }
            poll.poll(&mut events, Some(Duration::ZERO))?;
            for event in &events {
                let Token(index) = event.token();
                let connection = &mut connections[index];
                if connection.answered()? {
                    let now = Instant::now();
                    let asked = connection.due.take().ok_or("an answer without a request")?;
                    latencies.push((asked, now - asked));
                    in_time += u64::from(now < end);
                    match waiting.pop_front() {
                        Some(due) => connection.send(&request, due)?,
                        None => free.push_back(index),
                    }
                }
            }
        }
        let answered = latencies.len() as u64;
        let now = Instant::now();
        let open = connections.iter().filter_map(|connection| connection.due);
        latencies.extend(open.chain(waiting).map(|due| (due, now - due)));
        latencies.sort_unstable();
        let mut latencies: Vec<_> = latencies.into_iter().map(|(_, latency)| latency).collect();
        let windows = windows(&latencies);
        latencies.sort_unstable();
        late.sort_unstable();
        Ok(Paced {
            due,
            answered,
            per_second: in_time as f64 / offer.time.as_secs_f64(),
            latencies,
            windows,
            late,
        })
    }
}

impl Connection {
    fn send(&mut self, request: &str, due: Instant) -> Result<(), Failure> {
        self.due = Some(due);
        match self.stream.write(request.as_bytes())? == request.len() {
            true => Ok(()),
            false => Err("a connection took half of a request".into()),
        }
    }

    /// Reads what has come; whether that completes the answer.
    fn answered(&mut self) -> Result<bool, Failure> {
        let mut buffer = [0; 1_024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            if complete(&self.received)? {
                self.received.clear();
                return Ok(true);
            }
        }
    }
}

/// Whether it is a whole answer: the head, and as much as it says.
fn complete(answer: &[u8]) -> Result<bool, Failure> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    let (head, body) = answer.split_at(head + 4);
    let head = str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("an answer begins with {head}").into());
    }
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    // Without a length it is in chunks, and the last one is empty. No chunk of ours ends so.
    let Some((_, length)) = length else {
        return Ok(body.ends_with(b"0\r\n\r\n"));
    };
    let length: usize = length.parse()?;
    match body.len() > length {
        true => Err("an answer is too long".into()),
        false => Ok(body.len() == length),
    }
}

/// The times between arrivals that know nothing of each other.
struct Gaps {
    state: u64,
    mean: f64,
}

impl Gaps {
    fn new(seed: u64, rate: f64) -> Gaps {
        Gaps {
            state: seed,
            mean: 1.0 / rate,
        }
    }

    /// Exponentially distributed.
    fn next(&mut self) -> Duration {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let uniform = ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() * self.mean)
    }
}

/// Of latencies in the order in which the requests were due, in windows of about the same size.
fn windows(latencies: &[Duration]) -> Vec<Duration> {
    let count = (latencies.len() / WINDOW).max(1);
    let bounds = |window| window * latencies.len() / count;
    let mut windows: Vec<_> = (0..count)
        .map(|window| {
            let mut window = latencies[bounds(window)..bounds(window + 1)].to_vec();
            window.sort_unstable();
            quantile(&window, 0.99)
        })
        .collect();
    windows.sort_unstable();
    windows
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
