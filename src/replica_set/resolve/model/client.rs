//! The client with its sessions, and its steps.

use std::time::Duration;

use tokio::time::Instant;

use super::servers::{Event, Health, Record, SERVERS, Server, events, happen, is_replicated, standbys};
use super::view::{Shown, View, name};
use super::{Bounds, Rules};
use crate::conn::{CommitSigns, Doubt, Outcome, RunSigns, Stage};
use crate::error::InDoubt;
use crate::lsn::Lsn;
use crate::replica_set::rerun::Decision;
use crate::replica_set::resolve::{CommitOutcome, Status};
use crate::topology::Recovery;

/// Runs of the transaction.
const RUNS: u8 = 2;

/// The state of everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    servers: [Server; SERVERS],
    view: View,
    run: u8,
    phase: Phase,
    /// The sessions of the runs at the servers.
    sessions: [Option<Session>; RUNS as usize],
    others: u8,
    faults: u8,
    /// The primary that said that the last run had no effect.
    answered: Option<usize>,
}

/// The run's server and process, and the content of an in-doubt transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Note {
    server: usize,
    process: u8,
    timeline: u32,
    id: u64,
    position: u64,
    recovered_to: Option<u64>,
    /// Recoveries that the set had seen.
    noted: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// The run has no connection yet; the last run ended in this way.
    Idle(Option<End>),
    Written(Note),
    Sent(Note),
    Resolving(Note),
    /// The commit was found, and another one waits for the standby.
    ///
    /// It waits on this process of a server.
    Confirming(Note, usize, u8),
    Done(End),
}

/// The answer to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum End {
    Committed,
    /// An error that proves that the transaction had no effect.
    Failed,
    Unknown,
}

/// The session of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Session {
    server: usize,
    process: u8,
    /// The COMMIT is on its way to the server.
    in_flight: bool,
    /// The server has written the commit.
    committed: bool,
    /// The server waits for the standby no longer.
    cancelled: bool,
}

/// A step of the client, of its sessions or of the set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Servers(Event),
    Probe(usize),
    Write,
    Send,
    /// The server carries the COMMIT of a run out.
    Carry(u8),
    /// The server ends the session of a run without a commit.
    EndSession(u8),
    /// The wait of a run for the standby is cancelled.
    CancelWait(u8),
    Answer,
    LoseConnection,
    Resolve,
    Confirm,
    LoseConfirmation,
    GiveUp,
}

impl State {
    /// Returns the states in which the client has written on a known primary.
    ///
    /// The primary of the second one was promoted just now, before the others follow it.
    pub(super) fn first(bounds: &Bounds) -> [Self; 2] {
        [false, true].map(|is_promoted| {
            let (mut servers, mut view) = (standbys(), View::default());
            if is_promoted {
                servers.iter().enumerate().for_each(|(i, server)| view.probe(i, server));
                happen(&mut servers, Event::Promoted(0));
            } else {
                servers[0].is_primary = true;
            }
            servers.iter().enumerate().for_each(|(i, server)| view.probe(i, server));
            let mut state = Self::new(servers, view, bounds);
            state.write();
            state
        })
    }

    fn new(servers: [Server; SERVERS], view: View, bounds: &Bounds) -> Self {
        Self {
            servers,
            view,
            run: 0,
            phase: Phase::Idle(None),
            sessions: [None; RUNS as usize],
            others: bounds.others,
            faults: bounds.faults,
            answered: None,
        }
    }

    /// Returns all steps that can come next.
    pub(super) fn steps(&self, bounds: &Bounds) -> Vec<Step> {
        let is_hidden = |(server, shown): (&Server, &Option<Shown>)| {
            server.is_primary
                && shown.is_none_or(|shown| (shown.process, shown.is_primary) != (server.process, true))
        };
        let hides = !bounds.hidden_recoveries && self.servers.iter().zip(&self.view.shown).any(is_hidden);
        let mut steps: Vec<Step> = events(&self.servers, self.others, self.faults)
            .into_iter()
            .filter(|event| !hides || !event.recovers())
            .filter(|event| bounds.discarded_answers || !self.discards_answer(*event))
            .map(Step::Servers)
            .collect();
        let is_new = |i: &usize| {
            let server = &self.servers[*i];
            server.health == Health::Up && self.view.shown[*i] != Some(Shown::of(server))
        };
        steps.extend((0..SERVERS).filter(is_new).map(Step::Probe));
        for (run, session) in (0..).zip(&self.sessions) {
            let Some(session) = session else { continue };
            let server = &self.servers[session.server];
            let is_of_client = run == self.run && matches!(self.phase, Phase::Written(_) | Phase::Sent(_));
            let works = server.health == Health::Up && server.process == session.process;
            if works && session.in_flight {
                steps.push(Step::Carry(run));
            }
            if works && !session.committed && !is_of_client {
                steps.push(Step::EndSession(run));
            }
            if works
                && bounds.synchronous
                && session.committed
                && !session.cancelled
                && server.has_durably(Record::Commit(run))
            {
                steps.push(Step::CancelWait(run));
            }
        }
        steps.extend(self.steps_of_client(bounds));
        steps
    }

    /// Returns `true` if an event discards the history that answered the client.
    ///
    /// An operator ends a split brain in this way.
    fn discards_answer(&self, event: Event) -> bool {
        let Event::Rebuilt(from, to) = event else { return false };
        self.answered == Some(to) && self.servers[from].timeline == self.servers[to].timeline
    }

    fn steps_of_client(&self, bounds: &Bounds) -> Vec<Step> {
        let primary = self.view.primary().filter(|i| {
            self.servers[*i].writes()
                && self.view.shown[*i].is_some_and(|shown| shown.process == self.servers[*i].process)
        });
        match self.phase {
            Phase::Idle(before) => {
                let write = primary.map(|_| Step::Write);
                write.into_iter().chain(before.map(|_| Step::GiveUp)).collect()
            }
            Phase::Written(_) => vec![Step::Send, Step::LoseConnection],
            Phase::Sent(note) => {
                let mut steps = vec![Step::LoseConnection];
                let commit = Record::Commit(self.run);
                let server = &self.servers[note.server];
                // The set closes its connections to a server before it shows another primary.
                let is_open = self.view.primary() == Some(note.server);
                let session = self.sessions[usize::from(self.run)];
                let waits_no_more = session.is_some_and(|session| session.cancelled)
                    || is_replicated(&self.servers, note.server, commit, bounds);
                if is_open
                    && server.writes()
                    && server.process == note.process
                    && server.has_durably(commit)
                    && waits_no_more
                {
                    steps.push(Step::Answer);
                }
                steps
            }
            Phase::Resolving(_) => primary.map(|_| Step::Resolve).into_iter().chain([Step::GiveUp]).collect(),
            Phase::Confirming(_, i, process) => {
                let goes_on = primary == Some(i) && self.servers[i].process == process;
                let commit = Record::Commit(self.run);
                if !goes_on {
                    vec![Step::LoseConfirmation]
                } else if self.servers[i].has_durably(commit)
                    && is_replicated(&self.servers, i, commit, bounds)
                {
                    vec![Step::Confirm]
                } else {
                    vec![Step::GiveUp]
                }
            }
            Phase::Done(_) => Vec::new(),
        }
    }

    /// Takes a step; returns a violation of what a caller may rely on.
    pub(super) fn take(&mut self, step: Step, rules: &Rules, bounds: &Bounds) -> Result<(), String> {
        match step {
            Step::Servers(event) => {
                self.faults -= u8::from(event.is_fault());
                self.others -= u8::from(matches!(event, Event::OtherCommits(_)));
                happen(&mut self.servers, event);
                let servers = &self.servers;
                for session in &mut self.sessions {
                    *session = session.filter(|session| {
                        let server = &servers[session.server];
                        server.process == session.process && server.health != Health::Down
                    });
                }
            }
            Step::Probe(i) => self.view.probe(i, &self.servers[i]),
            Step::Write => self.write(),
            Step::Send => {
                let Phase::Written(note) = self.phase else { return Ok(()) };
                self.phase = Phase::Sent(note);
                if let Some(session) = &mut self.sessions[usize::from(self.run)] {
                    session.in_flight = true;
                }
            }
            Step::Carry(run) => {
                if let Some(session) = &mut self.sessions[usize::from(run)] {
                    (session.in_flight, session.committed) = (false, true);
                    self.servers[session.server].log.push(Record::Commit(run));
                }
            }
            Step::EndSession(run) => self.sessions[usize::from(run)] = None,
            Step::CancelWait(run) => {
                if let Some(session) = &mut self.sessions[usize::from(run)] {
                    session.cancelled = true;
                }
            }
            Step::Answer => return self.answered(rules, bounds),
            Step::LoseConnection => return self.lost(rules),
            Step::Resolve => return self.resolve(rules, bounds),
            Step::Confirm => {
                let Phase::Confirming(_, i, _) = self.phase else { return Ok(()) };
                return self.committed_on(i, bounds);
            }
            Step::LoseConfirmation => {
                let Phase::Confirming(note, ..) = self.phase else { return Ok(()) };
                self.phase = Phase::Resolving(note);
            }
            Step::GiveUp => {
                let end = if let Phase::Idle(Some(end)) = self.phase { end } else { End::Unknown };
                return self.end(end);
            }
        }
        self.check()
    }

    /// Writes in a new transaction on the set's primary, and notes it.
    fn write(&mut self) {
        let Some(i) = self.view.primary() else { return };
        let server = &mut self.servers[i];
        let id = server.next_id();
        server.log.push(Record::First(self.run));
        self.sessions[usize::from(self.run)] = Some(Session {
            server: i,
            process: server.process,
            in_flight: false,
            committed: false,
            cancelled: false,
        });
        self.phase = Phase::Written(Note {
            server: i,
            process: server.process,
            timeline: server.timeline,
            id,
            position: server.log.len() as u64,
            recovered_to: server.recovered_to,
            noted: u8::try_from(self.view.recoveries.len()).expect("few"),
        });
    }

    /// Decides as `run_write` does after a run.
    fn decide(
        &mut self,
        note: Note,
        signs: &RunSigns,
        doubt: &Doubt,
        rules: &Rules,
        error: End,
    ) -> Result<(), String> {
        match (rules.decide)(signs, false, true, doubt) {
            Decision::Again(_) if self.run + 1 < RUNS => {
                self.run += 1;
                self.phase = Phase::Idle(Some(error));
                self.check()
            }
            Decision::Resolve => {
                self.phase = Phase::Resolving(note);
                self.check()
            }
            Decision::Again(_) | Decision::Return => self.end(error),
        }
    }

    fn answered(&mut self, rules: &Rules, bounds: &Bounds) -> Result<(), String> {
        let Phase::Sent(note) = self.phase else { return Ok(()) };
        let signs = CommitSigns {
            not_sent: false,
            succeeded: true,
            ended: true,
            rolled_back: false,
            rejected: false,
            goes_on: true,
        };
        let locally = self.sessions[usize::from(self.run)].is_some_and(|session| session.cancelled);
        let outcome = (rules.outcome)(signs);
        if outcome == Outcome::Committed && !locally {
            return self.committed_on(note.server, bounds);
        }
        let signs = RunSigns {
            ended: false,
            hit: false,
            owed: false,
            ..lost_signs(Stage::Commit { outcome, locally })
        };
        self.decide(note, &signs, &Doubt::Noted(in_doubt(note, Instant::now())), rules, End::Unknown)
    }

    fn lost(&mut self, rules: &Rules) -> Result<(), String> {
        let signs = CommitSigns {
            not_sent: matches!(self.phase, Phase::Written(_)),
            succeeded: false,
            ended: false,
            rolled_back: false,
            rejected: false,
            goes_on: false,
        };
        let (Phase::Written(note) | Phase::Sent(note)) = self.phase else { return Ok(()) };
        let outcome = (rules.outcome)(signs);
        let error = if outcome == Outcome::NotSent { End::Failed } else { End::Unknown };
        let signs = lost_signs(Stage::Commit { outcome, locally: false });
        self.decide(note, &signs, &Doubt::Noted(in_doubt(note, Instant::now())), rules, error)
    }

    fn resolve(&mut self, rules: &Rules, bounds: &Bounds) -> Result<(), String> {
        let (Phase::Resolving(note), Some(i)) = (self.phase, self.view.primary()) else { return Ok(()) };
        let (server, base) = (&self.servers[i], Instant::now());
        let now = Recovery {
            node: name(i),
            server: None,
            timeline: server.timeline,
            end: server.recovered_to.map(Lsn::new),
            from: None,
            was_standby: false,
            at: base + Duration::from_secs(1000),
        };
        let known = (rules.knows)(&in_doubt(note, base), &self.view.recoveries(base), &now);
        match (rules.conclude)(self.status(server, i, note.id), known) {
            None => Ok(()),
            Some(CommitOutcome::Committed) if rules.barrier && bounds.synchronous => {
                self.phase = Phase::Confirming(note, i, server.process);
                self.check()
            }
            Some(CommitOutcome::Committed) => self.committed_on(i, bounds),
            Some(CommitOutcome::RolledBack) => {
                self.answered = Some(i);
                let signs = lost_signs(Stage::Commit { outcome: Outcome::Unknown, locally: false });
                self.decide(note, &signs, &Doubt::Nothing, rules, End::Unknown)
            }
            Some(CommitOutcome::Unknown) => self.end(End::Unknown),
        }
    }

    /// Returns what a server says about an id.
    fn status(&self, server: &Server, i: usize, id: u64) -> Status {
        match server.taker(id) {
            None => Status::Future,
            Some(Record::First(run)) => {
                let commit = Record::Commit(run);
                let session = self.sessions[usize::from(run)].filter(|session| session.server == i);
                let is_committed = server.has_durably(commit);
                match session {
                    // It waits for the flush, or for the standby.
                    Some(session) if !session.committed || !is_committed => Status::InProgress,
                    Some(_) | None if is_committed => Status::Committed,
                    Some(_) | None => Status::Aborted,
                }
            }
            Some(_) => Status::Committed,
        }
    }

    fn committed_on(&mut self, i: usize, bounds: &Bounds) -> Result<(), String> {
        let commit = Record::Commit(self.run);
        if !self.servers[i].has(commit) {
            return Err("a transaction that the server does not have was reported as committed".to_owned());
        }
        if !is_replicated(&self.servers, i, commit, bounds) {
            return Err("a transaction that no standby has was reported as committed".to_owned());
        }
        self.end(End::Committed)
    }

    fn end(&mut self, end: End) -> Result<(), String> {
        let is_there = |i: usize| (0..RUNS).any(|run| self.servers[i].has(Record::Commit(run)));
        if end == End::Failed && self.view.primary().is_some_and(is_there) {
            return Err("a transaction that the server has was reported as failed".to_owned());
        }
        self.phase = Phase::Done(end);
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        let has_all = |server: &Server| (0..RUNS).all(|run| server.has(Record::Commit(run)));
        match self.servers.iter().any(has_all) {
            true => Err("a history has two runs of the transaction".to_owned()),
            false => Ok(()),
        }
    }

    /// Returns `true` if nothing that comes can violate a rule.
    ///
    /// The caller has its answer then, and no COMMIT is on its way.
    pub(super) fn is_over(&self) -> bool {
        let is_in_flight = |session: &Option<Session>| session.is_some_and(|session| session.in_flight);
        self.ended().is_some() && !self.sessions.iter().any(is_in_flight)
    }

    /// Returns the end that the caller sees, once there is one.
    pub(super) fn ended(&self) -> Option<&'static str> {
        let Phase::Done(end) = self.phase else { return None };
        Some(match (end, self.run) {
            (End::Committed, 0) => "committed, 1 run",
            (End::Committed, _) => "committed, 2 runs",
            (End::Failed, _) => "failed",
            (End::Unknown, _) => "unknown",
        })
    }
}

fn lost_signs(stage: Stage) -> RunSigns {
    RunSigns {
        stage,
        intact: true,
        ended: true,
        hit: true,
        owed: true,
        severed: false,
        conflict: false,
        sqlstate: None,
    }
}

fn in_doubt(note: Note, base: Instant) -> InDoubt {
    InDoubt {
        system_identifier: 7,
        timeline: note.timeline,
        transaction_id: note.id,
        position: Lsn::new(note.position),
        recovered_to: note.recovered_to.map(Lsn::new),
        node: name(note.server),
        noted: base + Duration::from_secs(2 * u64::from(note.noted)),
    }
}
