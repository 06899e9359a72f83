//! Terminates an abandoned session, and waits for its end.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use super::WireState;
use super::asks::{Care, Passage};
use super::frames::Frames;

/// A byte stream that may outlive the driver that used it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// The stream of an abandoned session, after its driver was dropped.
pub(in crate::wire) struct Remains {
    stream: Box<dyn Stream>,
    /// `true` if the last message to the server was sent completely.
    between_messages: bool,
    received: Frames,
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remains").finish_non_exhaustive()
    }
}

/// The message `Terminate`: its kind and its length.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

impl Remains {
    pub(super) fn new(stream: impl Stream, between_messages: bool, received: Frames) -> Self {
        Self { stream: Box::new(stream), between_messages, received }
    }

    /// Asks the server to end the session, and waits until it has.
    ///
    /// The server reads this after its present statement, so that must be cancelled from another connection. The server
    /// ends the stream when the backend is gone, with its locks.
    pub(in crate::wire) async fn end(self, wire: &WireState) {
        let Self { stream, between_messages, mut received } = self;
        let (mut reader, mut writer) = split(stream);
        let goodbye = async {
            // A failed write shows in the reads as well.
            let _ = if between_messages {
                async {
                    writer.write_all(&TERMINATE).await?;
                    writer.flush().await
                }
                .await
            } else {
                // In the middle of a message, no other message can be sent.
                writer.shutdown().await
            };
            std::future::pending::<()>().await;
        };
        let answers = async {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes).await {
                received.feed(&bytes[..n], |kind, body| {
                    // The answer to a question must not pass for that of the statement behind it.
                    if wire.care() == Care::None || wire.answer(kind, body) == Passage::Pass {
                        wire.received(kind, body);
                    }
                });
            }
        };
        tokio::select! {
            biased;
            () = answers => {}
            () = goodbye => {}
        }
    }
}
