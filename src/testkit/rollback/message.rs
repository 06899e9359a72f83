//! Messages of PostgreSQL's protocol, cut out of a stream and put together.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes read ahead from a peer that sends more than is asked of it.
const READ_AHEAD: usize = 1 << 20;

/// One message: its kind and its body, without the length.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u8, body: impl Into<Vec<u8>>) -> Self {
        Self { kind, body: body.into() }
    }

    /// A simple query.
    pub(super) fn query(sql: &str) -> Self {
        Self::new(b'Q', terminated(&[sql]))
    }

    /// The server's message that a command was carried out.
    pub(super) fn complete(tag: &str) -> Self {
        Self::new(b'C', terminated(&[tag]))
    }

    /// The server's message that it is ready, with the transaction's state.
    pub(super) fn ready(status: u8) -> Self {
        Self::new(b'Z', [status])
    }

    /// An error with our text; `FATAL` ends the session of the client.
    pub(super) fn error(severity: &str, sqlstate: &str, text: &str) -> Self {
        let fields =
            [format!("S{severity}"), format!("V{severity}"), format!("C{sqlstate}"), format!("M{text}")];
        let mut body = terminated(&fields);
        body.push(0);
        Self::new(b'E', body)
    }

    /// Returns the field of an error.
    pub(super) fn field(&self, kind: u8) -> Option<String> {
        let field = self.body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[kind]))?;
        Some(String::from_utf8_lossy(field).into_owned())
    }

    /// Returns `true` if it is an error that ends the session.
    pub(super) fn is_fatal(&self) -> bool {
        self.kind == b'E' && matches!(self.field(b'V').as_deref(), Some("FATAL" | "PANIC"))
    }

    /// Returns the texts of the body, each of which a zero byte ends.
    pub(super) fn texts(&self) -> Vec<String> {
        let body = self.body.strip_suffix(&[0]).unwrap_or(&self.body);
        body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// Returns the first column of a row, unless it is NULL.
    pub(super) fn first_column(&self) -> Option<String> {
        let length = u32::from_be_bytes(self.body.get(2..6)?.try_into().ok()?) as usize;
        self.body.get(6..6 + length).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
        [&[self.kind][..], &length, &self.body].concat()
    }
}

/// Puts texts together, each with the zero byte that ends it.
pub(super) fn terminated<T: AsRef<str>>(texts: &[T]) -> Vec<u8> {
    texts.iter().flat_map(|text| [text.as_ref().as_bytes(), &[0]].concat()).collect()
}

/// Takes the first message off the bytes, if it is complete.
pub(super) fn take(bytes: &mut Vec<u8>) -> Option<Message> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize;
    let end = 1 + length.max(4);
    let message = Message::new(bytes[0], bytes.get(5..end)?);
    bytes.drain(..end);
    Some(message)
}

/// A stream as messages.
///
/// Dropping a future loses nothing, except with [`send`](Self::send).
#[derive(Debug)]
pub(super) struct Messages<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Messages<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Waits for the next message; an error of the stream counts as its end.
    pub(super) async fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = take(&mut self.buffer) {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits for the end of the stream, and keeps the bytes before it.
    pub(super) async fn gone(&mut self) {
        while self.buffer.len() < READ_AHEAD {
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits for the first message of a client, and returns it with its length.
    ///
    /// This message has no kind.
    pub(super) async fn untyped(&mut self) -> io::Result<Vec<u8>> {
        let length = self.stream.read_u32().await?;
        if !(8..=10_000).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length as usize];
        message[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.read_exact(&mut message[4..]).await?;
        Ok(message)
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncWrite + Unpin> Messages<S> {
    pub(super) async fn send(&mut self, message: &Message) -> io::Result<()> {
        self.send_bytes(&message.bytes()).await
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}
