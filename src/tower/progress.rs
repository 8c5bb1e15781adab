//! How far a response has come, and so how its request ended.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header::CONTENT_LENGTH, response::Parts};
use http_body::{Body, Frame};

use crate::Outcome;

/// What the request and the response's head announce, and what has been delivered of it.
///
/// Servers stop to poll a body as soon as they know that nothing is to come: hyper polls neither one of a known length
/// to its `None`, nor any after its trailers. So "complete" is more than "has returned `None`".
pub(super) struct Progress {
    asks: Asks,
    /// What the head says, or with `grpc` the trailers.
    failed: bool,
    /// Whether the trailers have the last word.
    grpc: bool,
    /// Nothing is missing any more, whatever else the body would do.
    complete: bool,
    /// The body has panicked where the server had asked it something: it goes on to its drop, or to a poll.
    panicked: bool,
    /// A header has announced the length: with less the client's answer is broken. A hint alone binds nobody.
    declared: bool,
    delivered: u64,
    announced: Option<u64>,
}

/// What of the request says that its response has no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Body,
    Head,
    Tunnel,
}

/// What a body says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    ended: bool,
    /// How many bytes are to come, if it knows.
    left: Option<u64>,
}

impl Said {
    /// Asks the body: the user's code.
    #[inline]
    pub(super) fn by(body: &impl Body) -> Said {
        Said {
            ended: body.is_end_stream(),
            left: body.size_hint().exact(),
        }
    }
}

impl Asks {
    pub(super) fn of(method: &Method) -> Asks {
        match *method {
            Method::HEAD => Asks::Head,
            Method::CONNECT => Asks::Tunnel,
            _ => Asks::Body,
        }
    }

    /// RFC 9110, section 6.4.1: what has no content. Also informational responses, as an upgrade is one.
    fn nothing_with(self, status: StatusCode) -> bool {
        match self {
            Asks::Head => true,
            Asks::Tunnel if status.is_success() => true,
            _ => {
                status.is_informational()
                    || status == StatusCode::NO_CONTENT
                    || status == StatusCode::NOT_MODIFIED
            }
        }
    }
}

impl Progress {
    /// Nothing is known yet but the request.
    pub(super) fn new(asks: Asks, grpc: bool) -> Self {
        Progress {
            asks,
            failed: false,
            grpc,
            complete: false,
            panicked: false,
            declared: false,
            delivered: 0,
            announced: None,
        }
    }

    /// The head, and what `failed_if` says of it.
    pub(super) fn answers(&mut self, head: &Parts, failed: bool) {
        self.failed = failed;
        let empty = self.asks.nothing_with(head.status);
        self.complete = empty;
        self.announced = content_length(&head.headers);
        self.declared = !empty && self.announced.is_some();
        // In the trailers-only form of gRPC the head is all there is; otherwise the trailers are to say 0.
        if self.grpc && head.headers.contains_key(GRPC_STATUS) {
            self.grpc = false;
        }
    }

    /// What the body says of itself after its last frame, or before the first.
    #[inline]
    pub(super) fn hears(&mut self, said: Said) {
        self.says_end(said.ended);
        if self.announced.is_none() {
            self.announced = said.left.map(|left| left.saturating_add(self.delivered));
        }
    }

    /// Who has said once that it has ended can't take it back.
    #[inline]
    pub(super) fn says_end(&mut self, ended: bool) {
        if ended {
            self.complete = true;
        }
    }

    pub(super) fn panics(&mut self) {
        self.panicked = true;
    }

    #[inline]
    pub(super) fn delivers(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.delivered = self.delivered.saturating_add(data.len() as u64);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.complete = true;
            if self.grpc {
                self.failed |= !is_ok(trailers);
                self.grpc = false;
            }
        }
    }

    /// How the request has ended when its body has returned an error.
    pub(super) fn outcome_of_error(&self) -> Outcome {
        match self.panicked {
            true => Outcome::Panicked,
            false => Outcome::Failed,
        }
    }

    /// How it has ended when its body has no more to give. Who waits for trailers then has waited in vain, and so has the
    /// client for bytes that were announced to it.
    pub(super) fn outcome_of_end(&self) -> Outcome {
        if self.panicked {
            return Outcome::Panicked;
        }
        let broken = self.declared && !self.has_delivered();
        match self.failed || self.grpc || broken {
            true => Outcome::Failed,
            false => Outcome::Finished,
        }
    }

    /// Whether as many bytes as were announced are out.
    fn has_delivered(&self) -> bool {
        let announced = self.announced;
        announced.is_some_and(|length| length <= self.delivered)
    }

    /// How it has ended when the body is dropped. Bytes alone don't complete what waits for trailers.
    pub(super) fn outcome_of_drop(&self) -> Outcome {
        let delivered = !self.grpc && self.has_delivered();
        match self.complete || delivered || self.panicked {
            true => self.outcome_of_end(),
            false => Outcome::Cancelled,
        }
    }

    /// As far as the head can tell.
    pub(super) fn outcome_of_head(&self) -> Outcome {
        match self.failed {
            true => Outcome::Failed,
            false => Outcome::Finished,
        }
    }
}

/// The default of `failed_if`.
pub(super) fn status_failed(head: &Parts) -> bool {
    head.status.as_u16() >= 400
}

const GRPC_STATUS: &str = "grpc-status";

/// What the head of a gRPC response can say.
pub(super) fn grpc_failed(head: &Parts) -> bool {
    status_failed(head) || (head.headers.contains_key(GRPC_STATUS) && !is_ok(&head.headers))
}

fn is_ok(headers: &HeaderMap) -> bool {
    headers.get(GRPC_STATUS).is_some_and(|status| status == "0")
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}
