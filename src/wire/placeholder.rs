//! A connection without a server, on which every statement fails.
//!
//! It replaces a connection that was moved out of a `&mut AsyncPgConnection`, which must not stay empty. The driver
//! knows only connections that were set up, so this one is. A peer in memory answers the set-up as a server would, and
//! then the driver's task is dropped. A client without its task answers each request with "connection closed".

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use futures_util::future::{self, Either};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTls;

use super::frames::Frames;

/// Polls before the set-up must be done.
///
/// It needs eight, one for each turn between the client and its task.
const POLLS: usize = 64;

/// Returns a connection on which every statement and every transaction fails.
pub(crate) fn placeholder() -> AsyncPgConnection {
    // Unconstrained, because a task that has used up its budget would have to yield here.
    let mut making = pin!(unconstrained(make()));
    let mut context = Context::from_waker(Waker::noop());
    let made = (0..POLLS).find_map(|_| match making.as_mut().poll(&mut context) {
        Poll::Ready(made) => Some(made),
        Poll::Pending => None,
    });
    let mut conn = made.flatten().expect("a peer in memory answers at once");
    // An open transaction around the statement must not be mistaken for committed.
    AnsiTransactionManager::transaction_manager_status_mut(&mut conn).set_in_error();
    conn
}

async fn make() -> Option<AsyncPgConnection> {
    let mut config = tokio_postgres::Config::new();
    config.user("placeholder").ssl_mode(SslMode::Disable);
    let (client, task) = config.connect_raw(Peer::new(), NoTls).await.ok()?;
    match future::select(pin!(AsyncPgConnection::try_from(client)), task).await {
        Either::Left((conn, _)) => conn.ok(),
        Either::Right(_) => None,
    }
}

/// The server's side of a set-up, which accepts everything.
struct Peer {
    asked: Frames,
    answers: Vec<u8>,
}

impl Peer {
    fn new() -> Self {
        Self { asked: Frames::new(true), answers: Vec::new() }
    }
}

/// Returns the answer to a message of the client.
fn answer(kind: u8) -> &'static [u8] {
    match kind {
        // Start-up: no password is needed, and the session begins.
        0 => b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I",
        b'P' => b"1\0\0\0\x04",
        // A statement without parameters and without rows.
        b'D' => b"t\0\0\0\x06\0\0n\0\0\0\x04",
        b'B' => b"2\0\0\0\x04",
        b'E' => b"C\0\0\0\x08SET\0",
        b'C' => b"3\0\0\0\x04",
        b'Q' => b"C\0\0\0\x08SET\0Z\0\0\0\x05I",
        b'S' => b"Z\0\0\0\x05I",
        _ => b"",
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.answers.is_empty() {
            // It is polled again after the next request.
            return Poll::Pending;
        }
        let count = self.answers.len().min(buffer.remaining());
        buffer.put_slice(&self.answers[..count]);
        self.answers.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { asked, answers } = &mut *self;
        asked.feed(bytes, |kind, _| answers.extend_from_slice(answer(kind)));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::Error;
    use diesel_async::{AsyncConnection, RunQueryDsl};

    use super::*;

    #[test]
    fn it_needs_no_runtime() {
        drop(placeholder());
    }

    #[tokio::test]
    async fn every_statement_fails() {
        let mut conn = placeholder();
        let statement = diesel::sql_query("SELECT 1").execute(&mut conn).await;
        assert!(matches!(statement, Err(Error::DatabaseError(..))), "{statement:?}");
        let statements = diesel_async::SimpleAsyncConnection::batch_execute(&mut conn, "SELECT 1").await;
        assert!(matches!(statements, Err(Error::DatabaseError(..))), "{statements:?}");
    }

    #[tokio::test]
    async fn every_transaction_fails() {
        let mut conn = placeholder();
        let transaction = conn.transaction(async |_| Ok::<_, Error>(())).await;
        assert!(matches!(transaction, Err(Error::BrokenTransactionManager)), "{transaction:?}");
        let commit = AnsiTransactionManager::commit_transaction(&mut conn).await;
        assert!(matches!(commit, Err(Error::BrokenTransactionManager)), "{commit:?}");
    }

    /// A task that has used up its budget must yield at its next await.
    #[tokio::test]
    async fn it_is_made_in_a_task_without_budget() {
        // A poll that has no budget left is pending; the task itself does not yield.
        let used_up = |context: &mut std::task::Context<'_>| {
            while std::pin::pin!(tokio::task::consume_budget()).poll(context).is_ready() {}
            std::task::Poll::Ready(())
        };
        std::future::poll_fn(used_up).await;
        drop(placeholder());
    }
}
