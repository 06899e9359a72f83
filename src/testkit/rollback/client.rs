//! One session of the set, which takes turns in the one that all share.
//!
//! A statement outside a transaction is a turn with its own savepoint, and so is a whole transaction. A turn ends as
//! the statement or the transaction would: released, or rolled back. Then the next client in the queue has its turn.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::login::has_ended;
use super::message::{Message, Messages};
use super::server::{Admitted, Shared};
use super::session::{Ended, Failed, Session};
use super::settings::Settings;
use super::statement::{Access, Control, statements};
use super::translate::translated;

/// The turn of a client.
type Turn = OwnedMutexGuard<Session>;

/// The error for a client that waited for its turn in vain.
const BUSY: &str = "another connection of this `RollbackSet` is inside a transaction, and all of them share one session: \
    end that transaction first, or run this statement on its connection";

const TWO_PHASE: &str = "a `RollbackSet` has no two-phase commit: it would outlive the set";

const NO_BLOCK: &str = "savepoints can only be used in transaction blocks";

/// The reason why a client is no longer served.
enum Stop {
    /// It has left.
    Gone,
    /// The session has ended.
    Ended,
}

impl From<Ended> for Stop {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// One client, after its login.
pub(super) struct Client<'s> {
    shared: &'s Shared,
    admitted: Admitted<'s>,
    settings: Settings,
    from: Messages<OwnedReadHalf>,
    /// Unbounded, so that a client that reads half of a result does not hold the turn.
    to: mpsc::UnboundedSender<Vec<u8>>,
    writer: JoinHandle<()>,
    /// Held during a transaction.
    turn: Option<Turn>,
    /// `true` if the present turn must not write.
    read_only: bool,
    /// `true` if the server itself told the client that the session ends.
    told: bool,
}

impl<'s> Client<'s> {
    pub(super) fn new(
        shared: &'s Shared,
        admitted: Admitted<'s>,
        settings: Settings,
        stream: TcpStream,
    ) -> Self {
        let (from, to) = stream.into_split();
        let (sender, queue) = mpsc::unbounded_channel();
        Self {
            shared,
            admitted,
            settings,
            from: Messages::new(from),
            to: sender,
            writer: tokio::spawn(write(to, queue)),
            turn: None,
            read_only: false,
            told: false,
        }
    }

    /// Serves the client until it leaves, or the session ends.
    pub(super) async fn serve(mut self) {
        let stop = loop {
            if let Err(stop) = self.request().await {
                break stop;
            }
        };
        if let Some(mut turn) = self.turn.take() {
            // As the server does when a session ends.
            let _ = turn.roll_back().await;
        }
        let session = Arc::clone(&self.shared.session);
        if matches!(stop, Stop::Ended)
            && !self.told
            && let Some(text) = has_ended(&*session.lock().await)
        {
            self.reply(Message::error("FATAL", "57P01", &text));
        }
        let Self { to, writer, .. } = self;
        drop(to);
        let _ = writer.await;
        let _ = session.lock().await.unlock_all().await;
    }

    /// Serves one request, until the server reports that it is ready for the next one.
    async fn request(&mut self) -> Result<(), Stop> {
        let message = self.next().await?;
        // The server has ended the request that was to be cancelled.
        let _ = self.admitted.cancel.notified().now_or_never();
        match (message.kind, message.body.first()) {
            (b'Q', _) => self.query(message).await?,
            // A statement that is closed outside a request costs no turn, and its name is never used again.
            (b'C', Some(b'S')) => {
                self.reply(Message::new(b'3', []));
                return Ok(());
            }
            (b'H', _) => return Ok(()),
            (b'S', _) => {}
            _ => drop(self.run(message).await?),
        }
        let status = self.turn.as_ref().map_or(b'I', |turn| turn.status());
        self.reply(Message::ready(status));
        Ok(())
    }

    /// Waits for the client's next message; in a transaction, for the server's too.
    async fn next(&mut self) -> Result<Message, Stop> {
        loop {
            let next = match &mut self.turn {
                None => self.from.next().await,
                Some(turn) => tokio::select! {
                    next = self.from.next() => next,
                    word = turn.next() => {
                        let word = word?;
                        self.forward(word);
                        continue;
                    }
                },
            };
            return next.ok().filter(|message| message.kind != b'X').ok_or(Stop::Gone);
        }
    }

    /// Runs a simple query.
    ///
    /// If a statement begins or ends a transaction, each one runs by itself.
    async fn query(&mut self, message: Message) -> Result<(), Stop> {
        let text = message.texts().concat();
        let statements = statements(&text);
        if statements.iter().all(|statement| Control::of(statement) == Control::None) {
            self.run(message).await?;
            return Ok(());
        }
        for statement in statements {
            let well = match Control::of(statement) {
                Control::Begin(access) => self.begin(access).await?,
                Control::Commit { chain } => self.commit().await? && (!chain || self.begin_again().await?),
                Control::Rollback { chain } => {
                    self.roll_back().await? && (!chain || self.begin_again().await?)
                }
                Control::Savepoint if self.turn.is_none() => self.refuse("25P01", NO_BLOCK),
                Control::TwoPhase => self.refuse("0A000", TWO_PHASE),
                Control::None | Control::Savepoint => self.run(Message::query(statement)).await?,
            };
            if !well {
                break;
            }
        }
        Ok(())
    }

    /// Begins a transaction.
    ///
    /// Returns `false` if the client was sent an error, as all of these do.
    async fn begin(&mut self, access: Access) -> Result<bool, Stop> {
        if self.turn.is_none() {
            self.turn = self.take_turn(access).await?;
            if self.turn.is_none() {
                return Ok(false);
            }
        }
        self.reply(Message::complete("BEGIN"));
        Ok(true)
    }

    async fn begin_again(&mut self) -> Result<bool, Stop> {
        let access = if self.read_only { Access::ReadOnly } else { Access::ReadWrite };
        self.turn = self.take_turn(access).await?;
        Ok(self.turn.is_some())
    }

    async fn commit(&mut self) -> Result<bool, Stop> {
        match self.turn.take() {
            Some(mut turn) if turn.status() != b'T' => {
                turn.roll_back().await?;
                self.reply(Message::complete("ROLLBACK"));
            }
            Some(mut turn) => {
                if !self.finish(&mut turn).await? {
                    return Ok(false);
                }
                self.reply(Message::complete("COMMIT"));
            }
            None => self.reply(Message::complete("COMMIT")),
        }
        Ok(true)
    }

    async fn roll_back(&mut self) -> Result<bool, Stop> {
        if let Some(mut turn) = self.turn.take() {
            turn.roll_back().await?;
        }
        self.reply(Message::complete("ROLLBACK"));
        Ok(true)
    }

    /// Runs non-transaction statements: in the open transaction, or in a separate turn.
    async fn run(&mut self, first: Message) -> Result<bool, Stop> {
        if let Some(mut turn) = self.turn.take() {
            let relayed = self.relay(&mut turn, first).await;
            self.turn = Some(turn);
            return relayed;
        }
        let is_simple = first.kind == b'Q';
        let Some(mut turn) = self.take_turn(Access::Default).await? else {
            while !is_simple && self.next().await?.kind != b'S' {}
            return Ok(false);
        };
        let well = self.relay(&mut turn, first).await?;
        if turn.status() == b'T' {
            Ok(self.finish(&mut turn).await? && well)
        } else {
            turn.roll_back().await?;
            Ok(false)
        }
    }

    /// Waits for the turn, and begins it; `None` if the client was sent an error.
    async fn take_turn(&mut self, access: Access) -> Result<Option<Turn>, Stop> {
        let waited = tokio::select! {
            turn = Arc::clone(&self.shared.session).lock_owned() => Ok(turn),
            () = sleep(self.shared.limit) => Err(("55P03", BUSY)),
            () = self.admitted.cancel.notified() => Err(("57014", "canceling statement due to user request")),
            () = self.from.gone() => return Err(Stop::Gone),
        };
        let mut turn = match waited {
            Ok(turn) => turn,
            Err((sqlstate, text)) => {
                self.refuse(sqlstate, text);
                return Ok(None);
            }
        };
        self.read_only = self.settings.is_read_only(access);
        match turn.begin(self.admitted.number, &self.settings, self.read_only).await {
            Ok(()) => Ok(Some(turn)),
            Err(failed) => self.heard(failed).map(|()| None),
        }
    }

    /// Ends a turn that succeeded.
    async fn finish(&mut self, turn: &mut Session) -> Result<bool, Stop> {
        match turn.commit(self.read_only).await {
            Ok(()) => Ok(true),
            Err(failed) => self.heard(failed).map(|()| false),
        }
    }

    /// Forwards messages both ways, until the server is ready for a request.
    ///
    /// Returns `false` if one of them was an error.
    async fn relay(&mut self, session: &mut Session, first: Message) -> Result<bool, Stop> {
        let is_simple = first.kind == b'Q';
        let mut reads = !ends_request(first.kind);
        let (mut copies, mut is_gone, mut well) = (false, false, true);
        let first = translated(first, self.admitted.number, session);
        session.send(&first).await?;
        loop {
            tokio::select! {
                heard = hear(&mut self.from, reads), if !is_gone => match heard {
                    Some(message) => {
                        reads = !(ends_request(message.kind) || (is_simple && matches!(message.kind, b'c' | b'f')));
                        let message = translated(message, self.admitted.number, session);
                        session.send(&message).await?;
                    }
                    None => {
                        is_gone = true;
                        session.cancel().await;
                        if reads && copies {
                            session.send(&Message::new(b'f', [0])).await?;
                        }
                        if reads && !is_simple {
                            session.send(&Message::new(b'S', [])).await?;
                        }
                    }
                },
                () = self.admitted.cancel.notified() => session.cancel().await,
                message = session.next() => {
                    let message = message?;
                    match message.kind {
                        b'Z' => return Ok(well),
                        // The server wants data, also after the end of the request.
                        b'G' => (reads, copies) = (!is_gone, true),
                        b'E' => well = false,
                        _ => {}
                    }
                    self.forward(message);
                }
            }
        }
    }

    /// Sends an error, and returns `false`.
    fn refuse(&self, sqlstate: &str, text: &str) -> bool {
        self.reply(Message::error("ERROR", sqlstate, text));
        false
    }

    fn heard(&self, failed: Failed) -> Result<(), Stop> {
        match failed {
            Failed::Refused(error) => self.reply(error),
            Failed::Ended => return Err(Stop::Ended),
        }
        Ok(())
    }

    fn forward(&mut self, message: Message) {
        self.told |= message.is_fatal();
        self.reply(message);
    }

    /// Sends a message to the client; the next read notices if the client has left.
    fn reply(&self, message: Message) {
        let _ = self.to.send(message.bytes());
    }
}

/// Waits for the client's next message, or only for its end; `None` is the end.
async fn hear(from: &mut Messages<OwnedReadHalf>, reads: bool) -> Option<Message> {
    if !reads {
        from.gone().await;
        return None;
    }
    from.next().await.ok().filter(|message| message.kind != b'X')
}

/// Returns `true` if the client must get an answer before its next message is read.
fn ends_request(kind: u8) -> bool {
    matches!(kind, b'Q' | b'S' | b'F')
}

async fn write(mut to: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    use tokio::io::AsyncWriteExt;
    while let Some(bytes) = queue.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
