//! A model of the commit protocol, explored in every order of events up to a bound.
//!
//! The client runs one transaction with `exactly_once` against three servers. Everything that can come in another order
//! is an event: each step of the client and of its sessions, replication, flushes, crashes, restarts, promotions, rebuilds,
//! and the probes by which the set learns of them. A server that hangs needs no separate event, because every event may
//! be late. The decisions are the real functions: [`outcome`], [`decide`],
//! [`knows`] and [`conclude`]. The model knows the truth, and checks three things in every state:
//!
//! * No history contains two runs of the transaction.
//! * A transaction that was reported as committed is in the history of the server that was asked, and with synchronous
//!   replication on a second server.
//! * A transaction that was reported as failed is not in the history of the primary that the set shows.
//!
//! `cargo test` explores all orders of up to 9 events with up to 2 faults and 1 transaction of another client.
//! `POINTSMAN_MODEL_FAULTS=3` explores orders of any number of events with up to 3 faults, which takes many minutes and
//! gigabytes. Only then the wrong rules that need more than 9 events are tried. Nothing is shown beyond the bound.
//! An order begins after the first write of the transaction, and the transaction runs at most twice.
//! A promotion begins the next timeline by number.
//!
//! Assumptions:
//!
//! * Once a primary was restarted or promoted, the set probes it before any server recovers next. It probes every 25 ms
//!   then. [`Bounds::hidden_recoveries`] shows that the assumption is needed.
//! * No primary is rebuilt from an older timeline.
//! * A history that told the client that a run had no effect is not discarded for another one of the same timeline. A
//!   split brain ends in this way if the operator keeps the other node. What the discarded node answered is lost then, as
//!   what it acknowledged. [`Bounds::discarded_answers`] shows that the assumption is needed.
//!
//! * `servers`: the servers with their logs, and what can happen to them
//! * `client`: the client and its sessions
//! * `view`: the set's view of the servers
//! * `explore`: the search, and the orders that violate a rule

mod client;
mod explore;
mod servers;
mod view;

use super::lineage::{Known, knows};
use super::{CommitOutcome, Status, conclude};
use crate::conn::{CommitSigns, Doubt, Outcome, RunSigns, outcome};
use crate::error::InDoubt;
use crate::replica_set::rerun::{Decision, decide};
use crate::topology::{Recoveries, Recovery};

/// The decisions that the model takes; a test replaces one of them by a wrong one.
#[derive(Clone, Copy)]
struct Rules {
    outcome: fn(CommitSigns) -> Outcome,
    decide: fn(&RunSigns, bool, bool, &Doubt) -> Decision,
    knows: fn(&InDoubt, &Recoveries, &Recovery) -> Known,
    conclude: fn(Status, Known) -> Option<CommitOutcome>,
    /// `true` if a resolved commit waits for the synchronous standby.
    barrier: bool,
}

const REAL: Rules = Rules { outcome, decide, knows, conclude, barrier: true };

/// The bounds of an exploration.
#[derive(Clone, Copy)]
struct Bounds {
    /// Crashes, restarts, promotions and rebuilds.
    faults: u8,
    /// Events of an order, of all kinds.
    events: usize,
    /// Transactions of other clients.
    others: u8,
    synchronous: bool,
    /// `true` if a recovery may follow another one before the set probes the primary.
    hidden_recoveries: bool,
    /// `true` if a history that answered may be discarded for one of the same timeline.
    discarded_answers: bool,
}

const BOUNDS: Bounds = Bounds {
    faults: 2,
    events: 9,
    others: 1,
    synchronous: false,
    hidden_recoveries: false,
    discarded_answers: false,
};

/// The environment variable that sets the number of faults.
///
/// Orders then have any number of events.
const FAULTS: &str = "POINTSMAN_MODEL_FAULTS";

/// Returns the large bound, if the environment asks for it.
fn large_bounds() -> Option<Bounds> {
    let faults = std::env::var(FAULTS).ok()?.parse().expect("a number of faults");
    Some(Bounds { faults, events: usize::MAX, ..BOUNDS })
}

#[test]
fn no_explored_order_of_events_doubles_a_transaction_or_misreports_it() {
    let bounds = large_bounds().unwrap_or(BOUNDS);
    for synchronous in [false, true] {
        let bounds = Bounds { synchronous, ..bounds };
        let began = tokio::time::Instant::now();
        let found = explore::explore(&REAL, &bounds);
        println!(
            "{} faults, {} other transactions, synchronous replication {}: {} states, {} outcomes: {:?}, {:?}",
            bounds.faults,
            bounds.others,
            bounds.synchronous,
            found.states,
            found.ends.len(),
            found.ends,
            began.elapsed()
        );
        if let Some((violation, trace)) = found.violation {
            panic!("{violation}, after:\n{}", trace.join("\n"));
        }
        assert!(found.states > 10_000, "it explores something");
        // Each of them is reached, so that none of the checks is empty.
        for end in ["committed, 1 run", "committed, 2 runs", "unknown", "failed"] {
            assert!(found.ends.contains_key(end), "{end}: {:?}", found.ends);
        }
    }
}

/// Asserts that the model finds the defect of wrong rules.
fn assert_finds(what: &str, rules: &Rules, bounds: &Bounds) {
    let began = tokio::time::Instant::now();
    let found = explore::explore(rules, bounds);
    let (violation, trace) =
        found.violation.unwrap_or_else(|| panic!("{what}: nothing in {} states", found.states));
    println!(
        "{what}: {violation} in {} events, {} states: {:?}:\n    {}",
        trace.len(),
        found.states,
        began.elapsed(),
        trace.join("\n    ")
    );
}

#[test]
fn wrong_rules_are_found() {
    let wrong = [
        (
            "a COMMIT without an answer is repeated",
            Rules {
                decide: |signs, demoted, once, doubt| match decide(signs, demoted, once, doubt) {
                    Decision::Resolve => Decision::Again(crate::replica_set::rerun::Cause::Lost),
                    other => other,
                },
                ..REAL
            },
        ),
        (
            "a COMMIT without an answer counts as not sent",
            Rules { outcome: |signs| outcome(CommitSigns { not_sent: true, ..signs }), ..REAL },
        ),
        ("the id counts without its position", Rules { knows: |_, _, _| Known::Yes, ..REAL }),
        (
            "a timeline counts without its node",
            Rules {
                knows: |in_doubt, seen, now| {
                    let same = Recovery { node: in_doubt.node.clone(), ..now.clone() };
                    knows(in_doubt, seen, if now.timeline == in_doubt.timeline { &same } else { now })
                },
                ..REAL
            },
        ),
        (
            "any server's last recovery counts",
            Rules {
                knows: |in_doubt, seen, now| match seen.iter().next_back() {
                    Some(last) if last.end.is_some_and(|end| end < in_doubt.position) => Known::No,
                    _ if now.timeline <= in_doubt.timeline + 1 => Known::Yes,
                    _ => Known::Maybe,
                },
                ..REAL
            },
        ),
        (
            "a transaction that still runs counts as rolled back",
            Rules {
                conclude: |status, known| Some(conclude(status, known).unwrap_or(CommitOutcome::RolledBack)),
                ..REAL
            },
        ),
    ];
    for (what, rules) in &wrong {
        assert_finds(what, rules, &BOUNDS);
    }
    let synchronous = Bounds { synchronous: true, ..BOUNDS };
    assert_finds("a resolved commit does not wait", &Rules { barrier: false, ..REAL }, &synchronous);
    // Orders of more events take a minute in a debug build.
    if let Some(bounds) = large_bounds() {
        assert_finds_by_long_orders(&bounds);
    }
}

/// Asserts that the model finds the defects that need more than 9 events.
fn assert_finds_by_long_orders(bounds: &Bounds) {
    let old = |in_doubt: &InDoubt, seen: &Recoveries, now: &Recovery| {
        let mut others = Recoveries::default();
        let is_own = |recovery: &&Recovery| recovery.node == now.node;
        seen.iter().filter(is_own).for_each(|recovery| others.push(recovery.clone()));
        knows(in_doubt, &others, now)
    };
    assert_finds("only the new primary's recoveries count", &Rules { knows: old, ..REAL }, bounds);
    let conclude = |status, known| match conclude(status, known) {
        Some(CommitOutcome::Unknown) => Some(CommitOutcome::RolledBack),
        other => other,
    };
    assert_finds("what is not known counts as rolled back", &Rules { conclude, ..REAL }, bounds);
    assert_finds("a recovery is hidden by the next", &REAL, &Bounds { hidden_recoveries: true, ..*bounds });
    if bounds.faults >= 3 {
        let discarded = Bounds { discarded_answers: true, ..*bounds };
        assert_finds("the history that answered is discarded", &REAL, &discarded);
    }
}
