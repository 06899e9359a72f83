//! A byte stream whose messages are watched as they pass.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::WireState;
use super::frames::{Frames, SSL_REQUEST};
use super::remains::Stream;
use super::session_state::{Leftover, Prepared};

/// A byte stream whose messages are watched as they pass.
#[derive(Debug)]
pub(crate) struct ProtocolTap<S: Stream> {
    /// Always `Some`, except while TLS takes over the stream.
    stream: Option<S>,
    wire: Arc<WireState>,
    sent: Frames,
    received: Frames,
    prepared: Prepared,
}

impl<S: Stream> ProtocolTap<S> {
    /// Watches a stream from its first byte on.
    pub(crate) fn new(stream: S, wire: Arc<WireState>) -> Self {
        Self {
            stream: Some(stream),
            wire,
            sent: Frames::new(true),
            received: Frames::new(false),
            prepared: Prepared::default(),
        }
    }

    /// Returns the stream, for TLS for example, whose plain stream is then watched instead.
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
            self.wire.left(stream, &self.sent, received);
        }
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
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        let n = this.wire.closed_by(ready!(Pin::new(stream).poll_write(cx, buf)))?;
        let ProtocolTap { wire, sent, received, prepared, .. } = this;
        sent.feed(&buf[..n], |kind, body| {
            if kind == 0 && body.get(..4) == Some(&SSL_REQUEST[..]) {
                received.skip = 1;
            }
            if prepared.sent(kind, body) {
                wire.leave(Leftover::State);
            }
            wire.sent(kind);
        });
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        Pin::new(stream).poll_flush(cx).map(|outcome| this.wire.closed_by(outcome))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
