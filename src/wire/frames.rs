//! Finds the boundaries of PostgreSQL's messages in one direction.
//!
//! The bodies are not parsed.

use super::session_state::STATEMENT_KEPT;

/// Finds the boundaries of messages in one direction.
#[derive(Debug)]
pub(in crate::wire) struct Frames {
    header: [u8; 5],
    have: usize,
    /// Bytes of the current message's body still to come.
    remaining: usize,
    /// The body so far, for the kinds that are parsed.
    body: Vec<u8>,
    /// `true` if the next message has no type byte, as the client's first ones.
    untyped: bool,
    /// Bytes to skip before the next message: the server's answer to an SSL request.
    pub(super) skip: usize,
    /// `true` if the bodies of rows are kept.
    pub(super) keeps_rows: bool,
}

/// Bytes kept of a message.
///
/// An error's fields can hold a whole query, and its SQLSTATE is among the first of them.
pub(super) const BODY_KEPT: usize = 512;

/// Bytes kept of a notice.
///
/// Its routine is the last field, after a translated text and a context.
const NOTICE_KEPT: usize = 4096;

/// Returns the value of a field of an `ErrorResponse` or `NoticeResponse`.
///
/// Each field is its kind, a text and a zero byte.
pub(super) fn field(body: &[u8], kind: u8) -> Option<&[u8]> {
    body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[kind]))
}

/// The code in a request for TLS, instead of a protocol version.
pub(super) const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Pseudo-kind for the answer to a request for TLS: one byte, no message.
pub(super) const TLS_ANSWER: u8 = 1;

impl Frames {
    pub(in crate::wire) fn new(untyped: bool) -> Self {
        Self { header: [0; 5], have: 0, remaining: 0, body: Vec::new(), untyped, skip: 0, keeps_rows: false }
    }

    /// Returns `true` if the last message is complete.
    pub(super) fn is_between_messages(&self) -> bool {
        self.have == 0
    }

    /// Feeds bytes, and calls `message` for each complete message.
    ///
    /// It gets the kind and the kept part.
    pub(in crate::wire) fn feed(&mut self, mut bytes: &[u8], mut message: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() {
            let n = self.step(bytes, &mut message);
            bytes = &bytes[n..];
        }
    }

    /// Feeds bytes up to the end of the current message; returns how many.
    pub(super) fn step(&mut self, bytes: &[u8], message: &mut impl FnMut(u8, &[u8])) -> usize {
        if self.skip > 0 {
            let n = self.skip.min(bytes.len());
            self.skip -= n;
            message(TLS_ANSWER, &bytes[..n]);
            return n;
        }
        let start = usize::from(self.untyped);
        if self.have < start {
            self.have = start;
        }
        let mut of_header = 0;
        if self.have < 5 {
            of_header = (5 - self.have).min(bytes.len());
            self.header[self.have..self.have + of_header].copy_from_slice(&bytes[..of_header]);
            self.have += of_header;
            if self.have < 5 {
                return of_header;
            }
            let [kind, length @ ..] = self.header;
            self.header[0] = if self.untyped { 0 } else { kind };
            self.remaining = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            self.body.clear();
        }
        let bytes = &bytes[of_header..];
        let n = self.remaining.min(bytes.len());
        let is_kept = matches!(
            self.header[0],
            0 | b'Z' | b'C' | b'E' | b'S' | b'N' | b'K' | b'R' | b'P' | b'Q' | b'B' | b'V'
        );
        if is_kept || (self.keeps_rows && self.header[0] == b'D') {
            let limit = match self.header[0] {
                b'N' => NOTICE_KEPT,
                b'P' | b'Q' => STATEMENT_KEPT,
                _ => BODY_KEPT,
            };
            let keep = n.min(limit.saturating_sub(self.body.len()));
            self.body.extend_from_slice(&bytes[..keep]);
        }
        self.remaining -= n;
        if self.remaining == 0 {
            self.have = 0;
            if self.untyped {
                // A request for TLS is followed by another untyped message, the start-up by typed ones.
                self.untyped = self.body.get(..4) == Some(&SSL_REQUEST[..]);
            }
            message(self.header[0], &self.body);
            // A long statement is rare, so its memory is not kept for the next one.
            self.body.shrink_to(NOTICE_KEPT);
        }
        of_header + n
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

    proptest! {
        /// The messages are the same, however the stream is cut into reads.
        #[test]
        fn messages_are_framed_wherever_the_bytes_are_cut(
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
