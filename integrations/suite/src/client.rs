//! A client of HTTP/1.1 that decides itself when it reads what.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::GUARD;

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) length: Option<usize>,
    pub(crate) chunked: bool,
}

/// A connection.
pub(crate) struct Client {
    socket: TcpStream,
    read: BytesMut,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address)
            .await
            .expect("the server listens");
        Client {
            socket,
            read: BytesMut::new(),
        }
    }

    /// With a receive buffer so small that the server has to wait for its client.
    pub(crate) async fn connect_slowly(address: SocketAddr) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let socket = socket.connect(address).await.expect("the server listens");
        Client {
            socket,
            read: BytesMut::new(),
        }
    }

    /// Sends a request.
    pub(crate) async fn ask(&mut self, method: &str, path: &str) {
        self.send(&request(method, path)).await;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads more; `false` at the end of the connection.
    async fn more(&mut self) -> bool {
        let read = timeout(GUARD, self.socket.read_buf(&mut self.read)).await;
        // A connection that is reset has ended, too.
        read.expect("the server sends nothing").unwrap_or(0) > 0
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line = self.read.split_to(end);
                self.read.advance(2);
                return Some(String::from_utf8(line.to_vec()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The head of the next response; `None` if the server has closed instead.
    pub(crate) async fn try_head(&mut self) -> Option<Head> {
        let status = self.line().await?;
        let status = status
            .split(' ')
            .nth(1)
            .expect("a status line")
            .parse()
            .unwrap();
        let mut head = Head {
            status,
            length: None,
            chunked: false,
        };
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else {
                return Some(head);
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Some(value.trim().parse().unwrap()),
                "transfer-encoding" => head.chunked = value.contains("chunked"),
                _ => {}
            }
        }
    }

    pub(crate) async fn head(&mut self) -> Head {
        self.try_head().await.expect("the server answers")
    }

    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(
                self.more().await,
                "the server has closed in the middle of a body"
            );
        }
        self.read.split_to(count).to_vec()
    }

    /// The next chunk of a body that has no length; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().await.expect("the size of a chunk");
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        let chunk = self.bytes(size).await;
        assert_eq!(self.line().await.as_deref(), Some(""));
        (size > 0).then_some(chunk)
    }

    /// The rest of a body.
    pub(crate) async fn body(&mut self, head: &Head) -> Vec<u8> {
        if let Some(length) = head.length {
            return self.bytes(length).await;
        }
        assert!(head.chunked, "a body without a length comes in chunks");
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend(chunk);
        }
        body
    }

    /// An answer with status 200, and all of it.
    pub(crate) async fn answer(&mut self) -> Vec<u8> {
        let head = self.head().await;
        assert_eq!(head.status, 200);
        self.body(&head).await
    }

    /// Breaks the connection off.
    pub(crate) fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }

    /// Whether nothing has come that nobody has asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.read.is_empty()
    }
}

pub(crate) fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}
