//! Rewrites a client's message for the one session.

use super::message::Message;
use super::session::Session;
use super::statement::{Control, statements};

/// The replacement of a prepared statement that begins or ends a transaction.
const PREPARED: &str = "a `RollbackSet` begins and ends transactions only by simple queries: call `transaction`, or run \
    this statement with `batch_execute`";

/// Returns a prepared statement's name, made unique to the client.
///
/// It also keeps the statement from ending a transaction.
pub(super) fn translated(mut message: Message, client: u64, session: &mut Session) -> Message {
    let body = &mut message.body;
    let end_of_first = body.iter().position(|byte| *byte == 0).unwrap_or(0);
    let name = match (message.kind, body.first()) {
        (b'Q', _) => {
            let text = String::from_utf8_lossy(&body[..end_of_first]);
            statements(&text).iter().for_each(|statement| session.note_settings(statement));
            return message;
        }
        (b'P', _) => {
            let text = body[end_of_first + 1..].split(|byte| *byte == 0).next().unwrap_or_default();
            let end = end_of_first + 1 + text.len();
            let statement = String::from_utf8_lossy(text);
            session.note_settings(&statement);
            if !matches!(Control::of(&statement), Control::None | Control::Savepoint) {
                let raise = format!("DO $$BEGIN RAISE '{PREPARED}' USING ERRCODE = '0A000'; END$$");
                body.splice(end_of_first + 1..end, raise.into_bytes());
            }
            0
        }
        (b'B', _) => end_of_first + 1,
        (b'D' | b'C', Some(b'S')) => 1,
        _ => return message,
    };
    // The unnamed one lasts for one request.
    if body.get(name).is_some_and(|byte| *byte != 0) {
        body.splice(name..name, format!("{client}_").into_bytes());
    }
    message
}
