//! The first messages of a client: its kind, and the decision to admit it.

use std::io;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::client::Client;
use super::message::{Message, Messages, terminated};
use super::server::Shared;
use super::session::Session;
use super::settings::Settings;

/// The codes that stand for a version in a first message, and the version itself.
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The start-up option of a session that asks a node for its state.
const PROBE: &str = "pointsman.session=probe";

/// The SQLSTATE of a login to a session that has ended.
const NO_TRANSACTION: &str = "0B000";

/// Serves one connection of the set to its end.
pub(super) async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut peer = Messages::new(stream);
    let first = loop {
        let first = peer.untyped().await?;
        match code(&first) {
            TLS | GSS => peer.send_bytes(b"N").await?,
            CANCEL => {
                shared.cancel(first.get(8..).unwrap_or_default());
                return Ok(());
            }
            _ => break first,
        }
    };
    let parameters = Message::new(0, first.get(8..).unwrap_or_default()).texts();
    let options = value_of(&parameters, "options").unwrap_or_default();
    if options.contains(PROBE) {
        // The monitor asks the server itself. Otherwise a probe would wait for a transaction, and the monitor would
        // mark the node down.
        let mut server = shared.target.connect().await?;
        tokio::io::AsyncWriteExt::write_all(&mut server, &first).await?;
        copy_bidirectional(&mut peer.into_inner(), &mut server).await?;
        return Ok(());
    }
    if let Some(password) = &shared.password {
        peer.send(&Message::new(b'R', 3_u32.to_be_bytes())).await?;
        let given = peer.next().await?;
        if given.kind != b'p' || given.body != terminated(&[password.expose()]) {
            let text = "the password is not the one that the set was made with";
            return peer.send(&Message::error("FATAL", "28P01", text)).await;
        }
    }
    if let Ok(session) = shared.session.try_lock()
        && let Some(text) = has_ended(&session)
    {
        return peer.send(&Message::error("FATAL", NO_TRANSACTION, &text)).await;
    }
    let settings = Settings::of_options(&options);
    let client = shared.admit();
    let mut greeting = vec![Message::new(b'R', 0_u32.to_be_bytes())];
    for (name, value) in &shared.parameters {
        let value = settings.value_of(name).unwrap_or(value);
        greeting.push(Message::new(b'S', terminated(&[name, value])));
    }
    greeting.push(Message::new(b'K', client.key()));
    greeting.push(Message::ready(b'I'));
    peer.send_bytes(&greeting.iter().flat_map(Message::bytes).collect::<Vec<_>>()).await?;
    Client::new(shared, client, settings, peer.into_inner()).serve().await;
    Ok(())
}

/// The error for a client whose session has ended.
pub(super) fn has_ended(session: &Session) -> Option<String> {
    let cause = session.end()?;
    Some(format!(
        "the session of this `RollbackSet` has ended, and everything that was done in it is rolled back: {cause}; \
         make another set"
    ))
}

fn code(first: &[u8]) -> u32 {
    first.get(4..8).and_then(|code| code.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Returns a parameter of the start-up: names and values take turns.
fn value_of(parameters: &[String], name: &str) -> Option<String> {
    parameters.chunks(2).find_map(|pair| (pair.first()? == name).then(|| pair.get(1).cloned())?)
}
