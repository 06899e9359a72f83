//! A session's way to the servers: with its token, or without one for comparison.

use std::collections::BTreeSet;

use pointsman::prelude::*;
use pointsman::{CheckoutError, Error, ReplicaSet, Role, Session, WriteOptions};

use super::history::{Key, Snapshot, WriteId};

diesel::table! {
    /// One row per write.
    entries (id) {
        id -> BigInt,
        key -> Integer,
    }
}

/// The statements that create [`entries`]. Nothing keeps a write from being carried out twice.
pub(crate) const CREATE_ENTRIES: &str = "\
    CREATE TABLE entries (id bigint NOT NULL, key int NOT NULL); CREATE INDEX ON entries (key); \
    GRANT ALL ON entries TO app;";

/// A snapshot, and the kind of node that served it.
pub(crate) struct Served {
    pub(crate) seen: Snapshot,
    pub(crate) node: String,
    pub(crate) by_replica: bool,
}

/// The operations of one session.
pub(crate) enum Client {
    /// The session's token decides which node may serve.
    Session(Session),
    /// Each operation stands for itself.
    Plain(ReplicaSet),
}

impl Client {
    /// Reads some keys in one statement, on another node again if the first one fails.
    pub(crate) async fn run_read(&self, keys: &[Key]) -> Result<Served, Error> {
        let read = async |conn: &mut Conn<Read>| served(conn, keys).await;
        match self {
            Self::Session(session) => session.run_read(read).await,
            Self::Plain(set) => set.run_read(read).await,
        }
    }

    /// Checks out a connection to read.
    pub(crate) async fn read(&self) -> Result<Conn<Read>, CheckoutError> {
        match self {
            Self::Session(session) => session.read().await,
            Self::Plain(set) => set.read().await,
        }
    }

    /// Reads some keys and makes a write, in one transaction.
    pub(crate) async fn run_write(
        &self,
        options: &WriteOptions,
        keys: &[Key],
        write: WriteId,
        key: Key,
    ) -> Result<Snapshot, Error> {
        let transaction = async |tx: &mut Conn<Write>| {
            let seen = snapshot(tx.as_read(), keys).await?;
            insert(tx, write, key).await?;
            Ok(seen)
        };
        match self {
            Self::Session(session) => session.run_write_with(options, transaction).await,
            Self::Plain(set) => set.run_write_with(options, transaction).await,
        }
    }

    /// Checks out a connection to write.
    pub(crate) async fn write(&self) -> Result<Conn<Write>, CheckoutError> {
        match self {
            Self::Session(session) => session.write().await,
            Self::Plain(set) => set.write().await,
        }
    }

    /// Goes on in another set with the token as text, as a request to another service does.
    pub(crate) fn hand_over(&mut self, to: &ReplicaSet) {
        match self {
            Self::Session(session) => {
                let header = session.token().map(|token| token.to_string());
                let token = header.map(|text| text.parse().expect("the text of a token"));
                *session = token.map_or_else(|| to.session(), |token| to.session_from(&token));
            }
            Self::Plain(set) => *set = to.clone(),
        }
    }

    /// Goes on after a reported loss.
    pub(crate) fn forget(&self) {
        if let Self::Session(session) = self {
            session.forget();
        }
    }
}

/// Reads some keys in one statement.
pub(crate) async fn served(conn: &Conn<Read>, keys: &[Key]) -> Result<Served, Error> {
    let seen = snapshot(conn, keys).await?;
    Ok(Served { seen, node: conn.node().to_owned(), by_replica: conn.role() == Role::Replica })
}

async fn snapshot(conn: &Conn<Read>, keys: &[Key]) -> Result<Snapshot, Error> {
    let query = entries::table.filter(entries::key.eq_any(keys.to_vec()));
    let rows: Vec<(i64, Key)> = query.select((entries::id, entries::key)).load(conn).await?;
    let mut seen: Snapshot = keys.iter().map(|key| (*key, BTreeSet::new())).collect();
    for (id, key) in rows {
        seen.entry(key).or_default().insert(WriteId::from_row(id));
    }
    Ok(seen)
}

/// Writes with one statement.
pub(crate) async fn insert(conn: &Conn<Write>, write: WriteId, key: Key) -> Result<(), Error> {
    let row = (entries::id.eq(write.to_row()), entries::key.eq(key));
    diesel::insert_into(entries::table).values(row).execute(conn).await?;
    Ok(())
}
