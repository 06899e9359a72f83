//! One session at a simulated server: the state of its protocol and its transaction (pure).

use std::collections::HashMap;

use self::answers::replay_position;
use super::cluster::State;
use super::message::{Answer, Message, Reader, SqlError, Value};
use super::statement::Statement;
use super::wal::{Body, Entry};

mod answers;

/// The state of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    /// Around the statements up to the next `Sync`.
    Implicit,
    Open,
    Failed,
}

/// The next step of the connection before the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    GoOn,
    /// Wait until a standby has this number of records, and then [finish](Session::finish_commit).
    AwaitStandby {
        records: usize,
    },
    /// End the session.
    End,
}

#[derive(Debug)]
pub(crate) struct Session {
    node: usize,
    pub(crate) pid: i32,
    mark: String,
    read_only: bool,
    transaction: Transaction,
    transaction_read_only: bool,
    xid: Option<u64>,
    entries: Vec<Entry>,
    statements: HashMap<String, Statement>,
    /// The statement, its parameters, and `true` if its rows are binary.
    portal: Option<(Statement, Vec<i64>, bool)>,
    /// `true` after an error, until the next `Sync`.
    skips: bool,
    reported_standby: bool,
    /// `true` while the COMMIT is in the log, and waits for a standby.
    is_committing: bool,
    /// The tag of the COMMIT, if it is a statement.
    committing_tag: Option<&'static str>,
}

const READ_ONLY: SqlError = SqlError::error("25006", "cannot execute INSERT in a read-only transaction");
const ABORTED: SqlError = SqlError::error("25P02", "current transaction is aborted");
const CONFLICT: SqlError = SqlError::error("40001", "could not serialize access");

impl Session {
    /// Begins a session with its start-up parameters.
    pub(crate) fn new(node: usize, pid: i32, body: &[u8]) -> Self {
        let mut reader = Reader(&body[4..]);
        let mut options = String::new();
        while !reader.0.is_empty() {
            let (name, value) = (reader.text(), reader.text());
            if name == "options" {
                options = value;
            }
        }
        let option = |name: &str| {
            let at = options.find(&format!("-c {name}="))? + name.len() + 4;
            options[at..].split(' ').next().map(str::to_owned)
        };
        Self {
            node,
            pid,
            mark: option("pointsman.session").unwrap_or_default(),
            read_only: option("default_transaction_read_only").as_deref() == Some("on"),
            transaction: Transaction::None,
            transaction_read_only: false,
            xid: None,
            entries: Vec::new(),
            statements: HashMap::new(),
            portal: None,
            skips: false,
            reported_standby: false,
            is_committing: false,
            committing_tag: None,
        }
    }

    pub(crate) fn node(&self) -> usize {
        self.node
    }

    /// Answers the start-up.
    pub(crate) fn greet(&mut self, state: &State, secret: i32, answer: &mut Answer) {
        answer.message(b'R', &[0; 4]);
        let standby = state.nodes[self.node].in_recovery();
        self.reported_standby = standby;
        let on = |value| if value { "on" } else { "off" };
        for (name, value) in [
            ("server_version", "15.14"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("in_hot_standby", on(standby)),
            ("default_transaction_read_only", on(self.read_only)),
        ] {
            answer.parameter(name, value);
        }
        answer.message(b'K', &[self.pid.to_be_bytes(), secret.to_be_bytes()].concat());
        answer.message(b'Z', b"I");
    }

    /// Handles a message of the client.
    pub(crate) fn on(&mut self, message: &Message, state: &mut State, answer: &mut Answer) -> Step {
        if self.skips && !matches!(message.kind, b'S' | b'X') {
            return Step::GoOn;
        }
        let mut reader = Reader(&message.body);
        let outcome = match message.kind {
            b'Q' => return self.query(&reader.text(), message.seen, state, answer),
            b'S' => {
                self.skips = false;
                if self.transaction == Transaction::Implicit {
                    return match self.commit(None, message.seen, state, answer) {
                        Ok(step @ Step::AwaitStandby { .. }) => step,
                        Ok(step) => {
                            self.ready(state, answer);
                            step
                        }
                        Err(error) => {
                            answer.error(error);
                            self.ready(state, answer);
                            Step::GoOn
                        }
                    };
                }
                self.ready(state, answer);
                Ok(())
            }
            b'X' => return Step::End,
            b'P' => {
                let (name, sql) = (reader.text(), reader.text());
                self.statements.insert(name, Statement::parse(&sql));
                answer.message(b'1', &[]);
                Ok(())
            }
            b'D' => {
                let name = Reader(&message.body[1..]).text();
                self.describe(self.statements[&name], answer);
                Ok(())
            }
            b'B' => {
                reader.text();
                let statement = self.statements[&reader.text()];
                for _ in 0..reader.u16() {
                    reader.u16();
                }
                let parameters = (0..reader.u16()).map(|_| reader.parameter()).collect();
                let binary = reader.u16() > 0 && reader.u16() == 1;
                self.portal = Some((statement, parameters, binary));
                answer.message(b'2', &[]);
                Ok(())
            }
            b'E' => {
                let (statement, parameters, binary) = self.portal.clone().expect("a portal");
                if self.transaction == Transaction::None {
                    self.begin(Transaction::Implicit, false, state);
                }
                self.execute(statement, &parameters, binary, state, answer)
            }
            b'C' => {
                if message.body[0] == b'S' {
                    self.statements.remove(&Reader(&message.body[1..]).text());
                }
                answer.message(b'3', &[]);
                Ok(())
            }
            b'F' => {
                self.call(reader.i32(), state, answer);
                self.ready(state, answer);
                Ok(())
            }
            b'H' => Ok(()),
            kind => panic!("the simulated server does not know messages of the kind {}", char::from(kind)),
        };
        if let Err(error) = outcome {
            self.fail(error, state, answer);
            self.skips = true;
        }
        Step::GoOn
    }

    fn query(&mut self, text: &str, seen: u32, state: &mut State, answer: &mut Answer) -> Step {
        // A reset of the session has several statements, all of which set something.
        let is_reset = text.starts_with("SET SESSION AUTHORIZATION");
        let statement = if is_reset { Statement::Set } else { Statement::parse(text) };
        let outcome = match statement {
            Statement::Empty => {
                answer.message(b'I', &[]);
                Ok(Step::GoOn)
            }
            Statement::Begin { read_only } => {
                self.begin(Transaction::Open, read_only, state);
                answer.tag("BEGIN");
                Ok(Step::GoOn)
            }
            Statement::Commit if self.transaction == Transaction::Failed => {
                self.roll_back(state);
                answer.tag("ROLLBACK");
                Ok(Step::GoOn)
            }
            Statement::Commit => self.commit(Some("COMMIT"), seen, state, answer),
            Statement::Rollback => {
                self.roll_back(state);
                answer.tag("ROLLBACK");
                Ok(Step::GoOn)
            }
            statement => {
                if !statement.columns().is_empty() {
                    answer.columns(statement.columns());
                }
                self.execute(statement, &[], false, state, answer).map(|()| Step::GoOn)
            }
        };
        match outcome {
            Ok(step @ Step::AwaitStandby { .. }) => return step,
            Ok(_) => {}
            Err(error) => self.fail(error, state, answer),
        }
        self.ready(state, answer);
        Step::GoOn
    }

    fn begin(&mut self, transaction: Transaction, read_only: bool, state: &State) {
        self.transaction = transaction;
        self.transaction_read_only = read_only || self.read_only || state.nodes[self.node].in_recovery();
    }

    fn fail(&mut self, error: SqlError, state: &mut State, answer: &mut Answer) {
        answer.error(error);
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        } else if self.transaction == Transaction::Implicit {
            self.roll_back(state);
        }
    }

    /// Ends the session's transaction: what its log has committed becomes visible.
    pub(crate) fn leave(&mut self, state: &mut State) {
        if self.is_committing {
            self.complete_commit(state, &mut Answer::default());
        } else {
            self.roll_back(state);
        }
    }

    fn roll_back(&mut self, state: &mut State) {
        if let Some(xid) = self.xid.take() {
            let number = state.number();
            let node = &mut state.nodes[self.node];
            node.append(number, Body::Abort { xid });
            node.database.apply(Body::Abort { xid });
        }
        self.transaction = Transaction::None;
        self.entries.clear();
    }

    /// Commits the transaction; it is visible only after [`finish_commit`](Self::finish_commit).
    fn commit(
        &mut self,
        tag: Option<&'static str>,
        seen: u32,
        state: &mut State,
        answer: &mut Answer,
    ) -> Result<Step, SqlError> {
        self.committing_tag = tag;
        let Some(xid) = self.xid else {
            self.transaction = Transaction::None;
            tag.into_iter().for_each(|tag| answer.tag(tag));
            return Ok(Step::GoOn);
        };
        if state.nodes[self.node].conflicts > 0 {
            state.nodes[self.node].conflicts -= 1;
            self.roll_back(state);
            return Err(CONFLICT);
        }
        let number = state.number();
        let node = &mut state.nodes[self.node];
        let records = node.append(number, Body::Commit { xid });
        node.flushed = records;
        let timeline = node.timeline;
        for entry in &self.entries {
            state.commits.push((*entry, self.node));
        }
        if seen > timeline {
            state.violations.push(format!(
                "stale primary: n{} committed {:?} on timeline {timeline}, sent after the set had seen {seen}",
                self.node, self.entries
            ));
        }
        state.feed(self.node);
        if state.synchronous {
            self.is_committing = true;
            return Ok(Step::AwaitStandby { records });
        }
        self.complete_commit(state, answer);
        Ok(Step::GoOn)
    }

    fn complete_commit(&mut self, state: &mut State, answer: &mut Answer) {
        if let Some(xid) = self.xid.take() {
            state.nodes[self.node].database.apply(Body::Commit { xid });
        }
        (self.transaction, self.is_committing) = (Transaction::None, false);
        self.entries.clear();
        self.committing_tag.take().into_iter().for_each(|tag| answer.tag(tag));
    }

    /// Ends a COMMIT that has waited for a standby.
    pub(crate) fn finish_commit(&mut self, state: &mut State, replicated: bool, answer: &mut Answer) {
        if !replicated {
            answer.unreplicated();
        }
        self.complete_commit(state, answer);
        self.ready(state, answer);
    }

    fn ready(&mut self, state: &State, answer: &mut Answer) {
        let standby = state.nodes[self.node].in_recovery();
        if std::mem::replace(&mut self.reported_standby, standby) != standby {
            answer.parameter("in_hot_standby", if standby { "on" } else { "off" });
        }
        let status = match self.transaction {
            Transaction::None | Transaction::Implicit => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        };
        answer.message(b'Z', &[status]);
    }

    fn describe(&self, statement: Statement, answer: &mut Answer) {
        let types = statement.parameters();
        let mut body = u16::try_from(types.len()).expect("few").to_be_bytes().to_vec();
        types.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
        answer.message(b't', &body);
        if statement.columns().is_empty() {
            answer.message(b'n', &[]);
        } else {
            answer.columns(statement.columns());
        }
    }

    fn execute(
        &mut self,
        statement: Statement,
        parameters: &[i64],
        binary: bool,
        state: &mut State,
        answer: &mut Answer,
    ) -> Result<(), SqlError> {
        if self.transaction == Transaction::Failed {
            return Err(ABORTED);
        }
        let row = match statement {
            Statement::Set => {
                answer.tag("SET");
                return Ok(());
            }
            Statement::Insert => {
                self.insert(Entry { id: parameters[0], account: parameters[1] as i32 }, state)?;
                answer.tag("INSERT 0 1");
                return Ok(());
            }
            Statement::Entries => {
                let entries = state.nodes[self.node].database.entries(parameters[0] as i32);
                entries.iter().for_each(|id| answer.row(&[Value::Int8(*id)], binary));
                answer.tag(&format!("SELECT {}", entries.len()));
                return Ok(());
            }
            Statement::Emit => {
                let node = &state.nodes[self.node];
                let position = Value::Lsn(node.wal.lsn(node.wal.len()));
                self.write(Body::Other, state)?;
                vec![position]
            }
            Statement::Note => {
                let node = &state.nodes[self.node];
                let xid = self.xid.map(|xid| Value::text(xid.to_string()));
                vec![Value::or_null(xid), Value::Lsn(node.wal.lsn(node.wal.len()))]
            }
            Statement::Origin => {
                let mut values = self.position(state)?;
                let recovered_to = replay_position(state, self.node);
                values.truncate(2);
                values.push(recovered_to);
                values
            }
            Statement::One => vec![Value::Int4(1)],
            Statement::ReplayPosition => {
                vec![replay_position(state, self.node), Value::text("read committed")]
            }
            Statement::Check { identifier } => self.check(identifier, state),
            Statement::Probe { server } => self.probe(server, state),
            Statement::Position => self.position(state)?,
            Statement::Status { xid } => vec![self.status(xid, state)?],
            statement => panic!("{statement:?} is no statement of the extended protocol"),
        };
        answer.row(&row, binary);
        answer.tag("SELECT 1");
        Ok(())
    }

    fn insert(&mut self, entry: Entry, state: &mut State) -> Result<(), SqlError> {
        let xid = self.write(Body::Other, state)?;
        let number = state.number();
        let node = &mut state.nodes[self.node];
        node.append(number, Body::Insert { xid, entry });
        node.database.apply(Body::Insert { xid, entry });
        self.entries.push(entry);
        Ok(())
    }

    /// Appends a record of the transaction, which gets an identifier; returns that.
    fn write(&mut self, body: Body, state: &mut State) -> Result<u64, SqlError> {
        if self.transaction_read_only {
            return Err(READ_ONLY);
        }
        let number = state.number();
        let node = &mut state.nodes[self.node];
        node.append(number, body);
        Ok(*self.xid.get_or_insert_with(|| {
            node.database.next_xid += 1;
            node.database.next_xid - 1
        }))
    }
}
