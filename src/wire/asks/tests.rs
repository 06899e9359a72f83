mod notes;
mod within;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::lsn::Positions;
use crate::wire::frames::Frames;
use crate::wire::tap::ProtocolTap;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short body").to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

fn value(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short value").to_be_bytes();
    message(b'V', &[&length[..], bytes].concat())
}

fn failed(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Mwords\0\0").as_bytes())
}

/// A connection after its start-up, whose stream is cut into pieces of `cut` bytes.
async fn connected(
    cut: usize,
    is_standby: bool,
) -> (ProtocolTap<DuplexStream>, Arc<WireState>, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(cut);
    let wire = Arc::new(WireState::new(Arc::default()));
    let mut tap = ProtocolTap::new(ours, Arc::clone(&wire));
    let startup = [&8_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes()].concat();
    let hot_standby = if is_standby { &b"in_hot_standby\0on\0"[..] } else { b"in_hot_standby\0off\0" };
    let answer = [message(b'S', hot_standby), ready(b'I')].concat();
    let server = async {
        let mut read = [0; 8];
        theirs.read_exact(&mut read).await.expect("the start-up");
        theirs.write_all(&answer).await.expect("an open stream");
    };
    let mut read = vec![0; answer.len()];
    let client = async {
        tap.write_all(&startup).await.expect("an open stream");
        tap.read_exact(&mut read).await.expect("the answer");
    };
    tokio::join!(server, client);
    (tap, wire, theirs)
}

/// Answers each request, until the client is gone; returns the kinds of the messages that arrived.
async fn serve(stream: DuplexStream, answer: impl Fn(u8, &[u8]) -> Vec<u8>) -> String {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (answers, mut answered) = tokio::sync::mpsc::unbounded_channel();
    let read = async move {
        let (mut frames, mut kinds, mut bytes) = (Frames::new(false), String::new(), [0; 64]);
        while let Ok(n @ 1..) = reader.read(&mut bytes).await {
            frames.feed(&bytes[..n], |kind, body| {
                kinds.push(char::from(kind));
                answers.send(answer(kind, body)).expect("the writer lives as long");
            });
        }
        kinds
    };
    // Apart from the reads, because a client may send more before it reads.
    let write = async move {
        while let Some(answer) = answered.recv().await {
            writer.write_all(&answer).await.expect("an open stream");
        }
    };
    tokio::join!(read, write).0
}

/// Answers a statement as a server does.
fn honest(kind: u8, _body: &[u8]) -> Vec<u8> {
    match kind {
        b'Q' => [message(b'C', b"SELECT 1\0"), ready(b'I')].concat(),
        _ => Vec::new(),
    }
}

fn calls(answers: Vec<Vec<u8>>) -> impl Fn(u8, &[u8]) -> Vec<u8> {
    let answers = Mutex::new(VecDeque::from(answers));
    move |kind, body| match kind {
        b'F' => answers.lock().expect("no panic").pop_front().expect("no further question"),
        kind => honest(kind, body),
    }
}

fn tracked(wire: &WireState) -> Arc<PositionLog> {
    let log = Arc::new(PositionLog::default());
    wire.track(Tracking { log: Arc::clone(&log), timeline: 2, is_primary: false });
    log
}

/// Sends a statement and reads exactly its answer, as the driver does.
async fn query(tap: &mut ProtocolTap<DuplexStream>, sql: &str) {
    let expected = honest(b'Q', b"");
    let mut read = vec![0; expected.len()];
    tap.write_all(&message(b'Q', &[sql.as_bytes(), b"\0"].concat())).await.expect("an open stream");
    tap.flush().await.expect("an open stream");
    tap.read_exact(&mut read).await.expect("an answer");
    assert_eq!(read, expected);
}

#[tokio::test]
async fn the_position_behind_a_statement_of_a_primary_is_recorded_with_its_timeline() {
    for cut in [1, 3, 7, 1024] {
        let (mut tap, wire, stream) = connected(cut, false).await;
        let log = tracked(&wire);
        let first = [value(b"000000030000000000000000"), ready(b'I')].concat();
        let server = calls(vec![
            first,
            [value(&500_u64.to_be_bytes()), ready(b'I')].concat(),
            [value(&600_u64.to_be_bytes()), ready(b'I')].concat(),
        ]);
        let client = async {
            query(&mut tap, "INSERT INTO t VALUES (1)").await;
            answered(&mut tap, &wire).await;
            assert_eq!(log.positions(), Positions::one(3, Lsn::new(500)));
            query(&mut tap, "INSERT INTO t VALUES (2)").await;
            answered(&mut tap, &wire).await;
            drop(tap);
        };
        let (kinds, ()) = tokio::join!(serve(stream, server), client);
        assert_eq!(kinds, "QFFQF", "the timeline is asked for once");
        assert_eq!(log.positions(), Positions::one(3, Lsn::new(600)));
    }
}

/// Reads until no question is open, as the driver's task does.
async fn answered(tap: &mut ProtocolTap<DuplexStream>, wire: &WireState) {
    tokio::select! {
        biased;
        () = wire.positions_answered() => {}
        read = tap.read_u8() => panic!("the driver got a part of the answer: {read:?}"),
    }
}

#[tokio::test]
async fn the_position_before_a_statement_of_a_standby_is_that_of_its_replay() {
    for cut in [1, 5, 1024] {
        let (mut tap, wire, stream) = connected(cut, true).await;
        wire.ask_before_next();
        let server = calls(vec![[value(&400_u64.to_be_bytes()), ready(b'I')].concat()]);
        let client = async {
            query(&mut tap, "SELECT 1").await;
            assert_eq!(wire.position_before(), Some(Lsn::new(400)));
            query(&mut tap, "SELECT 2").await;
            drop(tap);
        };
        let (kinds, ()) = tokio::join!(serve(stream, server), client);
        assert_eq!(kinds, "FQQ");
    }
}

/// A replica that was promoted unseen passed for one that was far enough, on another history.
#[tokio::test]
async fn a_server_that_is_no_standby_any_more_proves_nothing() {
    let (mut tap, wire, stream) = connected(1024, false).await;
    wire.ask_before_next();
    assert!(wire.is_proven(Lsn::new(400)), "nothing was read yet");
    let server = calls(vec![[value(&400_u64.to_be_bytes()), ready(b'I')].concat()]);
    let client = async {
        query(&mut tap, "SELECT 1").await;
        drop(tap);
    };
    tokio::join!(serve(stream, server), client);
    assert_eq!(wire.position_before(), Some(Lsn::new(400)));
    assert!(!wire.is_proven(Lsn::new(400)));
    assert_eq!(wire.stats().position(), Lsn::default(), "and no other read counts on it");
}

#[tokio::test]
async fn a_question_that_fails_fails_no_statement_and_leaves_a_gap() {
    for (code, refused) in [("57014", false), ("42501", true)] {
        let (mut tap, wire, stream) = connected(1024, true).await;
        let log = tracked(&wire);
        let server = calls(vec![[failed("ERROR", code), ready(b'I')].concat()]);
        let client = async {
            query(&mut tap, "SELECT 1").await;
            answered(&mut tap, &wire).await;
            drop(tap);
        };
        tokio::join!(serve(stream, server), client);
        assert_eq!((log.is_refused(), log.gap()), (refused, (!refused).then_some(2)), "{code}");
        assert!(log.positions().is_empty());
        assert_eq!(wire.sqlstate(), None, "it is no error of the user");
    }
}

/// The answer to a COMMIT arrived, and the session ended before its position did.
#[tokio::test]
async fn a_connection_that_ends_before_the_position_leaves_a_gap() {
    let (mut tap, wire, stream) = connected(1024, true).await;
    let log = tracked(&wire);
    let server = calls(vec![Vec::new()]);
    let client = async {
        query(&mut tap, "COMMIT").await;
        assert_eq!(log.gap(), None);
        drop(tap);
    };
    tokio::join!(serve(stream, server), client);
    assert_eq!(log.gap(), Some(2));
    // A later position of the same timeline covers it, and one of another does not.
    log.close_gap(3, Lsn::new(500));
    assert_eq!(log.gap(), Some(2));
    log.close_gap(2, Lsn::new(500));
    assert_eq!(log.gap(), None);
}

#[tokio::test]
async fn an_error_that_ends_the_session_reaches_the_driver() {
    let (mut tap, wire, stream) = connected(1024, true).await;
    tracked(&wire);
    let server = calls(vec![failed("FATAL", "57P01")]);
    let client = async {
        query(&mut tap, "SELECT 1").await;
        let mut read = vec![0; failed("FATAL", "57P01").len()];
        tap.read_exact(&mut read).await.expect("the error");
        assert_eq!(read, failed("FATAL", "57P01"));
        assert!(wire.is_ending());
        drop(tap);
    };
    tokio::join!(serve(stream, server), client);
}

#[test]
fn a_question_follows_whatever_ends_a_transaction_and_nothing_inside_it() {
    for (kind, statement, status, expected) in [
        (b'Q', "SELECT 1", b'I', true),
        (b'S', "", b'I', true),
        (b'Q', "BEGIN", b'I', false),
        (b'Q', "begin transaction read only", b'I', false),
        (b'Q', " START TRANSACTION", b'I', false),
        (b'Q', "COPY t FROM STDIN", b'I', false),
        (b'Q', "INSERT INTO t VALUES (1)", b'T', false),
        (b'S', "", b'T', false),
        (b'Q', "COMMIT", b'T', true),
        (b'Q', "commit and chain", b'T', true),
        (b'Q', "ROLLBACK", b'T', true),
        (b'Q', "ROLLBACK\0", b'E', true),
        (b'Q', "ROLLBACK TO SAVEPOINT one\0", b'E', false),
        (b'Q', "COMMIT", b'E', true),
    ] {
        let found = is_followed(kind, statement.as_bytes(), status);
        assert_eq!(found, expected, "{statement} in {}", char::from(status));
    }
}

/// A COMMIT by the extended protocol ends a transaction without a question behind it.
#[test]
fn a_transaction_that_ends_without_a_question_is_noticed() {
    let wire = WireState::new(Arc::default());
    tracked(&wire);
    let mut out = Vec::new();
    let mut send = |kind: u8, body: &[u8]| wire.sent_and_ask((kind, body, Effect::None), None, &mut out);
    send(b'Q', b"BEGIN\0");
    wire.received(b'Z', b"T");
    send(b'E', b"");
    send(b'S', b"");
    assert!(!wire.has_missed_position());
    wire.received(b'Z', b"I");
    assert!(wire.has_missed_position());
    send(b'Q', b"\0");
    assert!(!wire.has_missed_position(), "the next question covers it");
    assert!(!out.is_empty());
}

/// A session forgot what it had read in a transaction that was dropped, or whose connection was lost.
#[test]
fn an_open_transaction_leaves_a_gap_when_its_connection_is_given_back() {
    for (status, expected) in [(b"I", None), (b"T", Some(2)), (b"E", Some(2))] {
        let wire = WireState::new(Arc::default());
        let log = tracked(&wire);
        wire.sent_and_ask((b'Q', b"BEGIN\0", Effect::None), None, &mut Vec::new());
        wire.received(b'Z', status);
        wire.untrack();
        assert_eq!(log.gap(), expected, "{status:?}");
    }
}

/// The statement of an abandoned session was taken for answered, so it was not cancelled.
#[tokio::test]
async fn the_answer_to_a_question_does_not_end_the_statement_of_an_abandoned_session() {
    let (mut tap, wire, mut stream) = connected(1024, true).await;
    wire.ask_before_next();
    tap.write_all(&message(b'Q', b"SELECT pg_sleep(60)\0")).await.expect("an open stream");
    tap.flush().await.expect("an open stream");
    wire.give_up();
    drop(tap);
    let remains = wire.take_remains().expect("an abandoned session");
    stream.write_all(&[value(&400_u64.to_be_bytes()), ready(b'I')].concat()).await.expect("an open stream");
    drop(stream);
    remains.end(&wire).await;
    assert!(wire.has_pending(), "the statement is still running");
}

proptest! {
    /// However the answers are cut, the driver gets those to its own requests, byte by byte.
    #[test]
    fn the_driver_gets_exactly_the_answers_to_its_requests(
        requests in prop::collection::vec((0_u8..4, any::<bool>(), 0_usize..40), 1..12),
        cuts in prop::collection::vec(1_usize..50, 1..30),
    ) {
        let wire = Arc::new(WireState::new(Arc::default()));
        let (stream, _theirs) = tokio::io::duplex(1);
        let mut tap = ProtocolTap::new(stream, Arc::clone(&wire));
        let log = tracked(&wire);
        wire.received(b'S', b"in_hot_standby\0on\0");
        let (mut all, mut expected, mut highest) = (Vec::<u8>::new(), Vec::<u8>::new(), 0);
        for (i, (answer, notice, size)) in requests.iter().enumerate() {
            let mut out = Vec::new();
            wire.sent_and_ask((b'Q', b"SELECT 1\0", Effect::None), None, &mut out);
            prop_assert!(!out.is_empty());
            let own = [message(b'D', &vec![b'V'; *size]), message(b'C', b"SELECT 1\0"), ready(b'I')].concat();
            all.extend(&own);
            expected.extend(&own);
            if *notice {
                let notice = message(b'N', b"SNOTICE\0\0");
                all.extend(&notice);
                expected.extend(&notice);
            }
            match answer {
                0 => all.extend(failed("ERROR", "57014")),
                1 => all.extend(value(&[])),
                _ => {
                    highest = i as u64 * 64 + 512;
                    all.extend(value(&highest.to_be_bytes()));
                }
            }
            all.extend(ready(b'I'));
        }
        let (mut rest, mut cuts) = (&all[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let n = cuts.next().copied().unwrap_or(1).min(rest.len());
            tap.filter(&rest[..n]);
            rest = &rest[n..];
        }
        prop_assert_eq!(tap.passed(), &expected[..]);
        prop_assert!(!wire.has_questions() && !wire.has_pending());
        prop_assert_eq!(log.positions(), Positions::one(2, Lsn::new(highest)));
    }
}
