//! Questions that are a statement within the user's request.

use super::*;

/// A standby that speaks the extended protocol, with one row for each of the user's statements.
#[derive(Debug, Default)]
struct Standby {
    position: u64,
    isolation: &'static str,
    /// `true` if the user's statements fail.
    fails: bool,
    /// `true` if the bound statement is the question.
    asked: bool,
    /// `true` after an error, until `Sync`.
    skips: bool,
    /// `true` if the question is prepared.
    prepared: bool,
}

impl Standby {
    fn new(position: u64) -> Self {
        Self { position, isolation: "read committed", ..Self::default() }
    }

    fn answer(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        match kind {
            b'S' => {
                self.skips = false;
                ready(b'I')
            }
            _ if self.skips => Vec::new(),
            b'F' => [value(&self.position.to_be_bytes()), ready(b'I')].concat(),
            b'P' => {
                assert!(!self.prepared, "a name is prepared once");
                self.prepared = true;
                message(b'1', b"")
            }
            b'B' => {
                self.asked = body.starts_with(b"\0pointsman_position\0");
                assert!(!self.asked || self.prepared, "it was prepared before");
                message(b'2', b"")
            }
            b'E' if self.asked => {
                let position = [&8_u32.to_be_bytes()[..], &self.position.to_be_bytes()].concat();
                let length = u32::try_from(self.isolation.len()).expect("short").to_be_bytes();
                let row = [&[0, 2], &position[..], &length, self.isolation.as_bytes()].concat();
                [message(b'D', &row), message(b'C', b"SELECT 1\0")].concat()
            }
            b'E' if self.fails => {
                self.skips = true;
                failed("ERROR", "22012")
            }
            b'E' => users_row(),
            _ => honest(kind, body),
        }
    }
}

fn users_row() -> Vec<u8> {
    [message(b'D', b"\0\x01\0\0\0\x02ok"), message(b'C', b"SELECT 1\0")].concat()
}

/// Executes a prepared statement as the driver does, and reads exactly its answer.
pub(super) async fn execute(tap: &mut ProtocolTap<DuplexStream>, expected: &[u8], status: u8) {
    let bind = message(b'B', b"\0s0\0\0\0\0\0\0\0");
    let request = [bind, message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    let expected = [&message(b'2', b"")[..], expected, &ready(status)].concat();
    tap.write_all(&request).await.expect("an open stream");
    tap.flush().await.expect("an open stream");
    let mut read = vec![0; expected.len()];
    tap.read_exact(&mut read).await.expect("an answer");
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_session_asks_apart_once_and_then_within_the_requests() {
    let (mut tap, wire, stream) = connected(1024, true).await;
    let log = tracked(&wire);
    let standby = Mutex::new(Standby::new(500));
    let server = |kind: u8, body: &[u8]| standby.lock().expect("no panic").answer(kind, body);
    let client = async {
        execute(&mut tap, &users_row(), b'I').await;
        answered(&mut tap, &wire).await;
        assert_eq!(log.positions(), Positions::one(2, Lsn::new(500)));
        for position in [600, 700] {
            standby.lock().expect("no panic").position = position;
            execute(&mut tap, &users_row(), b'I').await;
            assert!(!wire.has_questions(), "it was answered with the request");
            assert_eq!(log.positions(), Positions::one(2, Lsn::new(position)));
        }
        drop(tap);
    };
    let (kinds, ()) = tokio::join!(serve(stream, server), client);
    assert_eq!(kinds, "BESF".to_owned() + "BEPBES" + "BEBES");
}

#[tokio::test]
async fn a_question_before_a_request_proves_what_its_statements_read() {
    for (isolation, proves) in [("read committed", true), ("repeatable read", false)] {
        let (mut tap, wire, stream) = connected(1024, true).await;
        let standby = Mutex::new(Standby { isolation, ..Standby::new(500) });
        let server = |kind: u8, body: &[u8]| standby.lock().expect("no panic").answer(kind, body);
        let client = async {
            for proven in [true, proves, true] {
                wire.ask_before_next();
                execute(&mut tap, &users_row(), b'I').await;
                assert_eq!(wire.is_proven(Lsn::new(500)), proven, "{isolation}");
                assert!(!wire.is_proven(Lsn::new(501)));
            }
            drop(tap);
        };
        let (kinds, ()) = tokio::join!(serve(stream, server), client);
        let last = if proves { "BEBES" } else { "FBES" };
        assert_eq!(kinds, "FBES".to_owned() + "PBEBES" + last, "{isolation}");
    }
}

/// The end of a promoted server's recovery passed for its position, although later writes had been read.
#[tokio::test]
async fn a_promotion_that_the_end_of_the_request_reports_leaves_no_position() {
    for cut in [1, 7, 1024] {
        let (mut tap, wire, stream) = connected(cut, true).await;
        let log = tracked(&wire);
        let standby = Mutex::new(Standby::new(500));
        let promoted = message(b'S', b"in_hot_standby\0off\0");
        let server = |kind: u8, body: &[u8]| {
            let answer = standby.lock().expect("no panic").answer(kind, body);
            let is_promoted = kind == b'S' && standby.lock().expect("no panic").prepared;
            if is_promoted { [&promoted[..], &answer].concat() } else { answer }
        };
        let client = async {
            execute(&mut tap, &users_row(), b'I').await;
            answered(&mut tap, &wire).await;
            standby.lock().expect("no panic").position = 600;
            execute(&mut tap, &[&users_row()[..], &promoted].concat(), b'I').await;
            assert!(wire.has_missed_position() && !wire.has_questions());
            assert_eq!(log.positions(), Positions::one(2, Lsn::new(500)), "nothing after the promotion");
            drop(tap);
        };
        tokio::join!(serve(stream, server), client);
    }
}

/// An error of the user's statement lets the server skip the question, and the statement that prepares it.
#[tokio::test]
async fn a_question_that_was_skipped_is_missed_and_asked_again() {
    let (mut tap, wire, stream) = connected(1024, true).await;
    let log = tracked(&wire);
    let standby = Mutex::new(Standby::new(500));
    let server = |kind: u8, body: &[u8]| standby.lock().expect("no panic").answer(kind, body);
    let client = async {
        execute(&mut tap, &users_row(), b'I').await;
        answered(&mut tap, &wire).await;
        standby.lock().expect("no panic").fails = true;
        execute(&mut tap, &failed("ERROR", "22012"), b'I').await;
        assert!(wire.has_missed_position() && !wire.has_questions());
        assert_eq!(wire.take_sqlstate().map(|code| code.to_string()).as_deref(), Some("22012"));
        *standby.lock().expect("no panic") = Standby::new(600);
        execute(&mut tap, &users_row(), b'I').await;
        assert!(!wire.has_missed_position());
        assert_eq!(log.positions(), Positions::one(2, Lsn::new(600)));
        drop(tap);
    };
    let (kinds, ()) = tokio::join!(serve(stream, server), client);
    assert_eq!(kinds, "BESF".to_owned() + "BEPBES" + "BEPBES");
}

/// `DISCARD ALL` removes the prepared statement, and a request that binds it would fail.
#[tokio::test]
async fn nothing_is_asked_within_a_request_once_the_user_removed_all_statements() {
    let (mut tap, wire, stream) = connected(1024, true).await;
    tracked(&wire);
    let standby = Mutex::new(Standby::new(500));
    let server = |kind: u8, body: &[u8]| standby.lock().expect("no panic").answer(kind, body);
    let client = async {
        execute(&mut tap, &users_row(), b'I').await;
        answered(&mut tap, &wire).await;
        wire.received(b'C', b"DISCARD ALL\0");
        execute(&mut tap, &users_row(), b'I').await;
        answered(&mut tap, &wire).await;
        drop(tap);
    };
    let (kinds, ()) = tokio::join!(serve(stream, server), client);
    assert_eq!(kinds, "BESFBESF");
}

proptest! {
    /// However requests and answers are cut, the driver gets exactly those to its own requests.
    #[test]
    fn the_driver_gets_exactly_the_answers_to_pipelined_requests(
        requests in prop::collection::vec((1_usize..4, any::<bool>(), any::<bool>()), 1..10),
        cuts in prop::collection::vec(1_usize..50, 1..30),
    ) {
        let wire = Arc::new(WireState::new(Arc::default()));
        let (stream, _theirs) = tokio::io::duplex(1);
        let mut tap = ProtocolTap::new(stream, Arc::clone(&wire));
        let log = tracked(&wire);
        wire.received(b'S', b"in_hot_standby\0on\0");
        wire.asks.queue().statement = Statement::Allowed;
        let mut standby = Standby::new(500);
        let (mut all, mut expected) = (Vec::new(), Vec::new());
        for (statements, fails, leads) in &requests {
            standby.fails = *fails;
            let mut request = Vec::new();
            if *leads {
                // As at a new checkout; an earlier request may still be open, and then nothing is asked.
                wire.ask_before_next();
                wire.ask_before(Some(b'B'), &mut request);
            }
            let of_user = [message(b'B', b"\0s0\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0")].concat();
            let (mut within, mut behind) = (Vec::new(), Vec::new());
            for _ in 0..*statements {
                request.extend(&of_user);
                wire.sent_and_ask((b'B', b"", Effect::None), None, &mut behind);
                wire.sent_and_ask((b'E', b"", Effect::None), None, &mut behind);
            }
            wire.sent_and_ask((b'S', b"", Effect::None), Some(&mut within), &mut behind);
            request.extend([&within[..], &message(b'S', b""), &behind].concat());
            if *fails {
                expected.extend([message(b'2', b""), failed("ERROR", "22012")].concat());
            } else {
                expected.extend([message(b'2', b""), users_row()].concat().repeat(*statements));
            }
            expected.extend(ready(b'I'));
            Frames::new(false).feed(&request, |kind, body| all.extend(standby.answer(kind, body)));
        }
        let (mut rest, mut cuts) = (&all[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let n = cuts.next().copied().unwrap_or(1).min(rest.len());
            tap.filter(&rest[..n]);
            rest = &rest[n..];
        }
        prop_assert_eq!(tap.passed(), &expected[..]);
        prop_assert!(!wire.has_questions() && !wire.has_pending());
        let some_succeeded = requests.iter().any(|(_, fails, _)| !fails);
        prop_assert!(!some_succeeded || log.positions() == Positions::one(2, Lsn::new(500)));
        prop_assert!(!log.positions().is_empty() || wire.has_missed_position());
    }
}
