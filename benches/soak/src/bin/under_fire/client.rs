//! Clients with no library that might retry: a request that has failed has failed.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use fastrand::Rng;

use crate::AnyError;

/// Two of them keep their connection, and two open one for each request, so that some open one just as the server stops.
const CLIENTS: u64 = 4;
/// Requests of one client at the most: the load is bounded, whatever the server does.
const MOST_REQUESTS: u64 = 5_000;
/// As long as the server may take to answer.
const SILENCE: Duration = Duration::from_secs(60);

/// What the clients of one run share.
pub(crate) struct Load {
    pub(crate) answered: AtomicU64,
    /// Before the signal no request may fail.
    pub(crate) signalled: AtomicBool,
    /// How long tasks take at the most.
    pub(crate) longest_task: u64,
    /// One task of so many never ends.
    pub(crate) stuck: Option<u64>,
}

type Client = JoinHandle<Result<Vec<u64>, AnyError>>;

impl Load {
    /// Each client gives the ids of its requests that were answered in full.
    pub(crate) fn start(self: &Arc<Self>, address: SocketAddr, seed: u64) -> Vec<Client> {
        let client = |number| {
            let load = self.clone();
            let rng = Rng::with_seed(seed ^ number);
            thread::spawn(move || load.ask(number, address, rng))
        };
        (0..CLIENTS).map(client).collect()
    }

    /// Asks until the server is gone. Each id is sent once and never again.
    fn ask(&self, client: u64, address: SocketAddr, mut rng: Rng) -> Result<Vec<u64>, AnyError> {
        let keeps = client.is_multiple_of(2);
        let mut connection = None;
        let mut answered = Vec::new();
        for request in 0..MOST_REQUESTS {
            let id = client * MOST_REQUESTS + request;
            let milliseconds = match self.stuck {
                Some(stuck) if request.is_multiple_of(stuck) => 600_000,
                _ => rng.u64(..=self.longest_task),
            };
            let open = match connection.take() {
                Some(open) => Ok(open),
                None => Connection::open(address, keeps),
            };
            match open.and_then(|open| open.ask(id, milliseconds)) {
                Ok(stays) => {
                    answered.push(id);
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    connection = stays;
                }
                // Refused, or cut: it stays unanswered, and nobody was promised anything.
                Err(_) if self.signalled.load(Ordering::Acquire) => break,
                Err(error) => {
                    return Err(format!("request {id} before the signal: {error}").into());
                }
            }
        }
        Ok(answered)
    }
}

/// A connection of HTTP/1.1.
struct Connection {
    stream: BufReader<TcpStream>,
    keeps: bool,
}

impl Connection {
    fn open(address: SocketAddr, keeps: bool) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let stream = BufReader::new(stream);
        Ok(Connection { stream, keeps })
    }

    /// Sends a request and reads all of its answer. Gives the connection back if it can take another one.
    fn ask(mut self, id: u64, milliseconds: u64) -> io::Result<Option<Connection>> {
        let keep = if self.keeps { "keep-alive" } else { "close" };
        let request = format!(
            "GET /work/{id}/{milliseconds} HTTP/1.1\r\nhost: localhost\r\nconnection: {keep}\r\n\r\n"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;

        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut body = vec![0; format!("accepted {id}\n").len()];
        self.stream.read_exact(&mut body)?;
        let whole =
            head.starts_with("HTTP/1.1 200 ") && body == format!("accepted {id}\n").as_bytes();
        if !whole {
            return Err(io::Error::other(format!("an answer like no other: {head}")));
        }
        let closes = head.to_ascii_lowercase().contains("connection: close");
        Ok((self.keeps && !closes).then_some(self))
    }
}
