//! The search through all orders of events, the shortest first.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::client::{State, Step};
use super::{Bounds, Rules};

/// The result of an exploration.
pub(super) struct Found {
    /// Number of different states.
    pub(super) states: usize,
    /// The answers to callers, with the number of states of each.
    pub(super) ends: BTreeMap<&'static str, usize>,
    /// The first violation, and the steps that lead to it.
    pub(super) violation: Option<(String, Vec<String>)>,
}

/// Explores every order within the bounds, until one violates a rule.
pub(super) fn explore(rules: &Rules, bounds: &Bounds) -> Found {
    let mut queue = State::first(bounds).map(Rc::new).to_vec();
    let mut known: HashSet<_> = queue.iter().cloned().collect();
    let mut origins: Vec<Option<(usize, Step)>> = vec![None; queue.len()];
    // Events that lead to each state.
    let mut depths = vec![0; queue.len()];
    let mut ends = BTreeMap::new();
    let (mut at, mut violation) = (0, None);
    while at < queue.len() && violation.is_none() {
        let state = Rc::clone(&queue[at]);
        if let Some(end) = state.ended() {
            *ends.entry(end).or_insert(0) += 1;
        }
        if state.is_over() || depths[at] == bounds.events {
            at += 1;
            continue;
        }
        for step in state.steps(bounds) {
            let mut next = State::clone(&state);
            if let Err(rule) = next.take(step, rules, bounds) {
                violation = Some((rule, trace(&origins, at, step)));
                break;
            }
            let next = Rc::new(next);
            if known.insert(Rc::clone(&next)) {
                queue.push(next);
                origins.push(Some((at, step)));
                depths.push(depths[at] + 1);
            }
        }
        at += 1;
    }
    Found { states: queue.len(), ends, violation }
}

/// Returns the steps to a state, and one more.
fn trace(origins: &[Option<(usize, Step)>], mut at: usize, last: Step) -> Vec<String> {
    let mut steps = vec![format!("{last:?}")];
    while let Some((before, step)) = origins[at] {
        steps.push(format!("{step:?}"));
        at = before;
    }
    steps.reverse();
    steps
}
