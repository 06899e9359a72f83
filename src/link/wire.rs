//! The tap on the byte stream: what PostgreSQL's protocol says about a connection.
//!
//! Messages of the protocol are framed by a type and a length, so their borders can be followed without
//! parsing what is inside. Five kinds of answer are looked into: `ReadyForQuery` carries the
//! transaction status, `ErrorResponse` the SQLSTATE, `CommandComplete` whether a COMMIT committed, `ParameterStatus`
//! whether a session became writable, `Authentication…` whether a password is asked for. With the requests that were sent
//! they say whether the server still owes something.
//!
//! Source: PostgreSQL 15 documentation, chapter 55, "Frontend/Backend Protocol".

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::error::SqlState;
use crate::node::Vitals;

/// What the tap of one connection has seen, shared with the connection's owner.
#[derive(Debug)]
pub(crate) struct Wire {
    /// `ReadyForQuery`'s status: `I`dle, in a `T`ransaction, in a failed one (`E`); 0 before the first.
    status: AtomicU8,
    /// Requests sent (`Sync`, `Query`), and how many of them `ReadyForQuery` has answered.
    asked_for: AtomicU64,
    answered: AtomicU64,
    /// The number of the last request that was more than the closing of a prepared statement.
    last_work: AtomicU64,
    /// Whether anything but such a closing was sent since the last request.
    working: AtomicBool,
    /// SQLSTATE of the last `ErrorResponse`, packed; 0 when there was none.
    sqlstate: AtomicU64,
    /// Whether the last command that ended a transaction rolled it back.
    rolled_back: AtomicBool,
    /// Whether transactions write by default, as the server (14 or newer) last reported it.
    writes_by_default: AtomicBool,
    /// Whether the server said that it has no TLS.
    without_tls: AtomicBool,
    /// Whether the server asked for a password.
    asked_for_password: AtomicBool,
    /// Set when the stream is dropped, which its driver does when it ends.
    closed: AtomicBool,
    /// Wakes those who wait for the server to owe nothing, or for the end.
    settled: Notify,
    /// When the first of the answers that are owed was asked for, in microseconds since `created`.
    asked: AtomicU64,
    created: Instant,
    /// The node's, where the time that answers take is averaged.
    vitals: Arc<Vitals>,
}

impl Wire {
    pub(crate) fn new(vitals: Arc<Vitals>) -> Self {
        Self {
            status: AtomicU8::new(0),
            asked_for: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            last_work: AtomicU64::new(0),
            working: AtomicBool::new(false),
            sqlstate: AtomicU64::new(0),
            rolled_back: AtomicBool::new(false),
            writes_by_default: AtomicBool::new(false),
            without_tls: AtomicBool::new(false),
            asked_for_password: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            settled: Notify::new(),
            asked: AtomicU64::new(0),
            created: Instant::now(),
            vitals,
        }
    }

    /// Waits until the server owes no answer, or the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if !self.owes() || self.is_closed() {
                return;
            }
            settled.await;
        }
    }

    /// Whether the server last said that no transaction is open, and owes no answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'I' && !self.owes()
    }

    /// Whether a statement of the open transaction has failed.
    pub(crate) fn is_failed(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'E'
    }

    /// Whether the server answered the last COMMIT or ROLLBACK with `ROLLBACK`.
    ///
    /// A COMMIT is answered so, and without an error, where a statement of the transaction had failed.
    pub(crate) fn rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Acquire)
    }

    /// Whether the server reported that the session's transactions write by default.
    ///
    /// A read session begins otherwise, and stays so unless somebody changed its settings.
    pub(crate) fn writes_by_default(&self) -> bool {
        self.writes_by_default.load(Ordering::Acquire)
    }

    /// Whether the server was asked for TLS and has none.
    pub(crate) fn is_without_tls(&self) -> bool {
        self.without_tls.load(Ordering::Acquire)
    }

    /// Whether the server asked for a password: in clear text, by MD5 or by SCRAM.
    pub(crate) fn is_asked_for_password(&self) -> bool {
        self.asked_for_password.load(Ordering::Acquire)
    }

    /// Whether the server owes an answer that somebody asked for.
    ///
    /// The driver closes a statement that is not cached with a request of its own, after the answer has come. Nobody
    /// waits for that, and it delays nobody.
    pub(crate) fn owes(&self) -> bool {
        self.last_work.load(Ordering::Acquire) > self.answered.load(Ordering::Acquire)
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Lets nothing out any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// Takes the SQLSTATE of the last error, so that it is not taken for a later one's.
    pub(crate) fn take_sqlstate(&self) -> Option<SqlState> {
        SqlState::unpack(self.sqlstate.swap(0, Ordering::AcqRel))
    }

    /// SQLSTATE of the last error.
    pub(crate) fn sqlstate(&self) -> Option<SqlState> {
        SqlState::unpack(self.sqlstate.load(Ordering::Acquire))
    }

    /// Notes what the client sent: only its driver's task calls this, so nothing else changes these numbers.
    fn sent(&self, kind: u8) {
        if !matches!(kind, b'C' | b'S') {
            self.working.store(true, Ordering::Relaxed);
        }
        if matches!(kind, b'Q' | b'S') {
            let number = self.asked_for.fetch_add(1, Ordering::AcqRel) + 1;
            if self.working.swap(false, Ordering::Relaxed) {
                if !self.owes() {
                    self.asked.store(self.age_micros(), Ordering::Relaxed);
                }
                self.last_work.store(number, Ordering::Release);
            }
        }
    }

    fn age_micros(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn received(&self, kind: u8, body: &[u8]) {
        match kind {
            b'Z' => {
                self.status.store(body.first().copied().unwrap_or(0), Ordering::Release);
                // The first one ends the start-up and answers no request.
                if self.answered.load(Ordering::Acquire) == self.asked_for.load(Ordering::Acquire) {
                    return;
                }
                let owed = self.owes();
                self.answered.fetch_add(1, Ordering::AcqRel);
                if owed && !self.owes() {
                    let micros = self.age_micros().saturating_sub(self.asked.load(Ordering::Relaxed));
                    self.vitals.latency.record(Duration::from_micros(micros));
                    self.settled.notify_waiters();
                }
            }
            b'R' => {
                let request = body.get(..4).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
                if matches!(request, Some(CLEARTEXT_PASSWORD | MD5_PASSWORD | SASL)) {
                    self.asked_for_password.store(true, Ordering::Release);
                }
            }
            TLS_ANSWER => self.without_tls.store(body == b"N", Ordering::Release),
            b'C' => match body {
                b"COMMIT\0" => self.rolled_back.store(false, Ordering::Release),
                b"ROLLBACK\0" => self.rolled_back.store(true, Ordering::Release),
                _ => {}
            },
            b'S' => {
                if let Some(value) = body.strip_prefix(b"default_transaction_read_only\0") {
                    self.writes_by_default.store(value != b"on\0", Ordering::Release);
                }
            }
            b'E' => {
                let code = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
                if let Some(code) = code.and_then(|code| <[u8; 5]>::try_from(code).ok()) {
                    self.sqlstate.store(SqlState::new(code).pack(), Ordering::Release);
                }
            }
            _ => {}
        }
    }
}

/// Follows the borders of messages in one direction.
#[derive(Debug)]
struct Frames {
    header: [u8; 5],
    have: usize,
    /// Bytes of the current message's body still to come.
    remaining: usize,
    /// The body so far, for the kinds that are looked into.
    body: Vec<u8>,
    /// Whether the next message has no type byte: the client's first ones.
    untyped: bool,
    /// Bytes to pass over before the next message: the server's answer to an SSL request.
    skip: usize,
}

/// An error's fields can hold a whole query; its SQLSTATE comes among the first of them.
const BODY_KEPT: usize = 512;

/// The code that stands in the place of a protocol version in a request for TLS.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// The codes of the authentication requests that ask for a password.
const CLEARTEXT_PASSWORD: u32 = 3;
const MD5_PASSWORD: u32 = 5;
const SASL: u32 = 10;

/// Stands for the kind of the answer to a request for TLS: one byte, and no message.
const TLS_ANSWER: u8 = 1;

impl Frames {
    fn new(untyped: bool) -> Self {
        Self { header: [0; 5], have: 0, remaining: 0, body: Vec::new(), untyped, skip: 0 }
    }

    /// Feeds bytes; calls `message` with the kind and the kept part of each message that is complete.
    fn feed(&mut self, mut bytes: &[u8], mut message: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                message(TLS_ANSWER, &bytes[..n]);
                bytes = &bytes[n..];
                continue;
            }
            let start = usize::from(self.untyped);
            if self.have < start {
                self.have = start;
            }
            if self.have < 5 {
                let n = (5 - self.have).min(bytes.len());
                self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
                self.have += n;
                bytes = &bytes[n..];
                if self.have < 5 {
                    return;
                }
                let [kind, length @ ..] = self.header;
                self.header[0] = if self.untyped { 0 } else { kind };
                self.remaining = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.body.clear();
            }
            let n = self.remaining.min(bytes.len());
            if matches!(self.header[0], 0 | b'Z' | b'C' | b'E' | b'S' | b'R') {
                let keep = n.min(BODY_KEPT.saturating_sub(self.body.len()));
                self.body.extend_from_slice(&bytes[..keep]);
            }
            self.remaining -= n;
            bytes = &bytes[n..];
            if self.remaining == 0 {
                self.have = 0;
                if self.untyped {
                    // A request for TLS is followed by another untyped message, the start-up by typed ones.
                    self.untyped = self.body.get(..4) == Some(&SSL_REQUEST[..]);
                }
                message(self.header[0], &self.body);
            }
        }
    }
}

/// A byte stream whose messages are watched as they pass.
#[derive(Debug)]
pub(crate) struct Tap<S> {
    /// Always there, but for the moment in which TLS takes the stream over.
    stream: Option<S>,
    wire: Arc<Wire>,
    sent: Frames,
    received: Frames,
}

impl<S> Tap<S> {
    /// Watches a stream from its first byte on.
    pub(crate) fn new(stream: S, wire: Arc<Wire>) -> Self {
        Self { stream: Some(stream), wire, sent: Frames::new(true), received: Frames::new(false) }
    }

    /// Gives the stream up, to TLS say, whose inside is then watched instead.
    #[cfg(feature = "tls")]
    pub(crate) fn untap(mut self) -> Option<(S, Arc<Wire>)> {
        let stream = self.stream.take()?;
        Some((stream, Arc::clone(&self.wire)))
    }
}

impl<S: TlsStream + Unpin> TlsStream for Tap<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.as_ref().map_or_else(ChannelBinding::none, TlsStream::channel_binding)
    }
}

impl<S> Drop for Tap<S> {
    fn drop(&mut self) {
        // A stream that was given up goes on elsewhere.
        if self.stream.is_some() {
            self.wire.close();
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the stream was handed over to TLS")
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        let Tap { wire, received, .. } = this;
        received.feed(&buf.filled()[before..], |kind, body| wire.received(kind, body));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // On another thread the driver may be in the middle of a round while its connection is severed.
        if this.wire.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let stream = this.stream.as_mut().ok_or_else(gone)?;
        let n = ready!(Pin::new(stream).poll_write(cx, buf))?;
        let Tap { wire, sent, received, .. } = this;
        sent.feed(&buf[..n], |kind, body| {
            if kind == 0 && body.get(..4) == Some(&SSL_REQUEST[..]) {
                received.skip = 1;
            }
            wire.sent(kind);
        });
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut().ok_or_else(gone)?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.as_mut().ok_or_else(gone)?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a short body").to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    #[test]
    fn startup_with_and_without_a_request_for_tls() {
        let startup = [&12_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"a\0\0\0"].concat();
        let request = [&8_u32.to_be_bytes()[..], &SSL_REQUEST].concat();
        for prefix in [&[][..], &request] {
            let bytes = [prefix, &startup, &message(b'Q', b"SELECT 1\0")].concat();
            let mut kinds = Vec::new();
            Frames::new(true).feed(&bytes, |kind, _| kinds.push(kind));
            assert_eq!(kinds.last(), Some(&b'Q'));
            assert_eq!(kinds.len(), if prefix.is_empty() { 2 } else { 3 });
        }
    }

    #[test]
    fn sqlstate_and_status_are_read() {
        let wire = Wire::new(Arc::default());
        wire.sent(b'E');
        wire.sent(b'S');
        assert!(wire.owes());
        wire.received(b'E', b"SERROR\0VERROR\0C40P01\0Mdeadlock detected\0\0");
        assert_eq!(wire.sqlstate(), Some(SqlState::new(*b"40P01")));
        wire.received(b'Z', b"E");
        assert!(!wire.owes() && !wire.is_idle());
        wire.sent(b'Q');
        wire.received(b'Z', b"I");
        assert!(wire.is_idle());
        assert_eq!(wire.take_sqlstate(), Some(SqlState::new(*b"40P01")));
        assert_eq!(wire.take_sqlstate(), None);
    }

    #[test]
    fn the_closing_of_a_statement_is_owed_to_nobody() {
        let wire = Wire::new(Arc::default());
        wire.received(b'Z', b"I");
        for kind in [b'P', b'D', b'S', b'B', b'E', b'S'] {
            wire.sent(kind);
        }
        wire.received(b'Z', b"I");
        assert!(wire.owes(), "one of two answers came");
        wire.received(b'Z', b"I");
        assert!(wire.is_idle());
        wire.sent(b'C');
        wire.sent(b'S');
        assert!(wire.is_idle(), "the driver closes a statement");
        wire.sent(b'Q');
        wire.received(b'Z', b"I");
        assert!(wire.owes(), "that was the answer to the closing");
        wire.received(b'Z', b"I");
        assert!(wire.is_idle());
    }

    #[test]
    fn a_commit_that_rolled_back_is_told_from_one_that_committed() {
        let wire = Wire::new(Arc::default());
        for (tag, rolled_back) in [(&b"COMMIT\0"[..], false), (b"ROLLBACK\0", true), (b"INSERT 0 1\0", true)]
        {
            wire.received(b'C', tag);
            assert_eq!(wire.rolled_back(), rolled_back, "{tag:?}");
        }
    }

    #[test]
    fn a_session_that_was_made_writable_is_noticed() {
        let wire = Wire::new(Arc::default());
        for (report, writes) in [
            (&b"default_transaction_read_only\0on\0"[..], false),
            (b"default_transaction_read_only\0off\0", true),
            (b"TimeZone\0UTC\0", true),
            (b"default_transaction_read_only\0on\0", false),
        ] {
            wire.received(b'S', report);
            assert_eq!(wire.writes_by_default(), writes, "{report:?}");
        }
    }

    proptest! {
        /// However the stream is cut into reads, the same messages are seen.
        #[test]
        fn cuts_do_not_matter(
            bodies in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..700)), 1..6),
            cuts in prop::collection::vec(1_usize..300, 1..40),
        ) {
            let bytes: Vec<u8> = bodies.iter()
                .flat_map(|(looked_into, body)| message(if *looked_into { b'E' } else { b'D' }, body))
                .collect();
            let mut seen = Vec::new();
            let mut frames = Frames::new(false);
            let mut rest = &bytes[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let n = cuts.next().copied().unwrap_or(1).min(rest.len());
                frames.feed(&rest[..n], |kind, body| seen.push((kind, body.len())));
                rest = &rest[n..];
            }
            let expected: Vec<_> = bodies.iter()
                .map(|(looked_into, body)| if *looked_into { (b'E', body.len().min(BODY_KEPT)) } else { (b'D', 0) })
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
