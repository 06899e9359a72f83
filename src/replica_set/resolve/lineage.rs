//! Decides from the recoveries if a server's history contains a transaction.
//!
//! A server that lost the end of its log assigns the same transaction ids again. It loses the end in a crash, or
//! because it was promoted without having received it. So the status of an id counts only if the present primary's
//! history contains the position at which the transaction wrote. Only the recoveries of the *present primary's own*
//! lineage decide that. Another node's recovery proves nothing, even on the same timeline and from the same position,
//! because both standbys may have been promoted.

use crate::error::InDoubt;
use crate::topology::{Recoveries, Recovery};

/// A server's knowledge of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    /// Its history forks before the transaction's write.
    ///
    /// The id may belong to another transaction by now.
    No,
    /// A step of its history was not observed, or is ambiguous.
    Maybe,
}

/// Decides by the recoveries that the set saw and that the primary reports.
///
/// A server keeps only its last recovery on record. An earlier recovery may have lost the transaction and assigned its
/// id to another one, so the monitors' observations count as well.
pub(super) fn knows(in_doubt: &InDoubt, seen: &Recoveries, now: &Recovery) -> Known {
    // The history of the transaction's timeline was abandoned: a lower timeline contains nothing of it.
    if now.timeline < in_doubt.timeline {
        return Known::No;
    }
    // Another node wrote on that timeline as well, so its number names two histories.
    let ambiguous =
        seen.iter().any(|other| other.timeline == in_doubt.timeline && other.node != in_doubt.node);
    let own = own_recoveries(seen, now);
    let since: Vec<&Recovery> = own
        .iter()
        .copied()
        .filter(|recovery| recovery.at > in_doubt.noted && !is_same_run(in_doubt, recovery))
        .collect();
    let lost = |recovery: &&Recovery| recovery.end.is_some_and(|end| end < in_doubt.position);
    let stayed = now.node == in_doubt.node
        && now.timeline == in_doubt.timeline
        && since.iter().all(|recovery| recovery.timeline == in_doubt.timeline && !recovery.was_standby);
    if stayed {
        return match since.is_empty() {
            true => Known::Yes,
            false if since.iter().any(lost) => Known::No,
            // It restarted, and may have been copied from another history, or the address now leads to another server.
            false if ambiguous || has_moved(in_doubt, seen, now) => Known::Maybe,
            false => Known::Yes,
        };
    }
    if is_same_run(in_doubt, now) {
        return Known::Maybe;
    }
    // Before it began to write itself, a server has only what it had replayed by then.
    if own.iter().any(|recovery| {
        !is_same_run(in_doubt, recovery) && recovery.end.is_some_and(|end| end < in_doubt.position)
    }) {
        return Known::No;
    }
    let promotion = own.iter().find(|recovery| recovery.timeline == now.timeline);
    // Promoted from the transaction's own timeline, by the very process that was seen to follow it. The transaction's node
    // itself can follow only another node's history.
    let is_heir = promotion.is_some_and(|promotion| {
        now.node != in_doubt.node
            && promotion.from == Some(in_doubt.timeline)
            && promotion.end.is_some()
            && promotion.at > in_doubt.noted
    });
    let next = now.timeline == in_doubt.timeline + 1;
    if !next || !is_heir || ambiguous {
        return Known::Maybe;
    }
    // A standby receives only what its primary cannot lose any more. So what the old primary lost in a crash is nowhere,
    // although the new one may be further by now.
    let of_old = |recovery: &&Recovery| {
        recovery.node == in_doubt.node
            && recovery.timeline == in_doubt.timeline
            && recovery.at > in_doubt.noted
            && !is_same_run(in_doubt, recovery)
    };
    match seen.iter().filter(of_old).any(|recovery| lost(&recovery)) {
        true if has_moved(in_doubt, seen, now) => Known::Maybe,
        true => Known::No,
        false => Known::Yes,
    }
}

/// Returns the recoveries of the present primary since its last promotion.
///
/// Its recoveries from before it became a standby again belong to another copy of the data.
fn own_recoveries<'r>(seen: &'r Recoveries, now: &'r Recovery) -> Vec<&'r Recovery> {
    let mut own: Vec<&Recovery> = Vec::new();
    for recovery in seen.iter().filter(|recovery| recovery.node == now.node) {
        if recovery.was_standby || own.last().is_some_and(|last| last.timeline != recovery.timeline) {
            own.clear();
        }
        own.push(recovery);
    }
    // The primary's own report may be newer than a monitor's observation.
    if own.last().is_none_or(|last| (last.timeline, last.end) != (now.timeline, now.end)) {
        own.push(now);
    }
    own
}

/// Returns `true` if the transaction ran after this recovery.
fn is_same_run(in_doubt: &InDoubt, recovery: &Recovery) -> bool {
    (recovery.timeline, recovery.end) == (in_doubt.timeline, in_doubt.recovered_to)
}

/// Returns `true` if the node's address has moved since the transaction ran.
///
/// It then leads to another server.
fn has_moved(in_doubt: &InDoubt, seen: &Recoveries, now: &Recovery) -> bool {
    let place = |recovery: &Recovery| recovery.server.map(|server| (server.address, server.port));
    let of_node = || seen.iter().filter(|recovery| recovery.node == in_doubt.node);
    let then = of_node().rfind(|recovery| recovery.at <= in_doubt.noted).and_then(place);
    let later = of_node().filter(|recovery| recovery.at > in_doubt.noted).chain([now]).filter_map(place);
    then.is_some_and(|then| later.into_iter().any(|place| place != then))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::lsn::Lsn;

    /// A recovery: node, timeline, end, and the timeline that it was promoted from.
    type Told = (&'static str, u32, Option<u64>, Option<u32>);

    fn in_doubt(node: &str, timeline: u32, position: u64, recovered_to: Option<u64>) -> InDoubt {
        InDoubt {
            node: Arc::from(node),
            system_identifier: 7,
            timeline,
            transaction_id: 100,
            position: Lsn::new(position),
            recovered_to: recovered_to.map(Lsn::new),
            noted: Instant::now(),
        }
    }

    fn recovery((node, timeline, end, from): Told, at: Instant) -> Recovery {
        Recovery {
            node: Arc::from(node),
            server: None,
            timeline,
            end: end.map(Lsn::new),
            from,
            was_standby: from.is_some(),
            at,
        }
    }

    /// Decides after the given recoveries, the last of which is the present primary's.
    fn after(in_doubt: &InDoubt, told: &[Told]) -> Known {
        let mut seen = Recoveries::default();
        for (i, told) in told.iter().enumerate() {
            seen.push(recovery(*told, in_doubt.noted + Duration::from_secs(1 + i as u64)));
        }
        let now = recovery(*told.last().expect("there is a primary"), Instant::now());
        knows(in_doubt, &seen, &Recovery { from: None, was_standby: false, ..now })
    }

    #[test]
    fn a_server_that_never_recovered_since_knows_the_transaction() {
        assert_eq!(after(&in_doubt("a", 1, 500, None), &[("a", 1, None, None)]), Known::Yes);
        // It was promoted at 200, long before the transaction.
        let promoted = in_doubt("a", 2, 500, Some(200));
        assert_eq!(after(&promoted, &[("a", 2, Some(200), None)]), Known::Yes);
        // ... and restarted in between.
        assert_eq!(after(&promoted, &[("a", 2, Some(200), None), ("a", 2, None, None)]), Known::Yes);
    }

    #[test]
    fn a_promoted_standby_knows_what_it_had_received() {
        let in_doubt = in_doubt("a", 1, 500, None);
        assert_eq!(after(&in_doubt, &[("a", 1, None, None), ("b", 2, Some(500), Some(1))]), Known::Yes);
        assert_eq!(after(&in_doubt, &[("a", 1, None, None), ("b", 2, Some(499), Some(1))]), Known::No);
        // ... also after a clean restart, if it was seen before.
        assert_eq!(after(&in_doubt, &[("b", 2, Some(500), Some(1)), ("b", 2, None, None)]), Known::Yes);
        assert_eq!(after(&in_doubt, &[("b", 2, None, None)]), Known::Maybe);
        // A promotion that was not witnessed may hide a crash that came after it.
        assert_eq!(after(&in_doubt, &[("b", 2, Some(500), None)]), Known::Maybe);
    }

    #[test]
    fn a_crash_may_have_lost_the_end_of_the_log() {
        let in_doubt = in_doubt("a", 1, 500, None);
        assert_eq!(after(&in_doubt, &[("a", 1, Some(300), None)]), Known::No);
        assert_eq!(after(&in_doubt, &[("a", 1, Some(600), None)]), Known::Yes);
    }

    /// Only the last recovery was considered, so a transaction that an earlier one lost was mistaken for the one that
    /// got its id afterwards.
    #[test]
    fn what_one_recovery_lost_no_later_one_brings_back() {
        let lost = ("a", 1, Some(400), None);
        for later in [("a", 1, None, None), ("a", 1, Some(700), None)] {
            assert_eq!(after(&in_doubt("a", 1, 500, None), &[lost, later]), Known::No, "{later:?}");
        }
        // On another timeline it was a standby in between, perhaps with other data, and no monitor saw that.
        let promoted = ("a", 2, Some(700), None);
        assert_eq!(after(&in_doubt("a", 1, 500, None), &[lost, promoted]), Known::Maybe);
        let crashed = [("b", 2, Some(400), Some(1)), ("b", 2, Some(700), None)];
        assert_eq!(after(&in_doubt("a", 1, 500, None), &crashed), Known::No);
    }

    #[test]
    fn recoveries_before_the_transaction_do_not_count() {
        let mut in_doubt = in_doubt("a", 1, 500, None);
        let mut seen = Recoveries::default();
        seen.push(recovery(("a", 1, Some(400), None), in_doubt.noted));
        seen.push(recovery(("a", 1, None, None), in_doubt.noted + Duration::from_secs(1)));
        in_doubt.noted += Duration::from_secs(2);
        let now = recovery(("a", 1, None, None), Instant::now());
        assert_eq!(knows(&in_doubt, &seen, &now), Known::Yes);
    }

    #[test]
    fn after_two_promotions_the_history_is_unknown() {
        let twice = [("b", 2, Some(800), Some(1)), ("c", 3, Some(900), Some(2))];
        assert_eq!(after(&in_doubt("a", 1, 500, None), &twice), Known::Maybe);
    }

    /// C was promoted to timeline 2, where the in-doubt transaction ran. C died before COMMIT, and B was promoted, to
    /// timeline 2 as well, even from the same position. B's answer about C's transaction was believed.
    #[test]
    fn a_timeline_by_the_same_number_is_another_history() {
        let on_c = in_doubt("c", 2, 500, Some(400));
        let c = ("c", 2, Some(400), Some(1));
        assert_eq!(after(&on_c, &[c, ("b", 2, Some(600), Some(1))]), Known::Maybe);
        assert_eq!(
            after(&on_c, &[c, ("b", 2, Some(400), Some(1))]),
            Known::Maybe,
            "it may be C by another name"
        );
        assert_eq!(after(&on_c, &[c, ("b", 2, Some(450), Some(1))]), Known::No, "B had less than C wrote");
        // A promotion to timeline 3 may come from either.
        let third = ("a", 3, Some(900), Some(2));
        assert_eq!(after(&on_c, &[c, ("b", 2, Some(600), Some(1)), third]), Known::Maybe);
        assert_eq!(after(&on_c, &[c, third]), Known::Yes);
    }

    /// B was promoted without the transaction, and then C with it. B's recovery counted for C, so the transaction was
    /// reported as "safe to run again" although it was committed.
    #[test]
    fn only_the_present_primarys_own_recovery_counts() {
        let in_doubt = in_doubt("a", 1, 500, None);
        let (b, c) = (("b", 2, Some(400), Some(1)), ("c", 2, Some(600), Some(1)));
        assert_eq!(after(&in_doubt, &[b, c]), Known::Yes);
        assert_eq!(after(&in_doubt, &[c, b]), Known::No);
        // B was rebuilt, followed, and was promoted again: its first recovery belongs to other data.
        assert_eq!(after(&in_doubt, &[b, ("b", 2, Some(700), Some(1))]), Known::Yes);
    }

    #[test]
    fn a_standby_that_did_not_follow_the_timeline_proves_nothing() {
        let on_c = in_doubt("c", 2, 500, Some(400));
        // Promoted to 3 because 2 was taken, although from timeline 1.
        assert_eq!(after(&on_c, &[("b", 3, Some(600), Some(1))]), Known::Maybe);
        assert_eq!(after(&on_c, &[("b", 3, Some(450), Some(1))]), Known::No);
        // The primary is on timeline 1 again: all that was written on 2 is gone.
        assert_eq!(after(&on_c, &[("a", 1, None, None)]), Known::No);
    }

    /// The old primary lost the transaction in a crash, went on on the same timeline, and was then replaced. The new primary
    /// was taken for one that has it, because it had received as much. A model of the protocol found this.
    #[test]
    fn what_the_old_primary_lost_is_not_known_to_the_standby_that_follows_it() {
        let in_doubt = in_doubt("a", 1, 500, None);
        let heir = ("b", 2, Some(600), Some(1));
        assert_eq!(after(&in_doubt, &[("a", 1, Some(400), None), heir]), Known::No);
        assert_eq!(after(&in_doubt, &[("a", 1, Some(500), None), heir]), Known::Yes);
        assert_eq!(after(&in_doubt, &[("a", 1, None, None), heir]), Known::Yes);
    }

    /// The transaction's own node was rebuilt from another one that had been promoted to the same timeline unseen, and
    /// was promoted again. A model of the protocol found this.
    #[test]
    fn a_node_that_followed_and_was_promoted_again_proves_nothing() {
        let on_a = in_doubt("a", 2, 500, Some(400));
        assert_eq!(after(&on_a, &[("a", 3, Some(600), Some(2))]), Known::Maybe);
        assert_eq!(after(&on_a, &[("a", 3, Some(450), Some(2))]), Known::No);
    }

    /// If an address moves from one server to the next, it looks like one node that recovers.
    #[test]
    fn an_address_that_moved_to_another_server_proves_nothing() {
        let in_doubt = in_doubt("rw", 2, 500, Some(400));
        let at =
            |port| crate::stats::ServerIdentity { started_at_micros: i64::from(port), port, address: None };
        let mut seen = Recoveries::default();
        let before = Recovery { server: Some(at(1)), ..recovery(("rw", 2, Some(400), None), in_doubt.noted) };
        let later = in_doubt.noted + Duration::from_secs(1);
        let moved = Recovery { server: Some(at(2)), ..recovery(("rw", 2, Some(600), None), later) };
        seen.push(before);
        seen.push(moved.clone());
        assert_eq!(knows(&in_doubt, &seen, &moved), Known::Maybe);
    }
}
