//! Knowledge of the cluster that outlives the program (pure; `file` acts).
//!
//! A program that starts while it reaches an old primary alone cannot know of a promotion, because an old primary shows
//! nothing of it. So the set may keep a file with what such a program must know:
//!
//! * the system identifier
//! * the highest timeline
//! * the nodes that showed this timeline, because all of them must prove that it is gone before the set forgets it
//! * which of them wrote on it, because two of them are a split brain, also while one is out of sight
//!
//! A remembered identifier counts like an adopted one, with two exceptions. No node is the primary by it before most
//! nodes show it or every node was probed. It is dropped if no node shows it and most of them show another one.
//!
//! A remembered node proves nothing by a restart of its server, because the file has no address of the server that the
//! node reached. So the set forgets a remembered timeline only after the node has shown it again, or by an operator's
//! decision.
//!
//! Positions are not kept: they change with every write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::{RoleHistory, Shown, Wrote};
use super::identity::{Vote, vote};
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

pub(crate) mod file;
mod plan;
mod text;

/// A set's knowledge of its cluster, in the form that outlives the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) system_identifier: u64,
    /// The highest timeline that counts.
    pub(crate) timeline: u32,
    /// `true` if a node that is not known any more showed the timeline.
    departed: bool,
    /// The nodes that showed the timeline, by their configured addresses.
    nodes: BTreeMap<Arc<str>, RememberedNode>,
}

/// A node that showed the highest timeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct RememberedNode {
    /// `true` if the node may still write on the timeline.
    wrote: bool,
    /// The server process that wrote, to recognise it under another name.
    process: Option<Process>,
}

/// A server process, without its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    started_at_micros: i64,
    port: u16,
}

/// A memory, and how often the set forgot something before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// `None` until nodes have shown which cluster they are.
    pub(crate) memory: Option<Memory>,
    /// After a change of this number, the memory may contain less than before.
    pub(crate) forgettings: u64,
}

impl RoleHistory {
    /// Returns what another run of the program must know.
    pub(super) fn remembered(&self) -> Remembered {
        let memory = self.recorded_by.filter(|_| self.highest_timeline > 0).map(|system_identifier| {
            let timeline = self.highest_timeline;
            let showed = self
                .pasts
                .iter()
                .filter(|(_, past)| past.highest.is_some_and(|shown| shown.timeline == timeline));
            let nodes = showed.map(|(address, past)| {
                let wrote = past.wrote.filter(|wrote| wrote.timeline == timeline);
                let process = wrote.and_then(|wrote| wrote.server).map(Process::of);
                (Arc::clone(address), RememberedNode { wrote: wrote.is_some(), process })
            });
            Memory { system_identifier, timeline, departed: self.floor == timeline, nodes: nodes.collect() }
        });
        Remembered { memory, forgettings: self.forgettings }
    }

    /// Adds what an earlier program knew, unless it is about another cluster.
    ///
    /// Returns `true` if it was added.
    pub(super) fn recall(&mut self, memory: &Memory) -> bool {
        let Memory { system_identifier, timeline, departed, nodes } = memory;
        let known = self.system_identifier.or(self.recorded_by);
        if known.is_some_and(|known| known != *system_identifier) {
            return false;
        }
        self.go_by(*system_identifier);
        self.recalled = Some(*system_identifier);
        if *departed || nodes.is_empty() {
            self.floor = self.floor.max(*timeline);
        }
        for (address, node) in nodes {
            let past = self.pasts.entry(Arc::clone(address)).or_default();
            if past.highest.is_none_or(|shown| shown.timeline < *timeline) {
                past.highest = Some(Shown {
                    timeline: *timeline,
                    position: Lsn::default(),
                    fork: None,
                    server: None,
                    volatile: false,
                });
            }
            // What the node does now counts more.
            if node.wrote && past.configured && past.system_identifier.is_none() {
                let server = node.process.map(Process::identity);
                past.wrote = Some(Wrote { timeline: *timeline, position: Lsn::default(), server });
            }
        }
        true
    }

    /// Decides which cluster counts: the nodes' own, or the remembered one.
    ///
    /// `pending` nodes were not probed yet.
    pub(super) fn weigh(&mut self, shown: &[Option<u64>], pending: usize) -> Vote {
        let seen = vote(self.system_identifier, shown, pending);
        let (Some(remembered), None) = (self.recalled, self.system_identifier) else { return seen };
        if pending > 0 {
            // An old primary must not take writes before the other nodes were asked.
            return if seen == Vote::One(remembered) { seen } else { Vote::Open };
        }
        match vote(Some(remembered), shown, pending) {
            Vote::Refused if !shown.contains(&Some(remembered)) => {
                self.recalled = None;
                seen
            }
            weighed => weighed,
        }
    }
}

impl Process {
    fn of(server: ServerIdentity) -> Self {
        Self { started_at_micros: server.started_at_micros, port: server.port }
    }

    fn identity(self) -> ServerIdentity {
        ServerIdentity { started_at_micros: self.started_at_micros, port: self.port, address: None }
    }
}

#[cfg(test)]
mod tests;
