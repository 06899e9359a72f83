//! Questions for the id and the position of a transaction.

use super::within::execute;
use super::*;

/// A primary that speaks both protocols.
#[derive(Debug, Default)]
struct Primary {
    /// The name of the bound statement.
    bound: Vec<u8>,
    /// `true` after an error, until `Sync`.
    skips: bool,
    status: u8,
    /// The id of the open transaction.
    id: Option<u64>,
    position: u64,
    /// `true` if the role may not ask.
    refuses: bool,
    /// The question fails as if it had been cancelled.
    cancels: bool,
}

fn row(columns: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).expect("few").to_be_bytes().to_vec();
    for column in columns {
        let length = column.map_or(-1, |text| i32::try_from(text.len()).expect("short"));
        body.extend(length.to_be_bytes());
        body.extend(column.unwrap_or_default().as_bytes());
    }
    message(b'D', &body)
}

impl Primary {
    fn sets(&mut self, id: Option<u64>, position: u64) {
        (self.id, self.position) = (id, position);
    }

    fn answer(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let done = message(b'C', b"SELECT 1\0");
        match kind {
            b'S' => {
                self.skips = false;
                ready(self.status)
            }
            _ if self.skips => Vec::new(),
            b'Q' => {
                self.status = if body.starts_with(b"BEGIN") { b'T' } else { self.status };
                [message(b'C', b"BEGIN\0"), ready(self.status)].concat()
            }
            b'P' => message(b'1', b""),
            b'B' => {
                self.bound = body.split(|byte| *byte == 0).nth(1).expect("a name").to_vec();
                message(b'2', b"")
            }
            b'E' if self.bound == b"pointsman_note" && (self.refuses || self.cancels) => {
                self.skips = true;
                self.status = if self.status == b'T' { b'E' } else { self.status };
                failed("ERROR", if self.refuses { "42501" } else { "57014" })
            }
            b'E' if self.bound == b"pointsman_note" => {
                let (id, position) = (self.id.map(|id| id.to_string()), format!("0/{:X}", self.position));
                [row(&[id.as_deref(), Some(&position)]), done].concat()
            }
            b'E' if self.bound.is_empty() => {
                [row(&[Some("-7"), Some("00000003"), Some("0/64")]), done].concat()
            }
            b'E' => [message(b'D', b"\0\x01\0\0\0\x02ok"), done].concat(),
            _ => Vec::new(),
        }
    }
}

/// Sends a statement and reads exactly its answer.
async fn simple(tap: &mut ProtocolTap<DuplexStream>, sql: &str, status: u8) {
    tap.write_all(&message(b'Q', &[sql.as_bytes(), b"\0"].concat())).await.expect("an open stream");
    tap.flush().await.expect("an open stream");
    let expected = [message(b'C', b"BEGIN\0"), ready(status)].concat();
    let mut read = vec![0; expected.len()];
    tap.read_exact(&mut read).await.expect("an answer");
    assert_eq!(read, expected);
}

fn users_row() -> Vec<u8> {
    [message(b'D', b"\0\x01\0\0\0\x02ok"), message(b'C', b"SELECT 1\0")].concat()
}

#[tokio::test]
async fn the_note_comes_with_the_answer_to_the_last_statement() {
    for cut in [1, 7, 1024] {
        let (mut tap, wire, stream) = connected(cut, false).await;
        let primary = Mutex::new(Primary { status: b'I', position: 100, ..Primary::default() });
        let server = |kind: u8, body: &[u8]| primary.lock().expect("no panic").answer(kind, body);
        let client = async {
            for id in [8, 9] {
                wire.begin_notes();
                simple(&mut tap, "BEGIN", b'T').await;
                assert_eq!(wire.noted(), Noted::Nothing);
                for (known, position) in [(None, 200), (Some(id), 300), (Some(id), 400)] {
                    primary.lock().expect("no panic").sets(known, position);
                    execute(&mut tap, &users_row(), b'T').await;
                    match (known, wire.noted()) {
                        (None, noted) => assert_eq!(noted, Noted::Nothing),
                        (Some(id), Noted::Written(note)) => {
                            assert_eq!((note.transaction_id, note.position), (id, Lsn::new(position)));
                            let origin = note.origin;
                            assert_eq!((origin.timeline, origin.recovered_to), (3, Some(Lsn::new(0x64))));
                            assert_eq!(origin.system_identifier, (-7_i64).cast_unsigned());
                        }
                        (_, noted) => panic!("{noted:?}"),
                    }
                }
                // Nothing follows a statement that may need its snapshot later, so the note covers less than all.
                simple(&mut tap, "LOCK TABLE t", b'T').await;
                assert_eq!(wire.noted(), Noted::Missed);
                simple(&mut tap, "SAVEPOINT a", b'T').await;
                execute(&mut tap, &users_row(), b'T').await;
                assert!(matches!(wire.noted(), Noted::Written(_)), "a later note covers it");
                wire.end_notes();
                primary.lock().expect("no panic").status = b'I';
                execute(&mut tap, &users_row(), b'I').await;
            }
            drop(tap);
        };
        let (kinds, ()) = tokio::join!(serve(stream, server), client);
        let transaction = "Q".to_owned() + &"BEBES".repeat(3) + "QQ" + "BEBES" + "BES";
        assert_eq!(kinds, "PBEPBES".to_owned() + &transaction + &transaction, "prepared once");
    }
}

/// An error of the question outside a transaction is no error of the user's, and inside one it is.
#[tokio::test]
async fn a_role_that_may_not_ask_is_not_asked_within_a_transaction() {
    let (mut tap, wire, stream) = connected(1024, false).await;
    let primary = Mutex::new(Primary { status: b'I', refuses: true, ..Primary::default() });
    let server = |kind: u8, body: &[u8]| primary.lock().expect("no panic").answer(kind, body);
    let client = async {
        wire.begin_notes();
        simple(&mut tap, "BEGIN", b'T').await;
        execute(&mut tap, &users_row(), b'T').await;
        assert_eq!(wire.noted(), Noted::Missed);
        assert_eq!(wire.sqlstate(), None, "the driver knows nothing of it");
        drop(tap);
    };
    let (kinds, ()) = tokio::join!(serve(stream, server), client);
    assert_eq!(kinds, "PBEPBES".to_owned() + "Q" + "BES");
}

/// The note of a simple query is a separate request, whose failure the connection has to know.
#[tokio::test]
async fn a_question_that_was_cancelled_fails_the_transaction_visibly() {
    let (mut tap, wire, stream) = connected(1024, false).await;
    let primary = Mutex::new(Primary { status: b'I', ..Primary::default() });
    let server = |kind: u8, body: &[u8]| primary.lock().expect("no panic").answer(kind, body);
    let client = async {
        wire.begin_notes();
        simple(&mut tap, "BEGIN", b'T').await;
        primary.lock().expect("no panic").cancels = true;
        simple(&mut tap, "INSERT INTO t VALUES (1)", b'T').await;
        answered(&mut tap, &wire).await;
        assert!(wire.is_failed());
        assert_eq!(wire.sqlstate(), Some(crate::SqlState::QUERY_CANCELED));
        assert_eq!(wire.noted(), Noted::Missed);
        drop(tap);
    };
    let (kinds, ()) = tokio::join!(serve(stream, server), client);
    assert_eq!(kinds, "PBEPBES".to_owned() + "QQ" + "BES");
}
