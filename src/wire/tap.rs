//! A byte stream whose messages are watched as they pass.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::WireState;
use super::asks::{Care, Effect, Effects, Passage};
use super::frames::{Frames, SSL_REQUEST};
use super::remains::Stream;
use super::session_state::{Leftover, Prepared, removes_statements};

/// A byte stream whose messages are watched as they pass.
#[derive(Debug)]
pub(crate) struct ProtocolTap<S: Stream> {
    /// Always `Some`, except while TLS takes over the stream.
    stream: Option<S>,
    wire: Arc<WireState>,
    sent: Frames,
    received: Frames,
    prepared: Prepared,
    effects: Effects,
    /// Bytes that were taken over from the driver, with questions between them.
    outbox: Vec<u8>,
    inbox: Inbox,
}

/// Bytes from the server while questions are to be answered.
#[derive(Debug, Default)]
struct Inbox {
    /// Bytes for the driver.
    passed: Vec<u8>,
    /// The part of `passed` that the driver has.
    taken: usize,
    /// The part that arrived of a message that may have to be removed.
    held: Vec<u8>,
    care: Care,
}

/// Bytes read at once while questions are to be answered.
const CHUNK: usize = 8 * 1024;

impl<S: Stream> ProtocolTap<S> {
    /// Watches a stream from its first byte on.
    pub(crate) fn new(stream: S, wire: Arc<WireState>) -> Self {
        Self {
            stream: Some(stream),
            wire,
            sent: Frames::new(true),
            received: Frames::new(false),
            prepared: Prepared::default(),
            effects: Effects::default(),
            outbox: Vec::new(),
            inbox: Inbox::default(),
        }
    }

    /// Takes bytes over from the driver, and puts questions between its requests.
    fn take_over(&mut self, mut bytes: &[u8]) {
        let ProtocolTap { wire, sent, prepared, effects, outbox, .. } = self;
        if sent.is_between_messages() {
            wire.ask_before(bytes.first().copied(), outbox);
        }
        let (mut within, mut behind) = (Vec::new(), Vec::new());
        while !bytes.is_empty() {
            // The place before a message is gone if a part of it was sent.
            let is_whole = sent.is_between_messages();
            let n = sent.step(bytes, &mut |kind, body| {
                if prepared.sent(kind, body) {
                    wire.leave(Leftover::State);
                }
                if removes_statements(kind, body) {
                    wire.leave(Leftover::Statements);
                }
                effects.learn(kind, body);
                effects.add(kind, body);
                let effect = if matches!(kind, b'Q' | b'S') { effects.take() } else { Effect::None };
                wire.sent_and_ask((kind, body, effect), is_whole.then_some(&mut within), &mut behind);
            });
            outbox.append(&mut within);
            outbox.extend_from_slice(&bytes[..n]);
            outbox.append(&mut behind);
            bytes = &bytes[n..];
        }
    }

    /// Writes the bytes that were taken over.
    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let stream = self.stream.as_mut().ok_or_else(gone)?;
            let n = self.wire.closed_by(ready!(Pin::new(stream).poll_write(cx, &self.outbox)))?;
            if n == 0 {
                return Poll::Ready(self.wire.closed_by(Err(io::ErrorKind::WriteZero.into())));
            }
            self.outbox.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// Returns the bytes that the driver has not read yet.
    #[cfg(test)]
    pub(super) fn passed(&self) -> &[u8] {
        &self.inbox.passed[self.inbox.taken..]
    }

    /// Removes the answers to questions from bytes of the server.
    pub(super) fn filter(&mut self, mut bytes: &[u8]) {
        let ProtocolTap { wire, received, inbox, .. } = self;
        while !bytes.is_empty() {
            if received.is_between_messages() && inbox.held.is_empty() {
                inbox.care = wire.care();
                received.keeps_rows = inbox.care == Care::Hold;
            }
            let care = inbox.care;
            let mut passage = None;
            let n = received.step(bytes, &mut |kind, body| {
                passage = Some(if care == Care::None { Passage::Pass } else { wire.answer(kind, body) });
                if passage == Some(Passage::Pass) {
                    wire.received(kind, body);
                }
            });
            let (now, rest) = bytes.split_at(n);
            if passage.is_some() {
                inbox.care = Care::None;
            }
            match passage {
                _ if care != Care::Hold => inbox.passed.extend_from_slice(now),
                None => inbox.held.extend_from_slice(now),
                Some(Passage::Pass) => {
                    inbox.passed.append(&mut inbox.held);
                    inbox.passed.extend_from_slice(now);
                }
                Some(Passage::Remove) => inbox.held.clear(),
            }
            bytes = rest;
        }
    }

    /// Reads while questions are to be answered.
    fn poll_filtered(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        loop {
            if self.inbox.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::uninit(&mut chunk);
            let stream = self.stream.as_mut().ok_or_else(gone)?;
            let outcome = ready!(Pin::new(stream).poll_read(cx, &mut read));
            let bytes = read.filled();
            if outcome.is_err() || bytes.is_empty() {
                self.wire.close();
                return Poll::Ready(outcome);
            }
            self.filter(bytes);
        }
    }

    /// Returns the stream, for TLS for example.
    ///
    /// The plain stream above it is then watched instead.
    #[cfg(feature = "tls")]
    pub(crate) fn untap(mut self) -> Option<(S, Arc<WireState>)> {
        let stream = self.stream.take()?;
        Some((stream, Arc::clone(&self.wire)))
    }
}

impl<S: TlsStream + Stream> TlsStream for ProtocolTap<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.as_ref().map_or_else(ChannelBinding::none, TlsStream::channel_binding)
    }
}

impl<S: Stream> Drop for ProtocolTap<S> {
    fn drop(&mut self) {
        // A stream that TLS has taken over continues there.
        if let Some(stream) = self.stream.take() {
            let received = std::mem::replace(&mut self.received, Frames::new(false));
            let between_messages = self.sent.is_between_messages() && self.outbox.is_empty();
            self.wire.left(stream, between_messages, received);
        }
    }
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.passed.is_empty() && self.held.is_empty()
    }

    /// Forwards the available bytes to the driver; returns `false` without any.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = &self.passed[self.taken..];
        if rest.is_empty() {
            return false;
        }
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.taken += n;
        if self.taken == self.passed.len() {
            self.passed.clear();
            self.taken = 0;
        }
        true
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the stream was handed over to TLS")
}

impl<S: Stream> AsyncRead for ProtocolTap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.wire.has_questions() || !this.inbox.is_empty() {
            return this.poll_filtered(cx, buf);
        }
        let before = buf.filled().len();
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        let outcome = ready!(Pin::new(stream).poll_read(cx, buf));
        let ProtocolTap { wire, received, .. } = this;
        let read = &buf.filled()[before..];
        // Before the driver learns of it, because the driver fails its client first and drops the stream later.
        if outcome.is_err() || read.is_empty() {
            wire.close();
        }
        received.feed(read, |kind, body| wire.received(kind, body));
        Poll::Ready(outcome)
    }
}

impl<S: Stream> AsyncWrite for ProtocolTap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // On another thread, the driver may be in the middle of a round while its connection is closed.
        if this.wire.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if this.wire.is_asking() || !this.outbox.is_empty() {
            ready!(this.poll_outbox(cx))?;
            this.take_over(buf);
            // The rest is written by the flush that follows.
            if let Poll::Ready(Err(error)) = this.poll_outbox(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(buf.len()));
        }
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        let n = this.wire.closed_by(ready!(Pin::new(stream).poll_write(cx, buf)))?;
        let ProtocolTap { wire, sent, received, prepared, effects, .. } = this;
        sent.feed(&buf[..n], |kind, body| {
            if kind == 0 && body.get(..4) == Some(&SSL_REQUEST[..]) {
                received.skip = 1;
            }
            if prepared.sent(kind, body) {
                wire.leave(Leftover::State);
            }
            effects.learn(kind, body);
            wire.sent(kind);
        });
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_outbox(cx))?;
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        Pin::new(stream).poll_flush(cx).map(|outcome| this.wire.closed_by(outcome))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outbox(cx))?;
        Pin::new(self.stream.as_mut().ok_or_else(gone)?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A caller got "connection closed" while the connection did not yet count as closed.
    ///
    /// It did so only when the driver had dropped the stream, some milliseconds later.
    #[tokio::test]
    async fn a_stream_is_closed_as_soon_as_its_end_is_read() {
        let (ours, theirs) = tokio::io::duplex(64);
        let wire = Arc::new(WireState::new(Arc::default()));
        let mut tap = ProtocolTap::new(ours, Arc::clone(&wire));
        drop(theirs);
        assert!(!wire.is_closed());
        assert_eq!(tap.read(&mut [0; 8]).await.expect("the end"), 0);
        assert!(wire.is_closed(), "the stream is still there");
        drop(tap);
    }

    #[tokio::test]
    async fn a_stream_is_closed_as_soon_as_it_cannot_be_written_to() {
        let (ours, theirs) = tokio::io::duplex(64);
        let wire = Arc::new(WireState::new(Arc::default()));
        let mut tap = ProtocolTap::new(ours, Arc::clone(&wire));
        drop(theirs);
        tap.write_all(b"\0\0\0\x08abcd").await.expect_err("the reader is gone");
        assert!(wire.is_closed());
        drop(tap);
    }
}
