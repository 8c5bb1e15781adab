//! The mail server. The `mailin` crate knows the protocol; this moves the lines.

use std::io;

use mailin::{Action, Handler, Response, SessionBuilder, response};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
};

use super::{Mail, Neighbours};

pub(super) async fn serve(listener: TcpListener, neighbours: Neighbours) {
    while let Ok((stream, _)) = listener.accept().await {
        let neighbours = neighbours.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, neighbours).await {
                tracing::warn!("the mail server has lost a client: {error}");
            }
        });
    }
}

async fn converse(stream: TcpStream, neighbours: Neighbours) -> io::Result<()> {
    let peer = stream.peer_addr()?.ip();
    let mailbox = Mailbox {
        neighbours: neighbours.clone(),
        to: Vec::new(),
        message: Vec::new(),
    };
    let mut session = SessionBuilder::new("localhost").build(peer, mailbox);
    let mut stream = BufStream::new(stream);
    answer(&mut stream, &session.greeting()).await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let reply = session.process(&line);
        // The end of a message, or a command that is refused.
        if line == b".\r\n" || reply.is_error {
            neighbours.take_their_time().await;
        }
        match reply.action {
            Action::NoReply => {}
            Action::Close => return answer(&mut stream, &reply).await,
            Action::Reply | Action::UpgradeTls => answer(&mut stream, &reply).await?,
        }
    }
}

async fn answer(stream: &mut BufStream<TcpStream>, reply: &Response) -> io::Result<()> {
    let mut text = Vec::new();
    reply.write_to(&mut text)?;
    stream.write_all(&text).await?;
    stream.flush().await
}

/// The mail that is coming in.
struct Mailbox {
    neighbours: Neighbours,
    to: Vec<String>,
    message: Vec<u8>,
}

impl Handler for Mailbox {
    fn rcpt(&mut self, to: &str) -> Response {
        if to.starts_with("bounce@") {
            tracing::info!("the mail server knows no {to}");
            return response::NO_MAILBOX;
        }
        self.to.push(to.into());
        response::OK
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.message.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let mail = Mail {
            to: std::mem::take(&mut self.to),
            message: String::from_utf8_lossy(&std::mem::take(&mut self.message)).into_owned(),
        };
        tracing::info!("the mail server has got a mail for {}", mail.to.join(", "));
        self.neighbours.lock().mails.push(mail);
        response::OK
    }
}
