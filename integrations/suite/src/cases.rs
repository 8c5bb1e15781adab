//! The cases: what a client does, and what is seen then.

use std::net::SocketAddr;

use after::Outcome;

use crate::{
    Framework,
    app::{App, Event, SLOW_CHUNKS, large},
    client::{Client, request},
    table::{Cell, Moment},
};

/// A running service, and what its framework is known for.
#[derive(Clone, Copy)]
pub(crate) struct Service<'a> {
    pub(crate) app: &'a App,
    pub(crate) address: SocketAddr,
    pub(crate) framework: &'a Framework,
}

/// The cases that run in this process, in the order of the table.
pub(crate) const NAMES: [&str; 12] = [
    "JSON",
    "handler fails",
    "handler panics",
    "stream",
    "endless stream",
    "large body",
    "HEAD",
    "keep-alive, pipelined",
    "client gone in the handler",
    "client gone in mid-body",
    "connection reset in the handler",
    "slow reader",
];

impl Service<'_> {
    pub(crate) async fn run(self, case: &str) -> Cell {
        match case {
            "JSON" => self.json().await,
            "handler fails" => self.fails().await,
            "handler panics" => self.panics().await,
            "stream" => self.streams().await,
            "endless stream" => self.streams_endlessly().await,
            "large body" => self.sends_much().await,
            "HEAD" => self.head().await,
            "keep-alive, pipelined" => self.keeps_alive().await,
            "client gone in the handler" => self.loses_its_client_in_the_handler().await,
            "client gone in mid-body" => self.loses_its_client_in_the_body().await,
            "connection reset in the handler" => self.is_reset_in_the_handler().await,
            "slow reader" => self.has_a_slow_reader().await,
            other => panic!("no such case: {other}"),
        }
    }

    /// The client has its answer while the task can't have ended.
    async fn json(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/json").await;
        assert_eq!(client.answer().await, br#"{"route":"json"}"#);
        self.is_read().await;
        self.cell(1).await
    }

    async fn fails(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/fail").await;
        let head = client.head().await;
        assert_eq!(head.status, 500);
        assert_eq!(client.body(&head).await, b"failed");
        self.is_read().await;
        self.cell(1).await
    }

    /// The server goes on, whatever it tells the client.
    async fn panics(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/panic").await;
        let note = match client.try_head().await {
            Some(head) => {
                assert_eq!(head.status, 500);
                client.body(&head).await;
                "the client gets a 500"
            }
            None => "the connection is closed",
        };
        self.is_read().await;
        self.pings().await;
        self.cell(1).await.with(note)
    }

    /// The client opens the gate before the last chunk, when it has read the first.
    async fn streams(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/stream").await;
        let head = client.head().await;
        assert!(head.chunked, "{head:?}");
        assert_eq!(client.chunk().await.unwrap(), b"chunk\n");
        self.app.let_bodies_go_on();
        assert_eq!(client.body(&head).await, b"chunk\n");
        self.is_read().await;
        self.cell(1).await
    }

    async fn streams_endlessly(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/endless").await;
        client.head().await;
        for _ in 0..100 {
            client.chunk().await.unwrap();
        }
        self.hangs_up(client);
        self.app
            .wait_for(1, |event| *event == Event::BodyGone)
            .await;
        self.cell(1).await
    }

    async fn sends_much(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/large").await;
        let head = client.head().await;
        let large = large();
        assert_eq!(head.length, Some(large.len()), "the length is kept");
        assert!(client.body(&head).await == large, "each byte, once");
        self.is_read().await;
        self.cell(1).await
    }

    async fn head(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("HEAD", "/json").await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        // On the same connection: what came instead of this answer would be a body that is none.
        client.ask("GET", "/ping").await;
        assert_eq!(client.answer().await, b"pong");
        self.is_read().await;
        self.cell(1).await
    }

    /// Three requests in one write: the tasks of each are its own, no answer waits for them, and no task gets into an
    /// answer.
    async fn keeps_alive(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.send(&request("GET", "/json").repeat(3)).await;
        for _ in 0..3 {
            assert_eq!(client.answer().await, br#"{"route":"json"}"#);
        }
        // And one more, while those three tasks run.
        self.app
            .wait_for(3, |event| *event == Event::HandedOver)
            .await;
        client.ask("GET", "/ping").await;
        assert_eq!(client.answer().await, b"pong");
        self.is_read().await;
        let cell = self.cell(3).await;
        assert!(client.is_quiet(), "an answer that nobody has asked for");
        cell
    }

    async fn loses_its_client_in_the_handler(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/waits").await;
        self.app.wait_for(1, |event| *event == Event::Reached).await;
        self.hangs_up(client);
        self.ends_in_the_handler(self.framework.handler_goes_on)
            .await
    }

    async fn ends_in_the_handler(self, goes_on: bool) -> Cell {
        if goes_on {
            self.has_noticed().await;
            self.app.let_handlers_return();
        }
        let cell = self.cell(1).await;
        let events = self.app.events();
        let returned = events.contains(&Event::Returned);
        assert_eq!(returned, goes_on, "{events:?}");
        match returned {
            true => cell.with("the handler runs to its end"),
            false => cell,
        }
    }

    /// Whose client does not close, but break off: the server can't write to it any more.
    async fn is_reset_in_the_handler(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/waits").await;
        self.app.wait_for(1, |event| *event == Event::Reached).await;
        self.app.write(Event::HungUp);
        client.reset();
        self.ends_in_the_handler(self.framework.handler_survives_a_reset)
            .await
    }

    async fn loses_its_client_in_the_body(self) -> Cell {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/stream").await;
        client.head().await;
        client.chunk().await.unwrap();
        self.hangs_up(client);
        if self.framework.body_goes_on {
            self.has_noticed().await;
            self.app.let_bodies_go_on();
        }
        let cell = self.cell(1).await;
        let ended = self.app.events().contains(&Event::Chunk { last: true });
        assert_eq!(
            ended,
            self.framework.body_goes_on,
            "{:?}",
            self.app.events()
        );
        match ended {
            true => cell.with("the body is read on"),
            false => cell,
        }
    }

    /// A client that has read the head, and not the body: the request is not over before it does.
    async fn has_a_slow_reader(self) -> Cell {
        let mut client = Client::connect_slowly(self.address).await;
        client.ask("GET", "/slow").await;
        let head = client.head().await;
        let before = self.app.events();
        assert!(
            !before.contains(&Event::Chunk { last: true }),
            "all of it is in buffers"
        );
        assert!(!before.contains(&Event::HandedOver), "{before:?}");
        let body = client.body(&head).await;
        assert_eq!(body.len(), SLOW_CHUNKS * (64 << 10));
        self.is_read().await;
        self.cell(1).await
    }

    async fn is_read(self) {
        self.app.write(Event::Read);
    }

    fn hangs_up(self, client: Client) {
        self.app.write(Event::HungUp);
        drop(client);
    }

    async fn pings(self) {
        let mut client = Client::connect(self.address).await;
        client.ask("GET", "/ping").await;
        assert_eq!(client.answer().await, b"pong");
    }

    /// The server hears of what happens on its sockets in the order in which it has happened, and has one thread: so when it
    /// has answered twice, it has heard of what was before.
    async fn has_noticed(self) {
        self.pings().await;
        self.pings().await;
    }

    /// Lets the tasks end, and reads what has happened.
    async fn cell(self, requests: usize) -> Cell {
        let handed_over = |event: &Event| *event == Event::HandedOver;
        self.app.wait_for(requests, handed_over).await;
        let running = self.app.events();
        assert!(
            !running.iter().any(|event| matches!(event, Event::Ran(_))),
            "a task did not wait"
        );
        self.app.let_tasks_end();
        self.app.runner().drain().await;
        let events = self.app.events();
        let outcomes: Vec<Option<Outcome>> = events
            .iter()
            .filter_map(|event| match event {
                Event::Ran(outcome) => Some(*outcome),
                _ => None,
            })
            .collect();
        let outcome = outcomes[0].expect("a task knows the outcome of its request");
        assert!(
            outcomes.iter().all(|other| *other == Some(outcome)),
            "{outcomes:?}"
        );
        let stats = self.app.runner().stats();
        let ran = outcomes.len() as u64;
        assert_eq!((stats.deferred, stats.completed), (ran, ran), "{stats:?}");
        Cell::new(outcomes.len(), outcome, Moment::of(&events))
    }
}
